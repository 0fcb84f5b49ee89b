"""JSON Schemas of messages, made from their descriptors: what the reader takes and what the writer gives.

Two dialects: `WHOLE` says everything (OpenAPI 3.1); `PLAIN` is what kubectl's 3.0 reader knows, without null.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor

from api.gen.comments import COMMENTS
from api.gen.michelangelo.api import options_pb2 as options
from api.kinds import Kind
from api.messages import enums, well_known
from api.messages.fill import ANY
from api.messages.plain import KUBERNETES
from api.messages.values import FLOATS, INTEGERS
from api.validation import is_map

Schema = dict[str, Any]
WHOLE_NUMBER = r"^-?(0|[1-9][0-9]{0,19})$"
DURATION = r"^-?[0-9]{1,12}(\.[0-9]{1,9})?s$"
WRAPPED = {
    "StringValue": {"type": "string"},
    "BoolValue": {"type": "boolean"},
    "BytesValue": {"type": "string", "format": "byte"},
    "FloatValue": {"type": "number"},
    "DoubleValue": {"type": "number"},
}
TIMES = {well_known.TIMESTAMP, well_known.TIME}
WIDE = {FieldDescriptor.CPPTYPE_INT64, FieldDescriptor.CPPTYPE_UINT64}
RANGES = {
    FieldDescriptor.CPPTYPE_INT32: (-(2**31), 2**31 - 1),
    FieldDescriptor.CPPTYPE_UINT32: (0, 2**32 - 1),
    FieldDescriptor.CPPTYPE_INT64: (-(2**53), 2**53),
    FieldDescriptor.CPPTYPE_UINT64: (0, 2**53),
}
# Patterns of the contract are RE2's; what JSON Schema's readers may take otherwise is left out.
PORTABLE = re.compile(r"[\w\s^$.*+?()\[\]{}|/:,@=<>!&%#~;'\"\\-]*\Z")


@dataclass
class Schemas:
    """Collects the schemas of messages and all that they hold.  `nullable`: the dialect that knows null."""

    nullable: bool = True
    found: dict[str, Schema] = field(default_factory=dict)

    def kind(self, kind: Kind) -> Schema:
        """Add a kind and return a reference to it."""
        name = kind.message.DESCRIPTOR.full_name
        if name not in self.found:
            group, version = kind.group_version.split("/")
            self.found[name] = {}
            parts = {part: self._part(kind, part) for part in ("metadata", "spec", "status")}
            self.found[name] = {
                "type": "object",
                **({"description": f"A {kind.name}."} | _told(name)),
                "properties": {
                    "apiVersion": {"type": "string", "enum": [kind.group_version], "description": "Always this."},
                    "kind": {"type": "string", "enum": [kind.name], "description": "Always this."},
                    **parts,
                },
                "required": ["metadata"],
                "additionalProperties": False,
                "x-kubernetes-group-version-kind": [{"group": group, "version": version, "kind": kind.name}],
            }
            if not self.nullable:
                # kubectl prints what it finds, and reads no enum of one.
                for key in ("apiVersion", "kind"):
                    self.found[name]["properties"][key].pop("enum")
        return reference(name)

    def listing(self, kind: Kind) -> Schema:
        """Add the list of a kind and return a reference to it."""
        name = kind.list_message.DESCRIPTOR.full_name
        if name not in self.found:
            self.found[name] = {
                "type": "object",
                "description": f"A page of {kind.name} objects.",
                "properties": {
                    "apiVersion": {"type": "string"},
                    "kind": {"type": "string"},
                    "metadata": self.message(kind.list_message.DESCRIPTOR.fields_by_name["metadata"].message_type),
                    "items": {"type": "array", "items": self.kind(kind)},
                },
                "required": ["apiVersion", "kind", "metadata", "items"],
            }
        return reference(name)

    def _part(self, kind: Kind, part: str) -> Schema:
        described = kind.message.DESCRIPTOR.fields_by_name[part]
        schema = self.message(described.message_type)
        if part != "metadata" or not self.nullable:
            schema = self._or_null(schema)
        return schema | _told(described.full_name)

    def message(self, descriptor: Descriptor) -> Schema:
        """Return the schema of a message: its own form, or a reference to it among those that were found."""
        name = descriptor.full_name
        own = self._well_known(name)
        if own is not None:
            return own
        if name not in self.found:
            self.found[name] = {}
            properties = {each.json_name: self._property(each) | _told(each.full_name) for each in descriptor.fields}
            made = {"type": "object", "properties": properties, "additionalProperties": False}
            self.found[name] = made | _told(name)
            required = [each.json_name for each in descriptor.fields if _required(each)]
            if required:
                self.found[name]["required"] = required
        return reference(name)

    def _well_known(self, name: str) -> Schema | None:
        if name == ANY:
            properties = {"@type": {"type": "string", "description": "URL of the message's type."}}
            return {"type": "object", "properties": properties, "required": ["@type"], "additionalProperties": True}
        if name not in well_known.FORMS:
            return None
        if name in TIMES:
            return {"type": "string", "format": "date-time"}
        if name == well_known.DURATION:
            return {"type": "string", "pattern": DURATION}
        if name in (well_known.STRUCT, well_known.FIELDS):
            return {"type": "object", "additionalProperties": True}
        if name == well_known.LIST:
            return {"type": "array", "items": {}}
        short = name.rsplit(".", 1)[-1]
        if short in WRAPPED:
            return dict(WRAPPED[short])
        return {"type": "string"} if short == "FieldMask" else {} if short == "Value" else self._integer(True, (0, 0))

    def _property(self, described: FieldDescriptor) -> Schema:
        if is_map(described):
            entry: Any = described.message_type
            return self._or_null({"type": "object", "additionalProperties": self._one(entry.fields_by_name["value"])})
        if described.is_repeated:
            return self._or_null({"type": "array", "items": self._one(described)} | _counts(described))
        return self._or_null(self._one(described))

    def _one(self, described: FieldDescriptor) -> Schema:
        if described.message_type is not None:
            return self.message(described.message_type)
        if described.enum_type is not None:
            return self._enum(described.enum_type)
        if described.type == FieldDescriptor.TYPE_STRING:
            return {"type": "string"} | _text(described)
        if described.type == FieldDescriptor.TYPE_BYTES:
            return {"type": "string", "format": "byte"}
        if described.cpp_type == FieldDescriptor.CPPTYPE_BOOL:
            return {"type": "boolean"}
        if described.cpp_type in INTEGERS:
            owner: Any = described.containing_type
            wide = described.cpp_type in WIDE and (self.nullable or not str(owner.full_name).startswith(KUBERNETES))
            return self._integer(wide, RANGES[described.cpp_type])
        assert described.cpp_type in FLOATS
        return {"anyOf": [{"type": "number"}, {"type": "string"}]} if self.nullable else {"type": "number"}

    def _integer(self, wide: bool, limits: tuple[int, int]) -> Schema:
        least, most = limits
        form = "int64" if wide else "int32"
        number = {"type": "integer", "format": form, "minimum": least, "maximum": most}
        if not self.nullable:
            return {"type": "string" if wide else "integer", "format": form}
        text = {"type": "string", "pattern": WHOLE_NUMBER if least else WHOLE_NUMBER.replace("-?", "")}
        return {"anyOf": [number, text] if not wide else [text, number]}

    def _enum(self, described: Any) -> Schema:
        names = [value.name for value in described.values]
        if not self.nullable:
            return {"type": "string", "enum": names}
        short = [name.removeprefix(enums.prefix(described)) for name in names]
        spelled = {"type": "string", "enum": list(dict.fromkeys([*names, *short]))}
        return {"anyOf": [spelled, {"type": "integer", "format": "int32", "minimum": -(2**31), "maximum": 2**31 - 1}]}

    def _or_null(self, schema: Schema) -> Schema:
        """Return a schema that takes null too, which the reader takes for nothing."""
        if not self.nullable:
            return {"allOf": [schema]} if "$ref" in schema else schema
        if not schema:
            return schema
        if isinstance(schema.get("type"), str) and "enum" not in schema:
            return schema | {"type": [schema["type"], "null"]}
        if "anyOf" in schema:
            return {"anyOf": [*schema["anyOf"], {"type": "null"}]}
        return {"anyOf": [schema, {"type": "null"}]}


def _told(name: str) -> Schema:
    """Return what stands above a message or a field in its `.proto` file."""
    return {"description": COMMENTS[name]} if name in COMMENTS else {}


def reference(name: str) -> Schema:
    """Return a reference to a schema."""
    return {"$ref": f"#/components/schemas/{name}"}


def _rules(described: FieldDescriptor) -> Iterator[Any]:
    own: Any = described.GetOptions()
    yield from own.Extensions[options.validation]


def _required(described: FieldDescriptor) -> bool:
    return any(rule.required for rule in _rules(described))


def _counts(described: FieldDescriptor) -> Schema:
    found: Schema = {}
    for rule in _rules(described):
        if rule.max_items:
            found["maxItems"] = int(rule.max_items)
        if rule.unique_items:
            found["uniqueItems"] = True
    return found


def _text(described: FieldDescriptor) -> Schema:
    """Return the rules of a text that an empty one keeps too: an empty text is no text."""
    found: Schema = {}
    for rule in _rules(described):
        if rule.max_length:
            found["maxLength"] = int(rule.max_length)
        if rule.pattern and PORTABLE.match(rule.pattern):
            found["pattern"] = f"^(?:{rule.pattern})?$"
    return found
