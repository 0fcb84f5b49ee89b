"""YAML nodes as a tree of values: scalars stay text until a field's type is known."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import yaml
from google.protobuf.descriptor import FieldDescriptor

from api.messages import enums, yaml_text
from api.messages.fill import Fault
from api.messages.values import FLOATS, INTEGERS, UNSIGNED, WrongValueError, decoded, wanted
from api.messages.yaml_text import FALSE, FLOAT, INTEGER, LONGEST_INTEGER, TRUE, entries, line_of

SHOWN = 64


class YamlTree:
    """Reads nodes."""

    def absent(self, value: Any) -> bool:
        """Whether a node is a plain null or nothing at all."""
        return yaml_text.is_null(value)

    def fields(self, value: Any) -> Iterable[tuple[str, Any, Any]] | None:
        """Return key, key node and node of each entry; None if it is no mapping."""
        return entries(value) if isinstance(value, yaml.MappingNode) else None

    def items(self, value: Any) -> Sequence[Any] | None:
        """Return the items of a list, None if it is none."""
        return value.value if isinstance(value, yaml.SequenceNode) else None

    def plain(self, value: Any) -> object:
        """Return a node as JSON-like data by YAML 1.2's core schema."""
        return yaml_text.plain(value)

    def line(self, value: Any) -> int:
        """Return the line on which a node begins."""
        return line_of(value)

    def shape(self, value: Any) -> str:
        """Return what a node is, in words."""
        if isinstance(value, yaml.MappingNode):
            return "fields"
        return "a list" if isinstance(value, yaml.SequenceNode) else repr(str(value.value)[:SHOWN])

    def scalar(self, field: FieldDescriptor, value: Any) -> object:
        """Return what a scalar field holds.  Raises WrongValueError, ValueError."""
        if not isinstance(value, yaml.ScalarNode):
            raise WrongValueError(f"wants {wanted(field)}, not {self.shape(value)}")
        text, bare = str(value.value), value.style is None
        if field.enum_type is not None:
            return enums.number(field.enum_type, text)
        if field.type == FieldDescriptor.TYPE_STRING:
            return text
        if field.type == FieldDescriptor.TYPE_BYTES:
            return decoded(text)
        if field.cpp_type == FieldDescriptor.CPPTYPE_BOOL:
            if bare and (TRUE.fullmatch(text) or FALSE.fullmatch(text)):
                return text.lower() == "true"
        elif field.cpp_type in INTEGERS:
            negative = field.cpp_type in UNSIGNED and text.startswith("-")
            if len(text) <= LONGEST_INTEGER and INTEGER.fullmatch(text) and not negative:
                return int(text)
        elif field.cpp_type in FLOATS and FLOAT.fullmatch(text):
            return float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))
        raise WrongValueError(f"wants {wanted(field)}, not {text[:SHOWN]!r}")


def duplicates(node: yaml.Node) -> list[Fault]:
    """Return the keys that a mapping anywhere below gives twice."""
    found: list[Fault] = []
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, key_node, value in entries(node):
            if not isinstance(key_node, yaml.ScalarNode):
                found.append(Fault(line_of(key_node), "a key must be text"))
            elif key in seen:
                found.append(Fault(line_of(key_node), f"key {key[:SHOWN]!r} is given twice", reason="DUPLICATE_KEY"))
            seen.add(key)
            found += duplicates(value)
    elif isinstance(node, yaml.SequenceNode):
        found += [fault for item in node.value for fault in duplicates(item)]
    return found
