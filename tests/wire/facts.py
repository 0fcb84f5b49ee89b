"""The facts of the wire contract: as `contract.tsv` lists them and as descriptors declare them.  Compares nothing.

A fact is a tuple: its subject (`message`, full name), then what is said of it (`1`, `type`, `string`).  In the file
a line that begins with a tab says something of the last line that does not: of a message its fields (number, name,
type, oneof, options) and the oneofs with options, of an enum its values, of a service its methods (name, request,
response, streaming).
"""

import importlib
import json
import pkgutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from google.protobuf import descriptor_pb2 as d
from google.protobuf import json_format
from google.protobuf.message import Message

import api.gen

Fact = tuple[str, ...]
Facts = dict[str, set[Fact]]

CONTRACT = Path(__file__).with_name("contract.tsv")
PACKAGES = ("michelangelo.api", "michelangelo.api.v2", "k8s.io.api.core.v1", "k8s.io.apimachinery.pkg.apis.meta.v1")
STREAMING = {(False, False): "unary", (True, False): "client", (False, True): "server", (True, True): "both"}


def contract_lines() -> list[str]:
    """Return the lines of the contract that are no comments."""
    return [line for line in CONTRACT.read_text().splitlines() if line and not line.startswith("#")]


def listed(lines: Iterable[str]) -> Facts:
    """Return what lines of a contract say, by the path of the proto file.  Raises ValueError on a fact said twice."""
    facts: Facts = {}
    path, subject = "", ("", "")
    for line in lines:
        columns = line.split("\t")
        if columns[0]:
            subject = (columns[0], columns[1])
        path = columns[1] if columns[0] == "file" else path
        said = tuple(columns) if columns[0] else (*subject, *columns[1:])
        if said in facts.setdefault(path, set()):
            raise ValueError(f"{path} says twice: {' '.join(said)}")
        facts[path].add(said)
    return facts


def generated() -> dict[str, d.FileDescriptorProto]:
    """Return the descriptors below `api.gen` that the contract speaks of, by path: copies, free to be changed."""
    found: dict[str, d.FileDescriptorProto] = {}
    for module in pkgutil.walk_packages(api.gen.__path__, "api.gen."):
        descriptor = getattr(importlib.import_module(module.name), "DESCRIPTOR", None)
        if descriptor and descriptor.package in PACKAGES:
            descriptor.CopyToProto(found.setdefault(descriptor.name, d.FileDescriptorProto()))
    return found


def declared(file: d.FileDescriptorProto) -> set[Fact]:
    """Return what a descriptor says, in the words of the contract."""
    facts = {fact("file", file.name, file.package, file.syntax or "proto2", options(file))}
    for message in file.message_type:
        facts |= set(of_message(message, file.package))
    for enum in file.enum_type:
        facts |= set(of_enum(enum, file.package))
    for service in file.service:
        facts |= set(of_service(service, file.package))
    return facts | {
        fact("extension", f"{file.package}.{field.name}", field.extendee[1:], str(field.number), type_of(field, {}))
        for field in file.extension
    }


def of_message(message: d.DescriptorProto, scope: str) -> Iterator[Fact]:
    name = f"{scope}.{message.name}"
    maps = {f"{name}.{nested.name}": nested for nested in message.nested_type if nested.options.map_entry}
    yield fact("message", name, options(message))
    for field in message.field:
        oneof = message.oneof_decl[field.oneof_index].name if field.HasField("oneof_index") else ""
        yield fact("message", name, str(field.number), field.name, type_of(field, maps), oneof, options(field))
    for declaration in message.oneof_decl:
        if options(declaration):
            yield fact("message", name, "oneof", declaration.name, options(declaration))
    for nested in message.nested_type:
        if not nested.options.map_entry:
            yield from of_message(nested, name)
    for enum in message.enum_type:
        yield from of_enum(enum, name)


def of_enum(enum: d.EnumDescriptorProto, scope: str) -> Iterator[Fact]:
    name = f"{scope}.{enum.name}"
    yield fact("enum", name, options(enum))
    for value in enum.value:
        yield fact("enum", name, str(value.number), value.name)


def of_service(service: d.ServiceDescriptorProto, scope: str) -> Iterator[Fact]:
    name = f"{scope}.{service.name}"
    yield fact("service", name)
    for method in service.method:
        streaming = STREAMING[method.client_streaming, method.server_streaming]
        yield fact("service", name, method.name, method.input_type[1:], method.output_type[1:], streaming)


def type_of(field: d.FieldDescriptorProto, maps: Mapping[str, d.DescriptorProto]) -> str:
    """Return a field's type with its label, for example `repeated string` or `map<string,string>`."""
    name = field.type_name[1:]
    if name in maps:
        key, value = maps[name].field
        return f"map<{type_of(key, {})},{type_of(value, {})}>"
    scalar = d.FieldDescriptorProto.Type.Name(field.type).removeprefix("TYPE_").lower()
    kind = f"enum {name}" if scalar == "enum" else name or scalar
    return f"repeated {kind}" if field.label == d.FieldDescriptorProto.LABEL_REPEATED else kind


def options(declaration: Message) -> str:
    """Return the options that Michelangelo defines, as JSON with sorted keys; empty if there are none."""
    named = json_format.MessageToDict(getattr(declaration, "options"), preserving_proto_field_name=True)  # noqa: B009
    custom = {name[1:-1]: value for name, value in named.items() if name.startswith("[michelangelo.")}
    return json.dumps(custom, sort_keys=True, separators=(",", ":")) if custom else ""


def fact(*columns: str) -> Fact:
    """Return a fact without the empty columns at its end."""
    while not columns[-1]:
        columns = columns[:-1]
    return columns
