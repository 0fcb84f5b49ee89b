"""From a tree of values to a protobuf message, field by field, with every fault.  Knows no kind and no text.

A field may be written by its proto name or its JSON name.  The field's type decides what a scalar means.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from google.protobuf import descriptor_pool
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

from api.messages import well_known
from api.messages.known import TYPES  # noqa: F401 - what an Any holds must be known
from api.messages.values import WrongValueError

ANY = "google.protobuf.Any"
# gRPC reads 100 messages in each other, and an answer stands in two or three more than the object.
DEEPEST = 90
LONGEST_NAME = 100
NOTHING = "is null: write {} or leave it out"


@dataclass(frozen=True)
class Fault:
    """What is wrong in a text.  `line`: from 1, 0 if unknown; `path`: dotted fields, empty for the text itself."""

    line: int
    message: str
    path: str = ""
    reason: str = ""


class Reader(Protocol):
    """One form of text as a tree.  Its values are whatever the form's parser gives."""

    def absent(self, value: Any) -> bool:
        """Whether a value is null."""
        ...

    def fields(self, value: Any) -> Iterable[tuple[str, Any, Any]] | None:
        """Return key, where the key stands and value of each entry; None if it is no mapping."""
        ...

    def items(self, value: Any) -> Sequence[Any] | None:
        """Return the items of a list, None if it is none."""
        ...

    def scalar(self, field: FieldDescriptor, value: Any) -> object:
        """Return what a scalar field holds.  Raises WrongValueError, ValueError."""
        ...

    def plain(self, value: Any) -> object:
        """Return a value as JSON knows it.  Raises WrongValueError."""
        ...

    def shape(self, value: Any) -> str:
        """Return what a value is, in words."""
        ...

    def line(self, value: Any) -> int:
        """Return the line on which a value begins, 0 if unknown."""
        ...


class Filler:
    """Fills messages and collects faults."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._depth = 0
        self.faults: list[Fault] = []

    def fill(self, message: Message, value: Any, path: str) -> None:
        """Set the fields of `message` from a mapping."""
        name = message.DESCRIPTOR.full_name
        if self._reader.absent(value) and name != well_known.VALUE:
            return
        if self._depth >= DEEPEST:
            self.fault(value, path, f"is nested deeper than {DEEPEST} messages", "TOO_DEEP")
        elif name in well_known.FORMS:
            self._attempt(
                value, path, lambda: well_known.fill(message, self._reader.plain(value), DEEPEST - self._depth)
            )
        else:
            entries = self._reader.fields(value)
            if entries is None:
                self.fault(value, path, f"wants fields, not {self._reader.shape(value)}")
                return
            self._depth += 1
            if name == ANY:
                self._any(message, value, list(entries), path)
            else:
                self.fields(message, entries, path)
            self._depth -= 1

    def fields(self, message: Any, entries: Iterable[tuple[str, Any, Any]], path: str) -> None:
        """Set the fields of `message` from the entries of a mapping."""
        names = _fields(message.DESCRIPTOR)
        seen: set[str] = set()
        for key, where, value in entries:
            field = names.get(key)
            if field is None:
                told = f"unknown field{_nearest(key, message.DESCRIPTOR)}"
                self.fault(where, _below(path, key[:LONGEST_NAME]), told, "UNKNOWN_FIELD")
            elif field.name in seen:
                self.fault(where, _below(path, key), "is given twice", "DUPLICATE_KEY")
            elif _takes_null(field) or not self._reader.absent(value):
                seen.add(field.name)
                self._field(message, field, value, _below(path, key))

    def _field(self, message: Any, field: FieldDescriptor, value: Any, path: str) -> None:
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            self._map(getattr(message, field.name), field.message_type, value, path)
        elif field.is_repeated:
            self._list(getattr(message, field.name), field, value, path)
        elif field.message_type is not None:
            below = getattr(message, field.name)
            below.SetInParent()
            self.fill(below, value, path)
        else:
            self._attempt(value, path, lambda: setattr(message, field.name, self._reader.scalar(field, value)))

    def _list(self, values: Any, field: FieldDescriptor, value: Any, path: str) -> None:
        items = self._reader.items(value)
        if items is None:
            self.fault(value, path, f"wants a list, not {self._reader.shape(value)}")
            return
        for index, item in enumerate(items):
            below = f"{path}[{index}]"
            if self._is_nothing(field, item):
                self.fault(item, below, NOTHING)
            elif field.message_type is not None:
                self.fill(values.add(), item, below)
            else:
                self._attempt(item, below, lambda item=item: values.append(self._reader.scalar(field, item)))  # type: ignore[misc]

    def _map(self, values: Any, entry: Descriptor, value: Any, path: str) -> None:
        entries = self._reader.fields(value)
        if entries is None:
            self.fault(value, path, f"wants names with values, not {self._reader.shape(value)}")
            return
        field = entry.fields_by_name["value"]
        seen: set[str] = set()
        for key, where, item in entries:
            below = f"{path}[{key[:LONGEST_NAME]}]"
            if key in seen:
                self.fault(where, below, "is given twice", "DUPLICATE_KEY")
            elif self._is_nothing(field, item):
                self.fault(where, below, NOTHING)
            elif field.message_type is not None:
                if self._attempt(where, below, lambda key=key: values.get_or_create(key)):  # type: ignore[misc]
                    self.fill(values[key], item, below)
            else:
                self._attempt(item, below, lambda key=key, item=item: self._put(values, field, key, item))  # type: ignore[misc]
            seen.add(key)

    def _is_nothing(self, field: FieldDescriptor, item: Any) -> bool:
        """Whether a message in a list or a map is null."""
        of = field.message_type
        return of is not None and of.full_name != well_known.VALUE and self._reader.absent(item)

    def _put(self, values: Any, field: FieldDescriptor, key: str, item: Any) -> None:
        values[key] = self._reader.scalar(field, item)

    def _any(self, message: Any, value: Any, entries: list[tuple[str, Any, Any]], path: str) -> None:
        """`@type` names the message; the other keys are its fields."""
        kept = [entry for entry in entries if entry[0] != "@type"]
        given = next((self._reader.plain(item) for key, _, item in entries if key == "@type"), None)
        if not isinstance(given, str) or not given:
            self.fault(value, path, "wants '@type', for example type.googleapis.com/michelangelo.api.TypedStruct")
            return
        try:
            described: Any = descriptor_pool.Default().FindMessageTypeByName(given.rsplit("/", 1)[-1])
        except KeyError:
            self._opaque(message, value, given, kept, path)
            return
        packed = described._concrete_class()
        if packed.DESCRIPTOR.full_name in (*well_known.FORMS, ANY):
            for key, where, item in kept:
                if key == "value":
                    self.fill(packed, item, path)
                else:
                    self.fault(where, _below(path, key[:LONGEST_NAME]), "unknown field: use value", "UNKNOWN_FIELD")
        else:
            self.fields(packed, kept, path)
        self._attempt(value, path, lambda: message.Pack(packed, deterministic=True))

    def _opaque(self, message: Any, value: Any, url: str, kept: Sequence[tuple[str, Any, Any]], path: str) -> None:
        """Keep a message of a type that is not known here, written as `bytes` in base64."""
        if [key for key, _, _ in kept] != ["bytes"]:
            self.fault(value, f"{path}.@type", f"unknown message {url[:LONGEST_NAME]!r}")
            return
        field = message.DESCRIPTOR.fields_by_name["value"]
        message.type_url = url
        self._attempt(value, path, lambda: setattr(message, "value", self._reader.scalar(field, kept[0][2])))

    def _attempt(self, value: Any, path: str, action: Callable[[], object]) -> bool:
        try:
            action()
        except UnicodeError:
            self.fault(value, path, "is no text: it holds half of a surrogate pair", "BAD_TEXT")
        except WrongValueError as error:
            self.fault(value, path + error.below, str(error), error.reason)
        except (ValueError, TypeError, OverflowError) as error:
            self.fault(value, path, str(error))
        else:
            return True
        return False

    def fault(self, value: Any, path: str, message: str, reason: str = "") -> None:
        """Add a fault that was found at a value."""
        self.faults.append(Fault(self._reader.line(value), message, path, reason))


def _takes_null(field: FieldDescriptor) -> bool:
    """Whether null is a value of a field, and not the same as leaving it out."""
    of = field.message_type
    return of is not None and of.full_name == well_known.VALUE and not field.is_repeated


_NAMES: dict[str, dict[str, FieldDescriptor]] = {}


def _fields(descriptor: Descriptor) -> dict[str, FieldDescriptor]:
    """Return the fields of a message by both their names."""
    found = _NAMES.get(descriptor.full_name)
    if found is None:
        found = {name: field for field in descriptor.fields for name in (field.name, field.json_name)}
        _NAMES[descriptor.full_name] = found
    return found


def _below(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key


def _nearest(key: str, descriptor: Descriptor) -> str:
    names = [field.json_name for field in descriptor.fields] + [field.name for field in descriptor.fields]
    near = difflib.get_close_matches(key[:LONGEST_NAME], names, n=1, cutoff=0.6)
    return f": did you mean {near[0]}?" if near else ""
