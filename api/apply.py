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
from dataclasses import dataclass
from typing import Any

from google.protobuf.descriptor import Descriptor
from google.protobuf.message import DecodeError

from api.admission import refuse
from api.apply_fields import APPLY, BEFORE, UPDATE, Owner, at, base_of, changes, leaves, owners_of, text, write_owners
from api.apply_trees import METADATA, SPEC, Branch, Leaf, Node, Path, copied, tree_of, write
from api.client import MANAGER
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


@dataclass(frozen=True)
class Terms:
    """How something is declared.  `manager`: by whom; `force`: take over what others hold; `replace`: the whole spec.

    base: apply to the state that this stands for, and to no other; empty: to none, None: to any.
    """

    manager: str
    force: bool = False
    replace: bool = False
    base: str | None = None
    dry_run: bool = False


def declared(request: Any) -> Any:
    """Return the object in an ApplyRequest, as its own message.  Raises InvalidArgument with every fault."""
    found = list(manager_faults(request.field_manager))
    if not request.object.type_url:
        refuse([*found, FieldViolation("object", "is required")], "MISSING_FIELD")
    resource, faults = unpacked(request.object, "object")
    refuse([*found, *faults])
    return resource


def unpacked(packed: Any, path: str) -> tuple[Any, list[FieldViolation]]:
    """Return the resource in an Any, and what of it cannot be declared; None for what is no resource.

    path: to the Any, for what is wrong with it; faults of a resource are named as in the resource.
    """
    kind = kinds().get(packed.TypeName().rsplit(".", 1)[-1])
    if kind is None or kind.message.DESCRIPTOR.full_name != packed.TypeName():
        told = f"is a {shown(packed.TypeName())}: give a resource as its own message"
        return None, [FieldViolation(path, told, reason="UNKNOWN_KIND")]
    try:
        resource = kind.message.FromString(packed.value)
    except DecodeError:
        return None, [FieldViolation(path, f"holds bytes that are no {kind.name}", reason="BAD_MESSAGE")]
    stamp(resource)
    metadata = resource.metadata
    if kind.name == "Project" and not metadata.namespace:
        metadata.namespace = metadata.name
    found = []
    if not metadata.name:
        found.append(FieldViolation("metadata.name", "is required: what is declared has a name of its own"))
    if metadata.managedFields:
        found.append(FieldViolation("metadata.managedFields", "is kept by the server: leave it out"))
    return resource, found


def manager_faults(manager: str) -> Sequence[FieldViolation]:
    """Return what is wrong with the name of a manager."""
    if manager and len(manager) <= LONGEST_MANAGER and manager.isprintable():
        return []
    told = f"says who declares: 1 to {LONGEST_MANAGER} printable characters"
    return [FieldViolation("field_manager", told, shown(manager))]


async def apply(resources: Resources, resource: Any, terms: Terms) -> tuple[Any, str]:
    """Declare `resource`; return the stored object and what happened: CREATED, CONFIGURED, UNCHANGED.

    Raises Conflict: APPLY_CONFLICT names each field and who holds it, PLAN_OUTDATED is for another state than `base`.
    """
    for attempt in range(ATTEMPTS):
        try:
            stored = await resources.find(key_of(resource))
            if terms.base not in (None, base_of(stored)):
                told = f"{key_of(resource)} is not any more what the plan was made for: make a new plan"
                raise Conflict(told, reason="PLAN_OUTDATED")
            if stored is None:
                return await _create(resources, resource, terms), "CREATED"
            return await _merge(resources, stored, resource, terms)
        except (Conflict, AlreadyExists) as error:
            # Somebody else wrote between the read and the write.
            if error.reason not in ("CONFLICT", "ALREADY_EXISTS") or attempt == ATTEMPTS - 1:
                raise
            if resource.metadata.uid or resource.metadata.resourceVersion:
                raise
            await asyncio.sleep(random.uniform(0, min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2**attempt)))
    raise AssertionError("the last attempt returns or raises")


async def _create(resources: Resources, resource: Any, terms: Terms) -> Any:
    if resource.metadata.uid or resource.metadata.resourceVersion:
        raise Conflict(f"{key_of(resource)} does not exist: leave out metadata.uid and metadata.resourceVersion")
    new = copy.deepcopy(resource)
    new.status.Clear()
    paths = frozenset(leaves(tree_of(new)))

    def manage(_: Any | None, made: Any) -> None:
        write_owners(made, [Owner(terms.manager, APPLY, paths, time.time_ns())])

    return await resources.managing(manage).create(new, dry_run=terms.dry_run)


async def _merge(resources: Resources, stored: Any, resource: Any, terms: Terms) -> tuple[Any, str]:
    wanted = resource.metadata
    check(key_of(stored), stored, Preconditions(wanted.uid, wanted.resourceVersion))
    live = tree_of(stored)
    owners = owners_of(stored) or [Owner(BEFORE, UPDATE, frozenset(leaves(live)), time.time_ns())]
    try:
        tree, found = merged(live, tree_of(resource), owners, terms)
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

    return await resources.managing(manage).update(new, dry_run=terms.dry_run), "CONFIGURED"


def _same(found: Sequence[Owner], stored: Sequence[Owner]) -> bool:
    return {(o.manager, o.operation, o.paths) for o in found if o.paths} == {
        (o.manager, o.operation, o.paths) for o in stored
    }


class Taken(Exception):
    """Fields that would change belong to others.  `paths`: each with its manager."""

    def __init__(self, paths: Sequence[tuple[Path, str]]) -> None:
        super().__init__(paths)
        self.paths = paths


def merged(live: Branch, wanted: Branch, owners: Sequence[Owner], terms: Terms) -> tuple[Branch, list[Owner]]:
    """Return the object after a manager declared `wanted`, and who owns what then.  Raises Taken.

    What an object had before fields had owners is nobody's to `ma apply`, which wrote over all of it then.
    """
    result, manager = overlay(live, wanted), terms.manager
    if terms.replace:
        result.items[SPEC] = copied(wanted.items[SPEC])
    declared_now = frozenset(leaves(wanted))
    lost = {
        (path, owner.manager)
        for owner in owners
        if owner.manager != manager
        for path in owner.paths
        if changes(live, result, path)
    }
    free = BEFORE if manager == MANAGER else manager
    taken = sorted((path, holder) for path, holder in lost if holder != free)
    if taken and not terms.force:
        raise Taken(taken)
    others = [owner.without(path for path, _ in lost) for owner in owners if owner.manager != manager]
    others = [owner.without(declared_now) if owner.manager == free else owner for owner in others]
    mine = [owner for owner in owners if owner.manager == manager]
    before = frozenset[Path]().union(*(owner.paths for owner in mine if owner.operation == APPLY))
    if terms.replace:
        declared_now |= {path for path in before if path[0] == METADATA and at(result, path) is not None}
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
        f"others hold fields that would change: {listed}{more}; leave them out, agree on a value, "
        "or take them over with force (`ma apply --force-conflicts`)",
        reason="APPLY_CONFLICT",
        violations=[FieldViolation(field, f"is held by {manager!r}") for field, manager in told],
    )
