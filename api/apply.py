"""Server-side apply: each manager declares the fields it wants, and gets no others changed.

What a manager declared before and no longer does is taken away, unless another holds it too.  What another holds and
would change is a conflict, unless it is taken by force.  Source of the rules: Kubernetes' server-side apply.
"""

from __future__ import annotations

import asyncio
import copy
import random
import time
from collections.abc import Collection, Sequence
from typing import Any

from google.protobuf.descriptor import Descriptor
from google.protobuf.message import DecodeError

from api.admission import refuse
from api.apply_fields import APPLY, BEFORE, UPDATE, Owner, at, changes, leaves, owners_of, text, write_owners
from api.apply_trees import Branch, Leaf, Node, Path, copied, tree_of, write
from api.errors import AlreadyExists, Conflict, FieldViolation, ResourceExhausted
from api.kinds import kinds, stamp
from api.resources import Resources
from api.store.base import Preconditions
from api.store.records import check
from api.store.values import key_of
from api.validation import shown

ATTEMPTS = 20
FIRST_PAUSE_S = 0.005
LONGEST_PAUSE_S = 0.2
LONGEST_MANAGER = 128
MOST_MANAGERS = 50
MOST_SHOWN = 20


def declared(request: Any) -> Any:
    """Return the object in an ApplyRequest, as its own message.  Raises InvalidArgument with every fault."""
    found = list(_manager_faults(request.field_manager))
    packed = request.object
    kind = kinds().get(packed.TypeName().rsplit(".", 1)[-1])
    if not packed.type_url:
        refuse([*found, FieldViolation("object", "is required")], "MISSING_FIELD")
    if kind is None or kind.message.DESCRIPTOR.full_name != packed.TypeName():
        told = f"is a {shown(packed.TypeName())}: give a resource as its own message"
        refuse([*found, FieldViolation("object", told)], "UNKNOWN_KIND")
        raise AssertionError("refused")
    try:
        resource = kind.message.FromString(packed.value)
    except DecodeError:
        refuse([*found, FieldViolation("object", f"holds bytes that are no {kind.name}")], "BAD_MESSAGE")
        raise AssertionError("refused") from None
    stamp(resource)
    metadata = resource.metadata
    if kind.name == "Project" and not metadata.namespace:
        metadata.namespace = metadata.name
    if not metadata.name:
        found.append(FieldViolation("metadata.name", "is required: what is declared has a name of its own"))
    if metadata.managedFields:
        found.append(FieldViolation("metadata.managedFields", "is kept by the server: leave it out"))
    refuse(found)
    return resource


def _manager_faults(manager: str) -> Sequence[FieldViolation]:
    if manager and len(manager) <= LONGEST_MANAGER and manager.isprintable():
        return []
    told = f"says who declares: 1 to {LONGEST_MANAGER} printable characters"
    return [FieldViolation("field_manager", told, shown(manager))]


async def apply(resources: Resources, resource: Any, manager: str, *, force: bool, dry_run: bool) -> tuple[Any, str]:
    """Declare `resource`; return the stored object and what happened: CREATED, CONFIGURED, UNCHANGED.

    Raises Conflict (APPLY_CONFLICT) that names each field and who holds it.
    """
    for attempt in range(ATTEMPTS):
        try:
            stored = await resources.find(key_of(resource))
            if stored is None:
                return await _create(resources, resource, manager, dry_run), "CREATED"
            return await _merge(resources, stored, resource, manager, force, dry_run)
        except (Conflict, AlreadyExists) as error:
            # Somebody else wrote between the read and the write.
            if error.reason not in ("CONFLICT", "ALREADY_EXISTS") or attempt == ATTEMPTS - 1:
                raise
            if resource.metadata.uid or resource.metadata.resourceVersion:
                raise
            await asyncio.sleep(random.uniform(0, min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2**attempt)))
    raise AssertionError("the last attempt returns or raises")


async def _create(resources: Resources, resource: Any, manager: str, dry_run: bool) -> Any:
    if resource.metadata.uid or resource.metadata.resourceVersion:
        raise Conflict(f"{key_of(resource)} does not exist: leave out metadata.uid and metadata.resourceVersion")
    new = copy.deepcopy(resource)
    new.status.Clear()
    paths = frozenset(leaves(tree_of(new)))

    def manage(_: Any | None, made: Any) -> None:
        write_owners(made, [Owner(manager, APPLY, paths, time.time_ns())])

    return await resources.managing(manage).create(new, dry_run=dry_run)


async def _merge(
    resources: Resources, stored: Any, resource: Any, manager: str, force: bool, dry_run: bool
) -> tuple[Any, str]:
    wanted = resource.metadata
    check(key_of(stored), stored, Preconditions(wanted.uid, wanted.resourceVersion))
    live = tree_of(stored)
    owners = owners_of(stored) or [Owner(BEFORE, UPDATE, frozenset(leaves(live)), time.time_ns())]
    try:
        tree, found = merged(live, tree_of(resource), owners, manager, force=force)
    except Taken as taken:
        raise conflict(stored.DESCRIPTOR, taken.paths) from None
    if len(found) > MOST_MANAGERS:
        told = f"{len(found)} managers declare fields of {key_of(stored)}, at most {MOST_MANAGERS} can"
        raise ResourceExhausted(told, reason="TOO_MANY_MANAGERS")
    if tree == live and _same(found, owners_of(stored)):
        resources.outcome.answer = stored
        return stored, "UNCHANGED"
    new = copy.deepcopy(stored)
    write(tree, new)

    def manage(_: Any | None, made: Any) -> None:
        write_owners(made, found)

    return await resources.managing(manage).update(new, dry_run=dry_run), "CONFIGURED"


def _same(found: Sequence[Owner], stored: Sequence[Owner]) -> bool:
    return {(o.manager, o.operation, o.paths) for o in found if o.paths} == {
        (o.manager, o.operation, o.paths) for o in stored
    }


class Taken(Exception):
    """Fields that would change belong to others.  `paths`: each with its manager."""

    def __init__(self, paths: Sequence[tuple[Path, str]]) -> None:
        super().__init__(paths)
        self.paths = paths


def merged(
    live: Branch, wanted: Branch, owners: Sequence[Owner], manager: str, *, force: bool
) -> tuple[Branch, list[Owner]]:
    """Return the object after a manager declared `wanted`, and who owns what then.  Raises Taken."""
    result = overlay(live, wanted)
    declared_now = frozenset(leaves(wanted))
    lost = {
        (path, owner.manager)
        for owner in owners
        if owner.manager != manager
        for path in owner.paths
        if changes(live, result, path)
    }
    if lost and not force:
        raise Taken(sorted(lost))
    others = [owner.without(path for path, _ in lost) for owner in owners if owner.manager != manager]
    mine = [owner for owner in owners if owner.manager == manager]
    before = frozenset[Path]().union(*(owner.paths for owner in mine if owner.operation == APPLY))
    # What its manager changed before without declaring it, it declares now, or has written over.
    others += [
        owner.without(path for path in owner.paths if path in declared_now or changes(live, result, path))
        for owner in mine
        if owner.operation != APPLY
    ]
    held = {path[:length] for owner in others for path in owner.paths for length in range(1, len(path) + 1)}
    kept = held | {path[:length] for path in declared_now for length in range(1, len(path) + 1)}
    for path in sorted(before - declared_now, key=len, reverse=True):
        remove(result, path, kept)
    now = Owner(manager, APPLY, declared_now, time.time_ns())
    return result, [owner for owner in (*others, now) if owner.paths]


def overlay(live: Node | None, wanted: Branch) -> Branch:
    """Return a new tree with what it had and what is wanted; what is wanted wins."""
    if not isinstance(live, Branch) or live.form != wanted.form:
        live = Branch(wanted.form, {}, wanted.descriptor)
    order = arranged(list(live.items), list(wanted.items)) if live.form == "list" else [*live.items, *wanted.items]
    rivals = {rival for step in wanted.items for rival in wanted.rivals(step)}
    result = Branch(live.form, {}, live.descriptor)
    for step in dict.fromkeys(order):
        if step in rivals:
            continue
        new = wanted.items.get(step)
        if isinstance(new, Branch):
            result.items[step] = overlay(live.items.get(step), new)
        else:
            result.items[step] = copied(live.items[step]) if new is None else new
    return result


def arranged(live: Sequence[str], wanted: Sequence[str]) -> list[str]:
    """Return the items of a list in the wanted order, each other one behind the item that it followed."""
    result, before, wanted_steps = list(wanted), -1, set(wanted)
    for step in live:
        if step in wanted_steps:
            before = result.index(step)
        else:
            before += 1
            result.insert(before, step)
    return result


def remove(tree: Branch, path: Path, kept: Collection[Path]) -> None:
    """Take away, in place, what stands at a path and is not kept, and what is empty without it."""
    if path in kept or _names_its_item(path):
        return
    node = at(tree, path)
    parent = at(tree, path[:-1])
    if node is None or not isinstance(parent, Branch):
        return
    if isinstance(node, Leaf) or path[-1].startswith("k:") or not node.items:
        del parent.items[path[-1]]
        if not parent.items and len(path) > 2:
            remove(tree, path[:-1], kept)


def _names_its_item(path: Path) -> bool:
    return len(path) > 1 and path[-2].startswith("k:") and f'"{path[-1][2:]}":' in path[-2]


def conflict(descriptor: Descriptor, taken: Sequence[tuple[Path, str]]) -> Conflict:
    """Return the refusal that names each field and who holds it."""
    told = [(text(descriptor, path), manager) for path, manager in taken]
    listed = ", ".join(f"{field} of {manager!r}" for field, manager in told[:MOST_SHOWN])
    more = f" and {len(told) - MOST_SHOWN} more" if len(told) > MOST_SHOWN else ""
    return Conflict(
        f"others hold fields that would change: {listed}{more}; leave them out, agree on a value, or apply with force",
        reason="APPLY_CONFLICT",
        violations=[FieldViolation(field, f"is held by {manager!r}") for field, manager in told],
    )
