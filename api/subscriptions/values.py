"""What an event says: its identity, its size, and its fields by path.  Pure; knows no store."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

from api.errors import FieldViolation
from api.validation import nearest, shown

LARGEST_DATA = 48 * 1024
DEFAULT_TTL = timedelta(days=7)
LONGEST_TTL = timedelta(days=30)
# A chain of runs that events began ends here.
DEEPEST = 10
# Names of what the platform itself says.
OWN = "ma."
# Annotations of a run that an event began.
EVENT = "michelangelo.airflow/event"
DEPTH = "michelangelo.airflow/event-depth"
PAYLOAD = "michelangelo.airflow/event-data"
SUBSCRIPTION = "michelangelo.airflow/subscription"

TEXTS = ("name", "source", "key", "subject", "time")
ROOTS = ("data", "attributes", *TEXTS)
MISSING: Any = object()
DIGITS = 24
LONGEST_SLUG = 100
NO_SLUG = re.compile(r"[^a-z0-9]+")


def event_name(name: str, source: str, key: str) -> str:
    """Return what the event of a name, source and key is called: the same whoever publishes it."""
    digest = hashlib.sha256(json.dumps([name, source, key]).encode()).hexdigest()[:DIGITS]
    return f"{slug(name)}-{digest}"


def slug(text: str) -> str:
    """Return a text as a part of a name."""
    return NO_SLUG.sub("-", text[:LONGEST_SLUG].lower()).strip("-") or "event"


def size(data: Any) -> int:
    """Return the bytes of a payload as JSON."""
    return len(as_json(plain(data)).encode())


def as_json(value: Any) -> str:
    """Return JSON in its shortest form, the same for equal values."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), sort_keys=True)


def plain(data: Any) -> Any:
    """Return a Value as JSON values; whole numbers are int, as they were written."""
    kind = data.WhichOneof("kind")
    if kind is None or kind == "null_value":
        return None
    if kind == "number_value":
        number = data.number_value
        return int(number) if number.is_integer() else number
    if kind == "struct_value":
        return {key: plain(item) for key, item in data.struct_value.fields.items()}
    if kind == "list_value":
        return [plain(item) for item in data.list_value.values]
    return getattr(data, kind)


def depth_of(run: Any | None) -> int:
    """Return how many runs that events began end with this one; 0 for none."""
    text = "" if run is None else run.metadata.annotations.get(DEPTH, "")
    return min(int(text), DEEPEST) if text.isascii() and text.isdigit() and len(text) < 6 else 0


def fields(event: Any) -> dict[str, Any]:
    """Return what paths lead through: an event as JSON values."""
    spec = event.spec
    found: dict[str, Any] = {name: getattr(spec, name) for name in ("name", "source", "subject")}
    found["key"] = spec.key or event.metadata.name
    found["time"] = spec.time.ToJsonString() if spec.HasField("time") else ""
    found["attributes"] = dict(spec.attributes)
    found["data"] = plain(spec.data)
    return found


def look_up(found: Mapping[str, Any], path: str) -> Any:
    """Return the value at a dotted path, MISSING where there is none.  A number leads into a list."""
    here: Any = found
    for part in path.split("."):
        if isinstance(here, Mapping) and part in here:
            here = here[part]
        elif isinstance(here, list) and part.isascii() and part.isdigit() and int(part[:9]) < len(here):
            here = here[int(part[:9])]
        else:
            return MISSING
    return here


def path_faults(path: str, field: str) -> Sequence[FieldViolation]:
    """Return what is wrong with a path, whatever the event."""
    root, _, rest = path.partition(".")
    if root not in ROOTS:
        told = f"begins with {', '.join(ROOTS)}, such as data.day{nearest(root, ROOTS)}"
        return [FieldViolation(field, told, shown(path), "BAD_PATH")]
    if (root in TEXTS and rest) or not all(path.split(".")):
        told = "is a text, and nothing is below it" if root in TEXTS else "has an empty part"
        return [FieldViolation(field, told, shown(path), "BAD_PATH")]
    return []
