"""The part of a URL behind `?`.  What is not known or given twice is refused: a wrong selector must not select all."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from urllib.parse import parse_qsl

from api.admission import refuse
from api.errors import FieldViolation
from api.validation import nearest, shown

MOST = 100
INTEGER = re.compile(r"-?[0-9]{1,18}\Z")
TRUE, FALSE = {"true", "True", "1"}, {"false", "False", "0"}

DURATION = re.compile(r"(?:([0-9]{1,6})h)?(?:([0-9]{1,6})m)?(?:([0-9]{1,9}(?:\.[0-9]{1,9})?)s)?\Z")

FIELD_VALIDATION = ("Strict", "Warn", "Ignore")
DOCUMENT = frozenset({"pretty", "timeout", "hash"})
ITEM = frozenset({"pretty", "timeout", "resourceVersion", "includeObject"})
WRITE = frozenset({"pretty", "timeout", "dryRun", "fieldManager", "fieldValidation", "includeObject"})
APPLY = WRITE | {"force"}
DELETE = frozenset(
    {
        *(
            "pretty",
            "timeout",
            "dryRun",
            "gracePeriodSeconds",
            "propagationPolicy",
            "orphanDependents",
            "includeObject",
        ),
        "ignoreStoreReadErrorWithClusterBreakingPotential",
    }
)
LIST = frozenset(
    {
        *(
            "pretty",
            "timeout",
            "labelSelector",
            "fieldSelector",
            "limit",
            "continue",
            "resourceVersion",
            "resourceVersionMatch",
        ),
        *("timeoutSeconds", "watch", "allowWatchBookmarks", "sendInitialEvents", "listOptionsExt", "includeObject"),
    }
)


class Parameters:
    """The parameters of one request.  Raises InvalidArgument, ResourceExhausted."""

    def __init__(self, raw: bytes) -> None:
        self._values: dict[str, list[str]] = {}
        if not raw:
            return
        try:
            pairs = parse_qsl(
                raw.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=MOST, separator="&"
            )
        except UnicodeError:
            refuse([FieldViolation("query", "is not UTF-8 in percent codes", reason="BAD_TEXT")])
        except ValueError:
            refuse([FieldViolation("query", f"has more than {MOST} parameters", reason="BAD_PARAMETER")])
        for name, value in pairs:
            self._values.setdefault(name, []).append(value)

    def check(self, known: frozenset[str]) -> None:
        """Refuse parameters that the request does not have, and all but `dryRun` given twice."""
        if not self._values:
            return
        found = [
            FieldViolation(
                shown(name), f"is no parameter of this request{nearest(name, known)}", reason="BAD_PARAMETER"
            )
            for name in self._values
            if name not in known
        ]
        found += [
            FieldViolation(shown(name), f"is given {len(values)} times: give it once", reason="BAD_PARAMETER")
            for name, values in self._values.items()
            if len(values) > 1 and name != "dryRun" and name in known
        ]
        refuse(found)

    def text(self, name: str) -> str:
        """Return a text, empty if it was not given."""
        return self._values.get(name, ("",))[0]

    def many(self, name: str) -> Sequence[str]:
        """Return every value that was given."""
        return self._values.get(name, ())

    def flag(self, name: str) -> bool:
        """Return true or false; false if it was not given."""
        if name not in self._values:
            return False
        value = self.text(name)
        if value not in TRUE and value not in FALSE:
            self._refuse(name, "is true or false", value)
        return value in TRUE

    def count(self, name: str) -> int:
        """Return a whole number from 0, 0 if it was not given."""
        number = self.number(name)
        if number < 0:
            self._refuse(name, "is a whole number from 0", str(number))
        return number

    def number(self, name: str) -> int:
        """Return a whole number, 0 if it was not given."""
        if name not in self._values:
            return 0
        value = self.text(name)
        if not INTEGER.match(value):
            self._refuse(name, "is a whole number", value)
        return int(value)

    def duration_s(self, name: str) -> float | None:
        """Return a time such as `30s` or `1m30s` in seconds, None if it was not given or is none."""
        if name not in self._values:
            return None
        value = self.text(name)
        found = DURATION.match(value)
        if found is None or not value:
            self._refuse(name, "is a time such as 30s or 1m30s", value)
            return None
        hours, minutes, seconds = found.groups(default="0")
        return int(hours) * 3600 + int(minutes) * 60 + float(seconds) or None

    def one_of(self, name: str, values: Iterable[str]) -> str:
        """Return one of some values, empty if it was not given."""
        value = self.text(name)
        if name in self._values and value not in values:
            self._refuse(name, f"is one of {', '.join(values)}", value)
        return value

    def _refuse(self, name: str, told: str, value: str) -> None:
        refuse([FieldViolation(name, f"{told}, not {shown(value)!r}", shown(value), "BAD_PARAMETER")])
