"""Messages of any type with values that programs trip over.  Random by a seed; valid protobuf, seldom valid objects."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from google.protobuf import any_pb2, duration_pb2, struct_pb2, timestamp_pb2, wrappers_pb2
from google.protobuf.descriptor import FieldDescriptor

from api.gen.michelangelo.api import typed_struct_pb2

TEXTS: Sequence[str] = (
    "",
    "a",
    "good-name",
    "Bad Name",
    "a" * 300,
    "x" * 20_000,
    "\0",
    "a\nb\r\n\t",
    "größe \U0001f600",
    "\u202e\ufeff",
    "..",
    "../../etc/passwd",
    "{{ 7*7 }} ${x} %(y)s $(id)",
    "'; DROP TABLE object; --",
    "<script>alert(1)</script>",
    "0",
    "-1",
    "9" * 400,
    "1e400",
    "null",
    "true",
    "2026-02-30T25:61:61Z",
    "0 0 30 2 *",
    "*/0 * * * *",
    "All",
    "Orphan",
    "michelangelo/UpdateTimestamp",
    "a=b,!c,d in (e,f)",
    "metadata.name",
    "spec.tier",
    "status.state",
    "Pipeline",
    "Project",
    "train",
    "steps",
)
NUMBERS = (0, 1, -1, 2, 7, 127, 255, 1_000, 2**31 - 1, -(2**31), 2**32 - 1, 2**53 + 1, 2**63 - 1, -(2**63), 2**64 - 1)
FLOATS = (0.0, -0.0, 1.5, -1.0, 1e308, -1e308, 5e-324, float("nan"), float("inf"), float("-inf"))
PACKED = (
    wrappers_pb2.StringValue,
    wrappers_pb2.Int64Value,
    wrappers_pb2.DoubleValue,
    wrappers_pb2.BytesValue,
    timestamp_pb2.Timestamp,
    duration_pb2.Duration,
    struct_pb2.Struct,
    struct_pb2.Value,
    struct_pb2.ListValue,
    any_pb2.Any,
    typed_struct_pb2.TypedStruct,
)
CPP = FieldDescriptor
RANGES = {
    CPP.CPPTYPE_INT32: (-(2**31), 2**31 - 1),
    CPP.CPPTYPE_UINT32: (0, 2**32 - 1),
    CPP.CPPTYPE_INT64: (-(2**63), 2**63 - 1),
    CPP.CPPTYPE_UINT64: (0, 2**64 - 1),
    CPP.CPPTYPE_ENUM: (-(2**31), 2**31 - 1),
}


class Maker:
    """Fills messages.  `share`: how likely each field is set, which falls with the depth."""

    def __init__(self, seed: int) -> None:
        self.pick = random.Random(seed)

    def fill(self, message: Any, share: float = 0.5) -> Any:
        """Set some fields of `message` and return it."""
        if isinstance(message, any_pb2.Any):
            return self._any(message, share)
        for field in message.DESCRIPTOR.fields:
            if self.pick.random() >= share:
                continue
            if field.message_type is not None and field.message_type.GetOptions().map_entry:
                self._map(message, field, share)
            elif field.is_repeated:
                self._list(message, field, share)
            elif field.message_type is not None:
                target = getattr(message, field.name)
                target.SetInParent()
                self.fill(target, share * 0.7)
            else:
                setattr(message, field.name, self.value(field))
        return message

    def text(self) -> str:
        """Return a text: most are short, as an object with a long one is refused before all else is looked at."""
        return self.pick.choice(TEXTS[:4] if self.pick.random() < 0.5 else TEXTS)

    def json(self, depth: int = 0) -> Any:
        """Return a JSON value that a Struct can hold."""
        roll = self.pick.random()
        if roll < 0.2 and depth < 3:
            return {self.pick.choice(TEXTS[:6]): self.json(depth + 1) for _ in range(self.pick.randint(0, 3))}
        if roll < 0.4 and depth < 3:
            return [self.json(depth + 1) for _ in range(self.pick.randint(0, 3))]
        return self.pick.choice((None, True, False, self.text(), self.pick.choice(NUMBERS), self.pick.choice(FLOATS)))

    def value(self, field: FieldDescriptor) -> Any:
        """Return a value for a scalar field."""
        kind = field.cpp_type
        if kind == CPP.CPPTYPE_BOOL:
            return self.pick.random() < 0.5
        if kind in (CPP.CPPTYPE_DOUBLE, CPP.CPPTYPE_FLOAT):
            return self.pick.choice(FLOATS)
        if kind == CPP.CPPTYPE_STRING:
            return self.pick.randbytes(5) if field.type == CPP.TYPE_BYTES else self.text()
        low, high = RANGES[kind]
        if field.enum_type is not None and (self.pick.random() < 0.8 or field.enum_type.is_closed):
            return self.pick.choice(field.enum_type.values).number
        return self.pick.choice([number for number in NUMBERS if low <= number <= high])

    def _map(self, message: Any, field: FieldDescriptor, share: float) -> None:
        entry: Any = field.message_type
        values = getattr(message, field.name)
        for _ in range(self.pick.randint(0, 2)):
            key, of = self.value(entry.fields_by_name["key"]), entry.fields_by_name["value"]
            if of.message_type is not None:
                self.fill(values[key], share * 0.6)
            else:
                values[key] = self.value(of)

    def _list(self, message: Any, field: FieldDescriptor, share: float) -> None:
        values = getattr(message, field.name)
        for _ in range(self.pick.randint(0, 2)):
            if field.message_type is not None:
                self.fill(values.add(), share * 0.6)
            else:
                values.append(self.value(field))

    def _any(self, message: any_pb2.Any, share: float) -> any_pb2.Any:
        roll = self.pick.random()
        if roll < 0.1:
            message.type_url, message.value = self.text(), self.pick.randbytes(8)
        else:
            message.Pack(self.fill(self.pick.choice(PACKED)(), share))
            if roll < 0.2:
                message.value = self.pick.randbytes(8)
        return message
