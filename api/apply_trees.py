"""Objects as trees of the fields that can be declared one by one, and back.  Pure; knows no manager.

A step of a path is written as in Kubernetes' FieldsV1: `f:<field or key>`, `k:<keys of an item as JSON>`, `v:<value>`.
Maps and JSON objects are trees by key, lists whose items have a name are trees by it, other lists are one value.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

from api.external import ANNOTATION as EXTERNAL
from api.finalizers import ANNOTATION as SETTERS
from api.finalizers import is_platforms
from api.gen.k8s.io.apimachinery.pkg.apis.meta.v1 import generated_pb2 as meta
from api.kinds import IDENTIFIER
from api.masking import ANNOTATION as MASKED
from api.store.values import SPEC_UPDATED_LABEL, UPDATED_LABEL
from api.validation import is_map

Path = tuple[str, ...]

METADATA, SPEC = "f:metadata", "f:spec"
STRUCT = "google.protobuf.Struct"
OWNER = meta.OwnerReference.DESCRIPTOR.full_name
DECLARED_METADATA = ("labels", "annotations", "ownerReferences", "finalizers")
# What the server writes itself is nobody's to declare, nor are the platform's finalizers.
OWN_KEYS = {"labels": (UPDATED_LABEL, SPEC_UPDATED_LABEL), "annotations": (EXTERNAL, MASKED, SETTERS)}


@dataclass(frozen=True)
class Leaf:
    """One value that is declared as a whole."""

    value: Any


@dataclass(eq=False)
class Branch:
    """What is declared in parts.  `form`: message, map, struct, list (items by key, in their order) or set.

    rivals: of each step of a message, the other steps of its oneof.
    """

    form: str
    items: dict[str, Node] = field(default_factory=dict)
    descriptor: Descriptor | None = None

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Branch) or self.form != other.form or self.items != other.items:
            return False
        return self.form != "list" or list(self.items) == list(other.items)

    __hash__ = None  # type: ignore[assignment]

    def rivals(self, step: str) -> Sequence[str]:
        """Return the steps that cannot be set beside this one."""
        if self.form != "message" or self.descriptor is None:
            return ()
        oneof = self.descriptor.fields_by_camelcase_name[step[2:]].containing_oneof
        return [] if oneof is None else [step_of(one) for one in oneof.fields if step_of(one) != step]


Node = Leaf | Branch


def copied(node: Node) -> Node:
    """Return a tree whose branches can be changed; values are shared."""
    if isinstance(node, Leaf):
        return node
    return Branch(node.form, {step: copied(inner) for step, inner in node.items.items()}, node.descriptor)


def step_of(described: FieldDescriptor) -> str:
    """Return the step to a field of a message."""
    return f"f:{described.camelcase_name}"


def tree_of(resource: Any) -> Branch:
    """Return what of an object can be declared: labels, annotations, owners, finalizers and the spec."""
    described_metadata: Any = resource.metadata.DESCRIPTOR
    metadata = Branch("message", {}, described_metadata)
    for name in DECLARED_METADATA:
        described = resource.metadata.DESCRIPTOR.fields_by_name[name]
        node = _node(described, getattr(resource.metadata, name))
        if isinstance(node, Branch):
            for key in OWN_KEYS.get(name, ()):
                node.items.pop(f"f:{key}", None)
        if isinstance(node, Leaf) or node.items:
            metadata.items[step_of(described)] = node
    spec = _message(resource.spec)
    return Branch("message", {METADATA: metadata, SPEC: spec}, resource.DESCRIPTOR)


def _message(message: Message) -> Branch:
    items = {step_of(described): _node(described, value) for described, value in message.ListFields()}
    descriptor: Any = message.DESCRIPTOR
    return Branch("message", items, descriptor)


def _node(described: FieldDescriptor, value: Any) -> Node:
    if is_map(described):
        entry: Any = described.message_type
        return Branch("map", {f"f:{key}": _value(entry.fields_by_name["value"], value[key]) for key in sorted(value)})
    if described.is_repeated:
        return _list(described, value)
    return _value(described, value)


def _value(described: FieldDescriptor, value: Any) -> Node:
    of = described.message_type
    if of is None:
        return Leaf(value)
    if of.full_name == STRUCT:
        return _struct(value)
    if of.full_name.startswith("google.protobuf.") or of.full_name == meta.Time.DESCRIPTOR.full_name:
        return Leaf(copy.deepcopy(value))
    return _message(value)


def _struct(value: Any) -> Branch:
    items: dict[str, Node] = {}
    for key in sorted(value.fields):
        item = value.fields[key]
        nested = item.WhichOneof("kind") == "struct_value"
        items[f"f:{key}"] = _struct(item.struct_value) if nested else Leaf(copy.deepcopy(item))
    return Branch("struct", items)


def _list(described: FieldDescriptor, value: Any) -> Node:
    if described.full_name == f"{meta.ObjectMeta.DESCRIPTOR.full_name}.finalizers":
        return Branch("set", {f"v:{json.dumps(item)}": Leaf(item) for item in value if not is_platforms(item)})
    keys = keys_of(described)
    steps = [key_step(item, keys) for item in value] if keys else []
    if not keys or None in steps or len(set(steps)) < len(steps):
        return Leaf(copy.deepcopy(list(value)))
    return Branch("list", {str(step): _message(item) for step, item in zip(steps, value, strict=True)})


def keys_of(described: FieldDescriptor) -> tuple[str, ...]:
    """Return the fields by which the items of a list are told apart, none for a list that is one value."""
    of = described.message_type
    if of is None:
        return ()
    if of.full_name == OWNER:
        return ("uid",)
    if of.full_name == IDENTIFIER:
        return ("namespace", "name")
    name = of.fields_by_name.get("name")
    is_text = name is not None and name.type == FieldDescriptor.TYPE_STRING and not name.is_repeated
    return ("name",) if is_text else ()


def key_step(item: Any, keys: tuple[str, ...]) -> str | None:
    """Return the step to an item of a list, None for one without a key."""
    found = {key: getattr(item, key) for key in keys}
    return f"k:{json.dumps(found, sort_keys=True, separators=(',', ':'))}" if found[keys[-1]] else None


def write(tree: Branch, resource: Any) -> None:
    """Make an object, in place, what a tree says; what no tree can say of it stays."""
    wanted = tree.items[METADATA]
    assert isinstance(wanted, Branch), "metadata are a message"
    platforms = [name for name in resource.metadata.finalizers if is_platforms(name)]
    kept = {name: {key: getattr(resource.metadata, name).get(key) for key in keys} for name, keys in OWN_KEYS.items()}
    for name in DECLARED_METADATA:
        described = resource.metadata.DESCRIPTOR.fields_by_name[name]
        _set(resource.metadata, described, wanted.items.get(step_of(described)))
    resource.metadata.finalizers.extend(platforms)
    for name, values in kept.items():
        getattr(resource.metadata, name).update({key: value for key, value in values.items() if value is not None})
    spec = tree.items[SPEC]
    assert isinstance(spec, Branch), "the spec is a message"
    _write_message(resource.spec, spec)


def _write_message(message: Any, tree: Branch) -> None:
    message.SetInParent()
    for described in _cleared_first(message.DESCRIPTOR, tree):
        _set(message, described, tree.items.get(step_of(described)))


def _cleared_first(descriptor: Descriptor, tree: Branch) -> Iterator[FieldDescriptor]:
    yield from sorted(descriptor.fields, key=lambda described: step_of(described) in tree.items)


def _set(message: Any, described: FieldDescriptor, node: Node | None) -> None:
    name = described.name
    if node is None:
        message.ClearField(name)
    elif isinstance(node, Leaf) and described.is_repeated:
        message.ClearField(name)
        getattr(message, name).extend(node.value)
    elif isinstance(node, Leaf) and described.message_type is not None:
        getattr(message, name).CopyFrom(node.value)
    elif isinstance(node, Leaf):
        setattr(message, name, node.value)
    elif node.form == "map":
        _write_map(getattr(message, name), described, node)
    elif node.form == "struct":
        _write_struct(getattr(message, name), node)
    elif node.form == "list":
        _write_list(getattr(message, name), keys_of(described), node)
    elif node.form == "set":
        message.ClearField(name)
        getattr(message, name).extend(item.value for item in node.items.values() if isinstance(item, Leaf))
    else:
        _write_message(getattr(message, name), node)


def _write_map(target: Any, described: FieldDescriptor, tree: Branch) -> None:
    entry: Any = described.message_type
    for key in [key for key in target if f"f:{key}" not in tree.items]:
        del target[key]
    for step, node in tree.items.items():
        key = step[2:]
        if isinstance(node, Branch) and node.form == "struct":
            _write_struct(target[key], node)
        elif isinstance(node, Branch):
            _write_message(target[key], node)
        elif entry.fields_by_name["value"].message_type is not None:
            target[key].CopyFrom(node.value)
        else:
            target[key] = node.value


def _write_struct(target: Any, tree: Branch) -> None:
    target.SetInParent()
    for key in [key for key in target.fields if f"f:{key}" not in tree.items]:
        del target.fields[key]
    for step, node in tree.items.items():
        value = target.fields[step[2:]]
        if isinstance(node, Branch):
            _write_struct(value.struct_value, node)
        else:
            value.CopyFrom(node.value)


def _write_list(target: Any, keys: tuple[str, ...], tree: Branch) -> None:
    old = {key_step(item, keys): copy.deepcopy(item) for item in target}
    del target[:]
    for step, node in tree.items.items():
        item = target.add()
        if step in old:
            item.CopyFrom(old[step])
        if isinstance(node, Branch):
            _write_message(item, node)
