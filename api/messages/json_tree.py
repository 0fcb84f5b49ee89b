"""Plain JSON values as a tree of values for messages."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from typing import Any

from google.protobuf.descriptor import FieldDescriptor

from api.messages import enums
from api.messages.values import FLOATS, INTEGERS, WrongValueError, decoded, wanted

INTEGER = re.compile(r"-?(0|[1-9][0-9]{0,19})\Z")
NUMBER = re.compile(r"-?[0-9]{1,400}(\.[0-9]{1,400})?([eE][-+]?[0-9]{1,4})?\Z")
SPELLED = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
SHOWN = 64


class JsonTree:
    """Reads what `json_text.read` returns."""

    def absent(self, value: Any) -> bool:
        """Whether a value is null."""
        return value is None

    def fields(self, value: Any) -> Iterator[tuple[str, Any, Any]] | None:
        """Return key, value and value of each entry; None if it is no mapping."""
        return ((key, item, item) for key, item in value.items()) if isinstance(value, dict) else None

    def items(self, value: Any) -> Sequence[Any] | None:
        """Return the items of a list, None if it is none."""
        return value if isinstance(value, list) else None

    def plain(self, value: Any) -> object:
        """Return the value."""
        return value

    def line(self, value: Any) -> int:
        """Return 0: JSON is written by programs, which look for paths."""
        return 0

    def shape(self, value: Any) -> str:
        """Return what a value is, in words."""
        if isinstance(value, dict):
            return "fields"
        if isinstance(value, bool):
            return "true" if value else "false"
        return "a list" if isinstance(value, list) else repr(value[:SHOWN] if isinstance(value, str) else value)

    def scalar(self, field: FieldDescriptor, value: Any) -> object:
        """Return what a scalar field holds.  Raises WrongValueError, ValueError."""
        if field.enum_type is not None:
            if isinstance(value, str):
                return enums.number(field.enum_type, value)
            if isinstance(value, int) and not isinstance(value, bool):
                return value
        elif field.type == FieldDescriptor.TYPE_STRING:
            if isinstance(value, str):
                return value
        elif field.type == FieldDescriptor.TYPE_BYTES:
            if isinstance(value, str):
                return decoded(value)
        elif field.cpp_type == FieldDescriptor.CPPTYPE_BOOL:
            if isinstance(value, bool):
                return value
        elif not isinstance(value, bool):
            number = _number(field, value)
            if number is not None:
                return number
        raise WrongValueError(f"wants {wanted(field)}, not {self.shape(value)}")


def _number(field: FieldDescriptor, value: Any) -> int | float | None:
    if field.cpp_type in INTEGERS:
        if isinstance(value, float) and value.is_integer():
            return int(value)
        if isinstance(value, str) and INTEGER.match(value):
            return int(value)
        return value if isinstance(value, int) else None
    if field.cpp_type in FLOATS:
        if isinstance(value, str):
            return SPELLED.get(value, float(value) if NUMBER.match(value) else None)
        return float(value) if isinstance(value, int | float) else None
    return None
