"""Who declared which fields of an object: sets of paths, kept in metadata.managedFields.  Pure; merges nothing.

Source of the form: Kubernetes' FieldsV1 and the rules of its server-side apply.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor

from api.apply_trees import METADATA, Branch, Leaf, Node, Path, tree_of
from api.validation import is_map, shown

APPLY, UPDATE = "Apply", "Update"
FIELDS_TYPE = "FieldsV1"
# What an object had before anybody declared fields of it, and what is too long ago to be told apart.
BEFORE, EARLIER = "before-first-apply", "earlier-updates"
MOST_UPDATERS = 10
# Keys of labels and annotations that the platform notes: no wish of anybody.
OWN_NOTES = ("michelangelo/", "michelangelo.airflow/")


@dataclass(frozen=True)
class Owner:
    """A manager and the paths that it declared (Apply) or changed (Update).  `time_ns`: since 1970."""

    manager: str
    operation: str
    paths: frozenset[Path]
    time_ns: int = 0

    def without(self, paths: Iterable[Path]) -> Owner:
        """Return the owner with less."""
        return replace(self, paths=self.paths - frozenset(paths))


def owners_of(resource: Any) -> list[Owner]:
    """Return who declared what of an object."""
    return [
        Owner(
            entry.manager,
            entry.operation,
            frozenset(_read(json.loads(entry.fieldsV1.Raw or b"{}"), ())),
            entry.time.ToNanoseconds(),
        )
        for entry in resource.metadata.managedFields
    ]


def write_owners(resource: Any, owners: Sequence[Owner]) -> None:
    """Note in an object, in place, who declared what; owners of nothing are left out."""
    del resource.metadata.managedFields[:]
    for owner in sorted(owners, key=lambda owner: (owner.operation, owner.manager)):
        if owner.paths:
            entry = resource.metadata.managedFields.add(
                manager=owner.manager,
                operation=owner.operation,
                apiVersion=resource.type_meta.apiVersion,
                fieldsType=FIELDS_TYPE,
            )
            entry.time.FromNanoseconds(owner.time_ns)
            entry.fieldsV1.Raw = json.dumps(_nested(owner.paths), sort_keys=True, separators=(",", ":")).encode()


def base_of(resource: Any | None) -> str:
    """Return what stands for an object as it is wanted: it changes with its spec and managers, not with its status."""
    if resource is None:
        return ""
    held = sorted(
        (owner.manager, owner.operation, path) for owner in owners_of(resource) for path in owner.paths if _wish(path)
    )
    managers = hashlib.sha256(json.dumps(held).encode()).hexdigest()[:16] if held else "-"
    return f"{resource.metadata.uid}/{resource.metadata.generation}/{managers}"


def _wish(path: Path) -> bool:
    return path[0] != METADATA or not path[-1].removeprefix("f:").startswith(OWN_NOTES)


def _nested(paths: Iterable[Path]) -> dict[str, Any]:
    root: dict[str, Any] = {}
    for path in paths:
        here = root
        for step in path:
            here = here.setdefault(step, {})
        here["."] = {}
    return _tidied(root)


def _tidied(node: dict[str, Any]) -> dict[str, Any]:
    """Leave out the mark of a path that ends where it ends anyway."""
    if set(node) == {"."}:
        return {}
    return {step: inner if step == "." else _tidied(inner) for step, inner in node.items()}


def _read(node: Mapping[str, Any], path: Path) -> Iterator[Path]:
    if not node and path:
        yield path
    for step, inner in node.items():
        if step == ".":
            yield path
        else:
            yield from _read(inner, (*path, step))


def leaves(node: Node, path: Path = ()) -> Iterator[Path]:
    """Yield what a tree declares: its values, items of lists as such, and what is there but empty."""
    if isinstance(node, Leaf):
        yield path
        return
    if (path and path[-1].startswith("k:")) or (len(path) > 1 and not node.items):
        yield path
    for step, inner in node.items.items():
        yield from leaves(inner, (*path, step))


def at(node: Node | None, path: Path) -> Node | None:
    """Return what stands at a path, None if nothing does."""
    for step in path:
        node = node.items.get(step) if isinstance(node, Branch) else None
    return node


def changes(one: Node, other: Node, path: Path) -> bool:
    """Whether what one tree has at a path is not so in the other.  Of a part with parts only its being there counts."""
    was, now = at(one, path), at(other, path)
    if isinstance(was, Branch):
        return not isinstance(now, Branch)
    return was is not None and was != now


def after_update(old: Any, new: Any, manager: str, now_ns: int) -> None:
    """Note in `new`, in place, what a write that declares nothing changed: its fields are the writer's from now on.

    An object of which nobody ever declared a field has no owners, and gets none.
    """
    del new.metadata.managedFields[:]
    new.metadata.managedFields.extend(old.metadata.managedFields)
    if not old.metadata.managedFields:
        return
    before, after = tree_of(old), tree_of(new)
    if before == after:
        return
    claimed = {path for path in leaves(after) if changes(after, before, path)}
    found = [owner.without(path for path in owner.paths if changes(before, after, path)) for owner in owners_of(old)]
    mine = [owner for owner in found if (owner.manager, owner.operation) == (manager, UPDATE)]
    others = [owner for owner in found if owner not in mine]
    held = frozenset(claimed).union(*(owner.paths for owner in mine))
    write_owners(new, _bounded([*others, Owner(manager, UPDATE, held, now_ns)]))


def _bounded(owners: Sequence[Owner]) -> list[Owner]:
    updaters = sorted((owner for owner in owners if owner.operation == UPDATE), key=lambda owner: owner.time_ns)
    if len(updaters) <= MOST_UPDATERS:
        return list(owners)
    old = updaters[: len(updaters) - MOST_UPDATERS + 1]
    paths = frozenset[Path]().union(*(owner.paths for owner in old))
    return [owner for owner in owners if owner not in old] + [Owner(EARLIER, UPDATE, paths, old[-1].time_ns)]


def text(descriptor: Descriptor, path: Path) -> str:
    """Return a path as refusals write it: `spec.owner.name`, `metadata.labels[team]`."""
    here: Descriptor | None = descriptor
    described: FieldDescriptor | None = None
    told = ""
    for step in path:
        name = step[2:]
        if step.startswith("k:"):
            told += f"[{', '.join(str(value) for value in json.loads(name).values() if value)}]"
        elif step.startswith("v:"):
            told += f"[{json.loads(name)}]"
        elif described is not None and is_map(described):
            told += f"[{shown(name)}]"
            inner: Any = here
            described = inner.fields_by_name["value"] if inner is not None else None
            here = described.message_type if described is not None else None
        elif here is not None and name in here.fields_by_camelcase_name and here.full_name != "google.protobuf.Struct":
            described = here.fields_by_camelcase_name[name]
            here = described.message_type
            told += f".{described.name}" if told else described.name
        else:
            described, here = None, None
            told += f".{shown(name)}"
    return told
