"""What a message may hold so that the store, JSON and a screen can carry it.  Reads one message; knows no kind.

Text is UTF-8 without NUL, numbers inside JSON values are finite, and an Any of a known type can be read.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from google.protobuf import descriptor_pool, message_factory
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import DecodeError, Message

from api.errors import FieldViolation
from api.validation import is_map, shown

ANY = "google.protobuf.Any"
JSON = {"google.protobuf.Struct", "google.protobuf.Value", "google.protobuf.ListValue"}
DEEPEST_ANY = 8


def faults(message: Message, path: str = "", depth: int = 0) -> Iterator[FieldViolation]:
    """Yield what cannot be carried, with its path below `path`."""
    name = message.DESCRIPTOR.full_name
    if name in JSON:
        yield from _json(message, path)
        return
    if name == ANY:
        yield from _any(message, path, depth)
        return
    for field, value in message.ListFields():
        if isinstance(value, str) and "\0" not in value:
            continue
        at = f"{path}.{field.name}" if path else field.name
        if is_map(field):
            yield from _map(field, value, at, depth)
        elif field.is_repeated:
            for position, item in enumerate(value):
                yield from _one(field, item, f"{at}[{position}]", depth)
        else:
            yield from _one(field, value, at, depth)


def _map(field: FieldDescriptor, value: Any, path: str, depth: int) -> Iterator[FieldViolation]:
    of: Any = field.message_type
    try:
        items = list(value.items())
    except UnicodeDecodeError:
        yield FieldViolation(path, "has a key that is not UTF-8", reason="BAD_TEXT")
        return
    for key, item in items:
        yield from _text(key, path)
        yield from _one(of.fields_by_name["value"], item, f"{path}[{shown(key)}]", depth)


def _one(field: FieldDescriptor, value: Any, path: str, depth: int) -> Iterator[FieldViolation]:
    if field.message_type is not None:
        yield from faults(value, path, depth)
    elif field.type == FieldDescriptor.TYPE_STRING:
        yield from _text(value, path)


def _text(value: object, path: str) -> Iterator[FieldViolation]:
    # Strings of proto2 messages, as Kubernetes' metadata is one, are not checked by the parser: they arrive as bytes.
    if isinstance(value, bytes):
        yield FieldViolation(path, "is not UTF-8", reason="BAD_TEXT")
    elif isinstance(value, str) and "\0" in value:
        yield FieldViolation(path, "holds a NUL character", shown(value), reason="BAD_TEXT")


def _json(value: Any, path: str) -> Iterator[FieldViolation]:
    name = value.DESCRIPTOR.name
    if name == "Struct":
        for key, item in value.fields.items():
            yield from _text(key, path)
            yield from _json(item, f"{path}.{shown(key)}")
    elif name == "ListValue":
        for position, item in enumerate(value.values):
            yield from _json(item, f"{path}[{position}]")
    elif (kind := value.WhichOneof("kind")) in ("struct_value", "list_value"):
        yield from _json(getattr(value, kind), path)
    elif kind == "string_value":
        yield from _text(value.string_value, path)
    elif kind == "number_value" and not math.isfinite(value.number_value):
        yield FieldViolation(path, "must be a finite number", str(value.number_value), reason="NOT_FINITE")


def _any(packed: Any, path: str, depth: int) -> Iterator[FieldViolation]:
    if depth >= DEEPEST_ANY:
        yield FieldViolation(path, f"holds messages in messages deeper than {DEEPEST_ANY}", reason="TOO_DEEP")
        return
    try:
        described = descriptor_pool.Default().FindMessageTypeByName(packed.TypeName())
    except KeyError:
        return  # A type of somebody else is kept as it is.
    try:
        inner = message_factory.GetMessageClass(described).FromString(packed.value)
    except DecodeError:
        yield FieldViolation(path, f"holds bytes that are no {described.full_name}", reason="BAD_MESSAGE")
        return
    yield from faults(inner, path, depth + 1)
