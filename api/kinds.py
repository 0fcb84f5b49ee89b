"""The registry of kinds, read from the descriptors' options: a kind is data.  Knows no store and no behaviour.

Everything generic (servicer, store indexes, admission, CLI) reads a `Kind`; a new kind is a `.proto` file.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol, cast

from google.protobuf.descriptor import Descriptor, FieldDescriptor, MethodDescriptor, ServiceDescriptor
from google.protobuf.message import Message

from api.gen.k8s.io.apimachinery.pkg.apis.meta.v1 import generated_pb2 as meta
from api.gen.michelangelo.api import options_pb2 as options

# Where kinds are declared: the wire contract first, then what it lacks.
PACKAGES = ("michelangelo.api.v2", "michelangelo.platform.v1")
IDENTIFIER = options.ResourceIdentifier.DESCRIPTOR.full_name


class Resource(Protocol):
    """A message of a kind.  `spec` and `status` are messages of that kind's own types."""

    type_meta: meta.TypeMeta
    metadata: meta.ObjectMeta
    spec: Any
    status: Any

    @property
    def DESCRIPTOR(self) -> Descriptor: ...  # noqa: N802
    def SerializeToString(self, deterministic: bool = ...) -> bytes: ...  # noqa: N802
    def ByteSize(self) -> int: ...  # noqa: N802
    def CopyFrom(self, other: Any) -> None: ...  # noqa: N802
    def HasField(self, field_name: Any) -> bool: ...  # noqa: N802
    def ClearField(self, field_name: Any) -> None: ...  # noqa: N802


@dataclass(frozen=True)
class Index:
    """A field that lists can filter and sort by.  `path`: dotted fields from the object; `key`: its short name."""

    key: str
    path: str
    field: FieldDescriptor

    @property
    def is_identifier(self) -> bool:
        """Whether it holds a ResourceIdentifier: two columns, `<key>.namespace` and `<key>.name`."""
        return self.field.message_type is not None and self.field.message_type.full_name == IDENTIFIER


@dataclass(frozen=True)
class Kind:
    """What a resource is.  `plural` as in `pipeline_runs`; `service` as in `michelangelo.api.v2.PipelineRunService`.

    group_version: as in `michelangelo.api/v2`, the `apiVersion` of its objects; external, sensitive: the paths of
    fields with that option, such as `spec.manifest.content`.
    """

    name: str
    group_version: str
    singular: str
    plural: str
    message: type[Any]
    list_message: type[Any]
    service: ServiceDescriptor
    immutable: bool
    indexes: tuple[Index, ...]
    external: tuple[str, ...] = ()
    sensitive: tuple[str, ...] = ()

    def new(self, namespace: str = "", name: str = "") -> Any:
        """Return an empty object with type and name filled in."""
        resource = self.message()
        stamp(resource)
        if namespace:
            resource.metadata.namespace = namespace
        if name:
            resource.metadata.name = name
        return resource

    def method(self, verb: str) -> MethodDescriptor:
        """Return the descriptor of one of the six RPCs: Create, Get, Update, Delete, DeleteCollection, List."""
        name = f"Delete{self.name}Collection" if verb == "DeleteCollection" else f"{verb}{self.name}"
        return self.service.methods_by_name[name]

    def index(self, field: str) -> Index | None:
        """Find an index by key or by path, with or without the part of an identifier."""
        for index in self.indexes:
            parts = ("", ".name", ".namespace") if index.is_identifier else ("",)
            if any(field in (index.key + part, index.path + part) for part in parts):
                return index
        return None


def stamp(resource: Resource) -> None:
    """Fill in `type_meta` from the message's own type."""
    resource.type_meta.kind = resource.DESCRIPTOR.name
    resource.type_meta.apiVersion = group_version(resource.DESCRIPTOR)


def group_version(descriptor: Descriptor | ServiceDescriptor) -> str:
    """Return the group and version of a package: `michelangelo.api.v2` -> `michelangelo.api/v2`."""
    return "/".join(descriptor.file.package.rsplit(".", 1))


def snake(name: str) -> str:
    """`PipelineRun` -> `pipeline_run`."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()


def pluralize(name: str) -> str:
    """English plural as Kubernetes writes it: `model_family` -> `model_families`."""
    return name[:-1] + "ies" if name.endswith("y") else name + "s"


def field_at(descriptor: Descriptor, path: str) -> FieldDescriptor:
    """Return the field at a dotted path below a message.  Raises KeyError."""
    field: FieldDescriptor | None = None
    here: Descriptor | None = descriptor
    for part in path.split("."):
        if here is None:
            raise KeyError(path)
        field = here.fields_by_name[part]
        here = field.message_type
    assert field is not None
    return field


def value_at(message: Message, path: str) -> Any:
    """Return the value at a dotted path; None where a message on the way, or the last one, is absent."""
    value: Any = message
    for part in path.split("."):
        field = value.DESCRIPTOR.fields_by_name[part]
        if field.has_presence and not value.HasField(part):
            return None
        value = getattr(value, part)
    return value


def _modules() -> Iterator[Any]:
    generated = Path(__file__).resolve().parent / "gen"
    for package in PACKAGES:
        for path in sorted(generated.joinpath(*package.split(".")).glob("*_svc_pb2.py")):
            yield importlib.import_module(f"api.gen.{package}.{path.stem}")


def _kind(service: ServiceDescriptor) -> Kind:
    name = service.name.removesuffix("Service")
    resource: Any = next(
        field.message_type
        for field in service.methods_by_name[f"Create{name}"].input_type.fields
        if field.message_type is not None and field.message_type.name == name
    )
    listing: Any = service.methods_by_name[f"List{name}"].output_type.fields[0].message_type
    own: Any = resource.GetOptions()
    declared = own.Extensions[options.resource]
    singular = declared.singular or snake(name)
    return Kind(
        name=name,
        group_version=group_version(service),
        singular=singular,
        plural=declared.name or pluralize(singular),
        message=resource._concrete_class,
        list_message=listing._concrete_class,
        service=service,
        immutable=declared.immutable,
        indexes=tuple(
            Index(key=index.key, path=index.path, field=field_at(resource, index.path))
            for index in own.Extensions[options.index]
        ),
        external=tuple(marked(resource, options.external_storage)),
        sensitive=tuple(marked(resource, options.sensitive)),
    )


def marked(message: Descriptor, option: Any, path: str = "", above: frozenset[str] = frozenset()) -> Iterator[str]:
    """Yield the paths of the fields that carry an option of true.

    What has it somewhere inside a list or a map, or below a message of its own type, is given as that whole field.
    """
    above |= {message.full_name}
    for field in message.fields:
        here = f"{path}.{field.name}" if path else field.name
        if _has(field, option):
            yield here
        elif field.message_type is not None:
            if not field.is_repeated and field.message_type.full_name not in above:
                yield from marked(field.message_type, option, here, above)
            elif _holds(field.message_type, option, set()):
                yield here


def _has(field: FieldDescriptor, option: Any) -> bool:
    return bool(cast("Any", field.GetOptions()).Extensions[option])


def _holds(message: Descriptor, option: Any, seen: set[str]) -> bool:
    """Whether a field with the option stands anywhere below."""
    if message.full_name in seen:
        return False
    seen.add(message.full_name)
    return any(
        _has(field, option) or (field.message_type is not None and _holds(field.message_type, option, seen))
        for field in message.fields
    )


@cache
def kinds() -> Mapping[str, Kind]:
    """Return every kind by its name (`PipelineRun`), in alphabetical order."""
    found = {}
    for module in _modules():
        for service in module.DESCRIPTOR.services_by_name.values():
            # A service without this method serves no kind of its own.
            if f"Create{service.name.removesuffix('Service')}" in service.methods_by_name:
                kind = _kind(service)
                found[kind.name] = kind
    return MappingProxyType(dict(sorted(found.items())))


def kind_of(resource: Resource) -> Kind:
    """Return the kind of a message."""
    return kinds()[resource.DESCRIPTOR.name]


def reference_kind(field: FieldDescriptor) -> str:
    """Return the kind that a field refers to (`Pipeline`), empty if it is no reference."""
    declared = cast("Any", field.GetOptions()).Extensions[options.resource_reference].type
    return cast("str", declared).rsplit("/", 1)[-1]
