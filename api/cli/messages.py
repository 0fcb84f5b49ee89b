"""From YAML nodes to a protobuf message, field by field, with every fault and its line.  Knows no kind.

A field may be written by its proto name or its JSON name.  The field's type decides what a scalar means.
"""

from __future__ import annotations

import base64
import binascii
import difflib
import json
from collections.abc import Callable
from typing import Any

import yaml
from google.protobuf import json_format
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

from api.cli import enums
from api.cli.known import TYPES  # noqa: F401 - what an Any holds must be known
from api.cli.yaml_text import FALSE, FLOAT, INTEGER, TRUE, Fault, entries, is_null, line_of, plain

ANY = "google.protobuf.Any"
BY_JSON = frozenset(
    f"google.protobuf.{name}"
    for name in (
        *("Struct", "Value", "ListValue", "Timestamp", "Duration", "FieldMask", "StringValue", "BytesValue"),
        *("BoolValue", "Int32Value", "Int64Value", "UInt32Value", "UInt64Value", "FloatValue", "DoubleValue"),
    )
)
UNSIGNED = {FieldDescriptor.CPPTYPE_UINT32, FieldDescriptor.CPPTYPE_UINT64}
INTEGERS = {FieldDescriptor.CPPTYPE_INT32, FieldDescriptor.CPPTYPE_INT64, *UNSIGNED}
FLOATS = {FieldDescriptor.CPPTYPE_FLOAT, FieldDescriptor.CPPTYPE_DOUBLE}


class WrongValueError(Exception):
    """A value that its field cannot hold."""


class Filler:
    """Fills messages and collects faults."""

    def __init__(self) -> None:
        self.faults: list[Fault] = []

    def fill(self, message: Message, node: yaml.Node, path: str) -> None:
        """Set the fields of `message` from a mapping."""
        if is_null(node):
            return
        name = message.DESCRIPTOR.full_name
        if name in BY_JSON:
            self._attempt(node, path, lambda: _parse(message, plain(node)))
        elif not isinstance(node, yaml.MappingNode):
            self._fault(node, path, f"wants fields, not {_shape(node)}")
        elif name == ANY:
            self._any(message, node, path)
        else:
            self._fields(message, node, path)

    def _fields(self, message: Any, node: yaml.MappingNode, path: str) -> None:
        fields = {name: field for field in message.DESCRIPTOR.fields for name in (field.name, field.json_name)}
        seen: set[str] = set()
        for key, key_node, value in entries(node):
            below = f"{path}.{key}" if path else key
            field = fields.get(key)
            if field is None:
                self._fault(key_node, below, f"unknown field{_nearest(key, message.DESCRIPTOR)}")
            elif field.name in seen:
                self._fault(key_node, below, "is given twice")
            elif not is_null(value):
                seen.add(field.name)
                self._field(message, field, value, below)

    def _field(self, message: Any, field: FieldDescriptor, node: yaml.Node, path: str) -> None:
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            self._map(getattr(message, field.name), field.message_type.fields_by_name["value"], node, path)
        elif field.is_repeated:
            self._list(getattr(message, field.name), field, node, path)
        elif field.message_type is not None:
            below = getattr(message, field.name)
            below.SetInParent()
            self.fill(below, node, path)
        else:
            self._attempt(node, path, lambda: setattr(message, field.name, _scalar(field, node)))

    def _list(self, values: Any, field: FieldDescriptor, node: yaml.Node, path: str) -> None:
        if not isinstance(node, yaml.SequenceNode):
            self._fault(node, path, f"wants a list, not {_shape(node)}")
            return
        for index, item in enumerate(node.value):
            below = f"{path}[{index}]"
            if field.message_type is not None:
                self.fill(values.add(), item, below)
            else:
                self._attempt(item, below, lambda item=item: values.append(_scalar(field, item)))  # type: ignore[misc]

    def _map(self, values: Any, field: FieldDescriptor, node: yaml.Node, path: str) -> None:
        if not isinstance(node, yaml.MappingNode):
            self._fault(node, path, f"wants names with values, not {_shape(node)}")
            return
        seen: set[str] = set()
        for key, key_node, item in entries(node):
            below = f"{path}[{key}]"
            if key in seen:
                self._fault(key_node, below, "is given twice")
            elif field.message_type is not None:
                self._attempt(key_node, below, lambda key=key: values.get_or_create(key))  # type: ignore[misc]
                self.fill(values[key], item, below)
            else:
                self._attempt(item, below, lambda key=key, item=item: _put(values, key, _scalar(field, item)))  # type: ignore[misc]
            seen.add(key)

    def _any(self, message: Any, node: yaml.MappingNode, path: str) -> None:
        """`@type` names the message; the other keys are its fields."""
        from google.protobuf import descriptor_pool

        kept = [(key, value) for key, value in node.value if key.value != "@type"]
        url = next((str(value.value) for key, value in node.value if key.value == "@type"), "")
        if not url:
            self._fault(node, path, "wants '@type', for example type.googleapis.com/michelangelo.api.TypedStruct")
            return
        try:
            packed = _new(descriptor_pool.Default().FindMessageTypeByName(url.rsplit("/", 1)[-1]))
        except KeyError:
            self._fault(node, f"{path}.@type", f"unknown message {url[:100]!r}")
            return
        rest = yaml.MappingNode(node.tag, kept, node.start_mark, node.end_mark)
        if packed.DESCRIPTOR.full_name in BY_JSON:
            inner = next((value for key, value in kept if key.value == "value"), rest)
            self.fill(packed, inner, path)
        else:
            self.fill(packed, rest, path)
        message.Pack(packed, deterministic=True)

    def _attempt(self, node: yaml.Node, path: str, action: Callable[[], object]) -> None:
        try:
            action()
        except (WrongValueError, ValueError, TypeError, OverflowError, json_format.ParseError) as error:
            self._fault(node, path, str(error))

    def _fault(self, node: yaml.Node, path: str, message: str) -> None:
        self.faults.append(Fault(line_of(node), message, path))


def duplicates(node: yaml.Node) -> list[Fault]:
    """Return the keys that a mapping anywhere below gives twice."""
    found: list[Fault] = []
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, key_node, value in entries(node):
            if not isinstance(key_node, yaml.ScalarNode):
                found.append(Fault(line_of(key_node), "a key must be text"))
            elif key in seen:
                found.append(Fault(line_of(key_node), f"key {key[:64]!r} is given twice"))
            seen.add(key)
            found += duplicates(value)
    elif isinstance(node, yaml.SequenceNode):
        found += [fault for item in node.value for fault in duplicates(item)]
    return found


def _new(descriptor: Any) -> Any:
    return descriptor._concrete_class()


def _put(values: Any, key: str, value: object) -> None:
    values[key] = value


def _parse(message: Message, value: object) -> None:
    if "Timestamp" in message.DESCRIPTOR.name or "Duration" in message.DESCRIPTOR.name:
        value = str(value)
    try:
        json_format.Parse(json.dumps(value, allow_nan=False), message)
    except json_format.ParseError as error:
        raise WrongValueError(str(error).split(": ", 1)[-1]) from None


def _scalar(field: FieldDescriptor, node: yaml.Node) -> object:
    if not isinstance(node, yaml.ScalarNode):
        raise WrongValueError(f"wants {_wanted(field)}, not {_shape(node)}")
    text, bare = str(node.value), node.style is None
    if field.enum_type is not None:
        return enums.number(field.enum_type, text)
    if field.type == FieldDescriptor.TYPE_STRING:
        return text
    if field.type == FieldDescriptor.TYPE_BYTES:
        return _bytes(text)
    if field.cpp_type == FieldDescriptor.CPPTYPE_BOOL:
        if bare and (TRUE.fullmatch(text) or FALSE.fullmatch(text)):
            return text.lower() == "true"
    elif field.cpp_type in INTEGERS:
        if INTEGER.fullmatch(text) and not (field.cpp_type in UNSIGNED and text.startswith("-")):
            return int(text)
    elif field.cpp_type in FLOATS and FLOAT.fullmatch(text):
        return float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))
    raise WrongValueError(f"wants {_wanted(field)}, not {text[:64]!r}")


def _bytes(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error:
        raise WrongValueError("wants base64") from None


def _wanted(field: FieldDescriptor) -> str:
    if field.enum_type is not None:
        return "the name of a value"
    if field.cpp_type == FieldDescriptor.CPPTYPE_BOOL:
        return "true or false"
    if field.cpp_type in INTEGERS:
        return "a whole number" if field.cpp_type not in UNSIGNED else "a whole number from 0"
    return "a number" if field.cpp_type in FLOATS else "text"


def _shape(node: yaml.Node) -> str:
    if isinstance(node, yaml.MappingNode):
        return "fields"
    return "a list" if isinstance(node, yaml.SequenceNode) else repr(str(node.value)[:64])


def _nearest(key: str, descriptor: Descriptor) -> str:
    names = [field.json_name for field in descriptor.fields] + [field.name for field in descriptor.fields]
    near = difflib.get_close_matches(key, names, n=1, cutoff=0.6)
    return f": did you mean {near[0]}?" if near else ""
