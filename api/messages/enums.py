"""Values of enums for people: `RUNNING` for `PIPELINE_RUN_STATE_RUNNING`, and back.  Works on descriptors alone."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import Any


def text(enum: Any, number: int) -> str:
    """Return a value without what all names of its enum begin with; zero, which means unset, as `-`."""
    value = enum.values_by_number.get(number)
    if value is None:
        return str(number)
    return "-" if number == 0 else str(value.name).removeprefix(_prefix(_names(enum)))


def of(message: Any, field: str) -> str:
    """Return the value of a message's enum field as `text` does."""
    return text(message.DESCRIPTOR.fields_by_name[field].enum_type, getattr(message, field))


def number(enum: Any, given: str) -> int:
    """Return the number of a value's name, with or without its prefix.  Raises ValueError with the nearest."""
    values = {value.name: value.number for value in enum.values}
    prefix = _prefix(_names(enum))
    short = {name.removeprefix(prefix): found for name, found in values.items()}
    if given in values:
        return int(values[given])
    if given.upper() in short:
        return int(short[given.upper()])
    if given.isascii() and given.isdigit() and int(given) in values.values():
        return int(given)
    near = difflib.get_close_matches(given.upper().removeprefix(prefix), short, n=1, cutoff=0.5)
    hint = f"did you mean {prefix}{near[0]}?" if near else f"use one of {', '.join(list(values)[1:9])}"
    raise ValueError(f"unknown value {given[:64]!r}: {hint}")


def prefix(enum: Any) -> str:
    """Return what the names of all values begin with."""
    return _prefix(_names(enum))


def _names(enum: Any) -> Sequence[str]:
    return [value.name for value in enum.values]


def _prefix(names: Sequence[str]) -> str:
    """Return what all names begin with, up to an underscore."""
    shortest = min(names, key=len)
    for size in range(len(shortest), 0, -1):
        if shortest[size - 1] == "_" and all(name.startswith(shortest[:size]) for name in names):
            return shortest[:size]
    return ""
