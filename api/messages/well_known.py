"""Messages that JSON writes in a form of their own: free JSON, times, wrappers.  Both ways; knows no text."""

from __future__ import annotations

import datetime
import math
from typing import Any

from google.protobuf import json_format
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from api.messages.values import WrongValueError

META = "k8s.io.apimachinery.pkg.apis.meta.v1"
TIME, FIELDS = f"{META}.Time", f"{META}.FieldsV1"
STRUCT, VALUE, LIST = (f"google.protobuf.{name}" for name in ("Struct", "Value", "ListValue"))
TIMESTAMP, DURATION = "google.protobuf.Timestamp", "google.protobuf.Duration"
FREE = frozenset({STRUCT, VALUE, LIST})
WRAPPERS = frozenset(
    f"google.protobuf.{name}Value"
    for name in ("String", "Bytes", "Bool", "Int32", "Int64", "UInt32", "UInt64", "Float", "Double")
)
FORMS = FREE | WRAPPERS | {TIMESTAMP, TIME, DURATION, FIELDS, "google.protobuf.FieldMask"}
# A mapping is a Struct, its entry and a Value; a list is a ListValue and a Value.
MAPPING_DEPTH, LIST_DEPTH = 3, 2
LONGEST_NAME = 100
# Whole numbers up to here are the same in JSON and in a double.
SAFE = 2**53


def fill(message: Message, value: object, room: int) -> None:
    """Set a message from plain JSON.  `room`: how many messages may still stand in each other.

    Raises WrongValueError, ValueError.
    """
    name = message.DESCRIPTOR.full_name
    if name in FREE:
        _free(message, value, room)
    elif name in (TIMESTAMP, TIME):
        _time(message, value)
    elif name == FIELDS:
        _fields(message, value)
    else:
        try:
            json_format.ParseDict(str(value) if name == DURATION else value, message)  # type: ignore[arg-type]
        except json_format.ParseError as error:
            raise WrongValueError(str(error).split(": ", 1)[-1]) from None


def _free(message: Any, value: object, room: int) -> None:
    if room < MAPPING_DEPTH:
        raise WrongValueError("is nested too deep", "TOO_DEEP")
    name = message.DESCRIPTOR.name
    if name == "Struct":
        if not isinstance(value, dict):
            raise WrongValueError("wants fields")
        for key, item in value.items():
            _inside(f".{key[:LONGEST_NAME]}", message.fields[key], item, room - MAPPING_DEPTH)
    elif name == "ListValue":
        if not isinstance(value, list):
            raise WrongValueError("wants a list")
        for position, item in enumerate(value):
            _inside(f"[{position}]", message.values.add(), item, room - LIST_DEPTH)
    elif isinstance(value, dict):
        message.struct_value.SetInParent()
        _free(message.struct_value, value, room)
    elif isinstance(value, list):
        message.list_value.SetInParent()
        _free(message.list_value, value, room)
    elif value is None:
        message.null_value = 0
    elif isinstance(value, bool):
        message.bool_value = value
    elif isinstance(value, str):
        message.string_value = value
    elif isinstance(value, int | float):
        message.number_value = _finite(value)
    else:
        raise WrongValueError("is no JSON")


def _inside(where: str, message: Any, value: object, room: int) -> None:
    try:
        _free(message, value, room)
    except WrongValueError as error:
        # Of what is too deep its beginning is the better place.
        if error.reason != "TOO_DEEP":
            error.below = where + error.below
        raise


def _finite(value: float) -> float:
    if isinstance(value, int) and abs(value) > SAFE:
        raise WrongValueError("is beyond 2^53, where numbers are not exact: write it in quotes", "UNSAFE_INTEGER")
    number = float(value)
    if not math.isfinite(number):
        raise WrongValueError("must be a finite number", "NOT_FINITE")
    return number


def _time(message: Any, value: object) -> None:
    if message.DESCRIPTOR.full_name == TIME and isinstance(value, dict) and value.keys() <= {"seconds", "nanos"}:
        json_format.ParseDict(value, message)
        return
    read = Timestamp()
    try:
        read.FromJsonString(str(value))
    except ValueError:
        raise WrongValueError("wants a time as in 2026-03-01T08:30:00Z") from None
    message.seconds, message.nanos = read.seconds, read.nanos


def _fields(message: Any, value: object) -> None:
    """Keep the fields of a manager as the JSON that they are."""
    import msgspec

    message.Raw = msgspec.json.encode(value)


def time_text(message: Any) -> str:
    """Return a moment as RFC 3339 in UTC, with as many digits as it has."""
    try:
        moment = datetime.datetime.fromtimestamp(message.seconds, datetime.UTC)
    except (OverflowError, ValueError, OSError):
        return "0001-01-01T00:00:00Z"
    text = moment.isoformat()[: len("0001-01-01T00:00:00")]
    if 0 < message.nanos < 1_000_000_000:
        text += f".{message.nanos:09d}".rstrip("0")
    return text + "Z"


def duration_text(message: Any) -> str:
    """Return a duration in seconds, with as many digits as it has."""
    sign = "-" if message.seconds < 0 or message.nanos < 0 else ""
    text = f"{sign}{abs(message.seconds)}"
    if 0 < abs(message.nanos) < 1_000_000_000:
        text += f".{abs(message.nanos):09d}".rstrip("0")
    return text + "s"


def free(message: Any) -> Any:
    """Return free JSON as plain values."""
    name = message.DESCRIPTOR.name
    if name == "Struct":
        return {key: free(item) for key, item in message.fields.items()}
    if name == "ListValue":
        return [free(item) for item in message.values]
    which = message.WhichOneof("kind")
    if which is None or which == "null_value":
        return None
    value = getattr(message, which)
    if which == "number_value":
        return int(value) if abs(value) < SAFE and value.is_integer() else value
    return free(value) if which in ("struct_value", "list_value") else value
