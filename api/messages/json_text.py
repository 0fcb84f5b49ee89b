"""JSON as this platform reads it: RFC 8259 in UTF-8, nothing twice, nothing that two readers take for two things.

Refused with the path of every fault: a key given twice, numbers that are not finite or not exact in a double, text that
is no Unicode, levels too deep.  One pass of the standard parser; a second look only where it found something.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from typing import Any

from api.errors import FieldViolation, InvalidArgument

DEEPEST = 64
BOM = b"\xef\xbb\xbf"
LARGEST_SAFE = 2**53
LONGEST_INTEGER = 400
SHOWN = 64
MOST_FAULTS = 100


class _Refused:
    """Stands in the tree for a value that must not be there."""

    __slots__ = ("reason", "told", "value")

    def __init__(self, reason: str, told: str, value: str = "") -> None:
        self.reason, self.told, self.value = reason, told, value[:SHOWN]


class _Twice(dict[str, Any]):
    """A mapping in whose text a key stood twice."""

    key = ""


class _Marks:
    """What the parser calls for every mapping and number; `found` tells whether anything must be refused."""

    def __init__(self) -> None:
        self.found = False

    def pairs(self, pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
        made = dict(pairs)
        if len(made) == len(pairs):
            return made
        self.found = True
        seen: set[str] = set()
        twice = _Twice(made)
        for key, _ in pairs:
            if key in seen:
                twice.key = key
                break
            seen.add(key)
        return twice

    def integer(self, text: str) -> object:
        if len(text) <= 16:
            number = int(text)
            if -LARGEST_SAFE <= number <= LARGEST_SAFE and (number or text[0] != "-"):
                return number
        self.found = True
        if text == "-0":
            return _Refused("NOT_FINITE", "is a negative zero: write 0", text)
        return _Refused(
            "UNSAFE_INTEGER", "is beyond 2^53, where JSON's numbers are not exact: write it in quotes", text
        )

    def number(self, text: str) -> object:
        number = float(text)
        if number == 0.0 and math.copysign(1.0, number) < 0:
            self.found = True
            return _Refused("NOT_FINITE", "is a negative zero: write 0", text)
        return number if math.isfinite(number) else self.constant(text)

    def constant(self, text: str) -> object:
        self.found = True
        return _Refused("NOT_FINITE", "must be a finite number", text)


def read(data: bytes, what: str = "the body") -> Any:
    """Return the value of a JSON text.  Raises InvalidArgument with the path of every fault."""
    text = _text(data, what)
    marks = _Marks()
    decoder = json.JSONDecoder(
        object_pairs_hook=marks.pairs,
        parse_int=marks.integer,
        parse_float=marks.number,
        parse_constant=marks.constant,
    )
    try:
        value = decoder.decode(text)
    except RecursionError:
        raise _bad("TOO_DEEP", f"{what} is nested deeper than {DEEPEST} levels") from None
    except json.JSONDecodeError as error:
        raise _unreadable(error, what) from None
    if text.count("{") + text.count("[") > DEEPEST:
        _check_depth(value, what)
    if marks.found or "\\u" in text:
        found = list(_faults(value, ""))[:MOST_FAULTS]
        if found:
            told = "; ".join(f"{fault.field or what} {fault.description}" for fault in found[:20])
            reasons = {fault.reason for fault in found}
            raise InvalidArgument(told, reason=reasons.pop() if len(reasons) == 1 else "", violations=found)
    return value


def _text(data: bytes, what: str) -> str:
    if data.startswith(BOM):
        raise _bad("TRAILING_DATA", f"{what} begins with a byte order mark: remove its three bytes")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise _bad(
            "BAD_TEXT", f"{what} is not UTF-8: byte 0x{data[error.start]:02x} at position {error.start}"
        ) from None


def _unreadable(error: json.JSONDecodeError, what: str) -> InvalidArgument:
    where = f"line {error.lineno}, column {error.colno}"
    if error.msg == "Extra data":
        return _bad("TRAILING_DATA", f"{what} goes on after its end, at {where}")
    if error.msg.startswith("Invalid control character"):
        return _bad("BAD_TEXT", f"{what} holds a control character in a text, at {where}: write it as \\u")
    if not error.doc.strip():
        return _bad("BAD_MESSAGE", f"{what} is empty")
    return _bad("BAD_MESSAGE", f"{what} is no JSON: {error.msg[:1].lower()}{error.msg[1:]}, at {where}")


def _bad(reason: str, told: str) -> InvalidArgument:
    return InvalidArgument(told, reason=reason)


def _check_depth(value: Any, what: str) -> None:
    level = [value]
    for _ in range(DEEPEST + 1):
        level = [item for outer in level for item in _inside(outer) if isinstance(item, dict | list)]
        if not level:
            return
    raise _bad("TOO_DEEP", f"{what} is nested deeper than {DEEPEST} levels")


def _inside(value: Any) -> Any:
    return value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()


def _faults(value: Any, path: str) -> Iterator[FieldViolation]:
    if isinstance(value, _Refused):
        yield FieldViolation(path, value.told, value.value, value.reason)
    elif isinstance(value, str):
        if not _is_text(value):
            yield FieldViolation(path, "is no text: it holds half of a surrogate pair", reason="BAD_TEXT")
    elif isinstance(value, dict):
        if isinstance(value, _Twice):
            told = f"has the key {value.key[:SHOWN]!r} twice"
            yield FieldViolation(path, _printable(told), reason="DUPLICATE_KEY")
        for key, item in value.items():
            if not _is_text(key):
                yield FieldViolation(path, "has a key that is no text: half of a surrogate pair", reason="BAD_TEXT")
            else:
                yield from _faults(item, f"{path}.{key[:SHOWN]}" if path else key[:SHOWN])
    elif isinstance(value, list):
        for position, item in enumerate(value):
            yield from _faults(item, f"{path}[{position}]")


def _is_text(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _printable(text: str) -> str:
    return text.encode("utf-8", "replace").decode()
