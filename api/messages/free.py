"""Free JSON in a message's field: how deep it may be, and setting it.  Knows no kind."""

from __future__ import annotations

from typing import Any

from api.messages import well_known
from api.messages.values import WrongValueError

# Levels of a value that stands in a message of its own: 1 for a text.
DEEPEST = 20


def fill(value: Any, given: Any) -> None:
    """Set a google.protobuf.Value from JSON values.  Raises ValueError for what is none, or is nested too deep."""
    try:
        # In messages: a mapping is three of them.
        well_known.fill(value, given, 3 * (DEEPEST + 1))
    except WrongValueError as error:
        raise ValueError(f"data{error.below} {error}") from None


def depth(value: Any) -> int:
    """Return how deep a google.protobuf.Value is nested."""
    kind = value.WhichOneof("kind")
    if kind == "struct_value":
        return 1 + max((depth(item) for item in value.struct_value.fields.values()), default=0)
    if kind == "list_value":
        return 1 + max((depth(item) for item in value.list_value.values), default=0)
    return 1
