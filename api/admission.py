"""What an object must be before it is stored, beyond the options of its fields: names, project, references, owners.

Reads the store to see referees; writes nothing.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from google.protobuf.message import Message

from api.errors import FailedPrecondition, FieldViolation, InvalidArgument, NotFound, ResourceExhausted
from api.kinds import IDENTIFIER, Kind, Resource, kinds, reference_kind
from api.store.base import Key
from api.validation import is_map, shown, violations

NAME = re.compile(r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?\Z")
VERSION = re.compile(r"[0-9]{1,19}\Z")
LONGEST_NAME = 253
# A project is a namespace: a label of DNS in Kubernetes, a file's name here.
LONGEST_PROJECT = 63
SYSTEM_NAMESPACE = "ma-system"
MOST_OWNERS = 100
# A run's status holds its whole pipeline: both together stay below the 4 MiB that a gRPC client receives.
LARGEST_BYTES = 1_500_000
RULE = "use lower-case letters, digits, '-' and '.', begin and end with a letter or digit, at most 253 characters"

Exists = Callable[[Key], Awaitable[Resource | None]]


@dataclass(frozen=True)
class Checked:
    """What a look at other objects found: faults, and the objects that must still be there when it is written."""

    faults: list[FieldViolation] = field(default_factory=list)
    needed: list[Key] = field(default_factory=list)


def suggestion(name: str) -> str:
    """Return the nearest legal name."""
    folded = re.sub(r"[^a-z0-9.-]+", "-", name[: 2 * LONGEST_NAME].lower())
    parts = [part.strip("-") for part in folded.split(".")]
    return ".".join(part for part in parts if part)[:LONGEST_NAME].strip("-.") or "model-1"


def is_name(name: str) -> bool:
    """Whether a name can be part of a DAG id, a path and a URL."""
    return len(name) <= LONGEST_NAME and NAME.match(name) is not None and ".." not in name


def check_size(resource: Resource) -> None:
    """Raise ResourceExhausted for an object that, with the status it will get, no client could receive."""
    sizes = {part: getattr(resource, part).ByteSize() for part in ("metadata", "spec")}
    # A revision holds a whole object of another kind.
    most = 2 * LARGEST_BYTES if resource.DESCRIPTOR.name == "Revision" else LARGEST_BYTES
    if sum(sizes.values()) > most:
        largest = max(sizes, key=lambda part: sizes[part])
        told = f"has {sizes[largest]} bytes, an object at most {most}: store large values elsewhere and give their URI"
        raise ResourceExhausted(f"{largest} {told}", reason="TOO_LARGE", violations=[FieldViolation(largest, told)])


def check_shape(kind: Kind, resource: Resource) -> list[FieldViolation]:
    """Return the faults that the object alone shows."""
    found = list(_names(kind, resource))
    for part in ("spec", "status"):
        if part == "spec":
            found += violations(getattr(resource, part), part)
    return found


def _names(kind: Kind, resource: Resource) -> Iterator[FieldViolation]:
    metadata = resource.metadata
    for path, value in (("metadata.name", metadata.name), ("metadata.namespace", metadata.namespace)):
        if not is_name(value):
            yield FieldViolation(path, f"{RULE}; for example {suggestion(value)!r}", shown(value))
    if kind.name == "Project":
        yield from _project(metadata.name, metadata.namespace)
    if kind.name in ("Cluster", "Hook") and metadata.namespace != SYSTEM_NAMESPACE:
        yield FieldViolation(
            "metadata.namespace", f"a {kind.name} belongs to {SYSTEM_NAMESPACE}", shown(metadata.namespace)
        )


def _project(name: str, namespace: str) -> Iterator[FieldViolation]:
    if name != namespace:
        yield FieldViolation("metadata.namespace", f"of a Project is its own name, {name!r}", shown(namespace))
    if name == "default" or name.startswith("kube-") or name == SYSTEM_NAMESPACE:
        yield FieldViolation("metadata.name", "is reserved: choose another", shown(name))
    if len(name) > LONGEST_PROJECT:
        yield FieldViolation("metadata.name", f"of a Project has at most {LONGEST_PROJECT} characters", shown(name))
    if "." in name:
        yield FieldViolation(
            "metadata.name", "of a Project has no '.': it stands before the first '.' of DAG ids", name
        )


def refuse(found: Sequence[FieldViolation], reason: str = "INVALID_FIELDS") -> None:
    """Raise InvalidArgument that lists all faults, if there are any.  Faults of one own reason give it to the whole."""
    if not found:
        return
    own = {violation.reason for violation in found}
    if len(own) == 1 and "" not in own:
        (reason,) = own
    elif {violation.field for violation in found} <= {"metadata.name", "metadata.namespace"}:
        reason = "BAD_NAME"
    listed = "; ".join(f"{violation.field} {violation.description}" for violation in found[:20])
    raise InvalidArgument(listed, reason=reason, violations=found)


def references(resource: Resource) -> list[tuple[str, Key]]:
    """Return the path and the target of every reference in the spec to a kind that exists here."""
    return [found for found in _references(resource.spec, "spec", resource.metadata.namespace) if found[1].name]


def _references(message: Message, path: str, namespace: str) -> Iterator[tuple[str, Key]]:
    for described, value in message.ListFields():
        of = described.message_type
        if of is None or of.full_name.startswith("google.protobuf."):
            continue
        here = f"{path}.{described.name}"
        items: list[tuple[str, Any]]
        if is_map(described):
            if of.fields_by_name["value"].message_type is None:
                continue
            items = [(f"{here}[{shown(key)}]", item) for key, item in value.items()]
        elif described.is_repeated:
            items = [(f"{here}[{position}]", item) for position, item in enumerate(value)]
        else:
            items = [(here, value)]
        for at, item in items:
            if item.DESCRIPTOR.full_name == IDENTIFIER:
                target = reference_kind(described)
                if target in kinds():
                    yield at, Key(target, item.namespace or namespace, item.name)
            elif not item.DESCRIPTOR.full_name.startswith("google.protobuf."):
                yield from _references(item, at, namespace)


async def check_referees(resource: Resource, stored: Resource | None, exists: Exists) -> Checked:
    """Return a fault for each new referee that is not there, and those that the write depends on.

    A reference that the stored object already had may have lost its referee since; that is not this write's fault.
    """
    before = {key for _, key in references(stored)} if stored is not None else set()
    checked = Checked()
    for path, key in references(resource):
        if key in before:
            continue
        referee = await exists(key)
        if referee is None or referee.metadata.HasField("deletionTimestamp"):
            told = f"names {key.kind} {shown(key.name)!r} in {shown(key.namespace)!r}, which "
            told += "does not exist" if referee is None else "is being deleted"
            checked.faults.append(FieldViolation(path, told, shown(key.name), "UNKNOWN_REFERENCE"))
        else:
            checked.needed.append(key)
    return checked


def project_of(resource: Resource) -> Key | None:
    """Return the project that an object lives in, None for a project and for what is the platform's own."""
    namespace = resource.metadata.namespace
    alone = resource.DESCRIPTOR.name == "Project" or namespace == SYSTEM_NAMESPACE
    return None if alone else Key("Project", namespace, namespace)


async def check_project(project: Key, exists: Exists) -> None:
    """Check that new objects may live in a project.  Raises NotFound, FailedPrecondition while it is being deleted."""
    found = await exists(project)
    if found is None:
        raise NotFound(f"there is no Project {project.name!r}: create it first", reason="UNKNOWN_PROJECT")
    if found.metadata.HasField("deletionTimestamp"):
        raise FailedPrecondition(f"Project {project.name!r} is being deleted", reason="PROJECT_DELETED")


async def check_owners(resource: Resource, stored: Resource | None, exists: Exists) -> Checked:
    """Return a fault for each new owner that is missing or closes a circle, and those that the write depends on.

    One that the stored object already had is not looked at.
    """
    checked = Checked()
    given, before = resource.metadata.ownerReferences, stored.metadata.ownerReferences if stored is not None else ()
    if len(given) > MOST_OWNERS:
        told = f"has {len(given)} owners, at most {MOST_OWNERS} are allowed"
        checked.faults.append(FieldViolation("metadata.ownerReferences", told, reason="BAD_OWNER"))
        return checked
    for position, owner in enumerate(given):
        path = f"metadata.ownerReferences[{position}]"
        key = Key(owner.kind, resource.metadata.namespace, owner.name)
        if any((owner.kind, owner.name, owner.uid) == (had.kind, had.name, had.uid) for had in before):
            continue
        if owner.kind not in kinds():
            told = "is no kind of this API"
            checked.faults.append(FieldViolation(f"{path}.kind", told, shown(owner.kind), "BAD_OWNER"))
            continue
        target = await exists(key)
        if target is None or target.metadata.uid != owner.uid:
            told = f"names {shown(str(key))} with uid {shown(owner.uid)!r}, which does not exist"
            checked.faults.append(FieldViolation(path, told, reason="BAD_OWNER"))
        elif await _owned_by(target, resource.metadata.uid, exists):
            told = f"makes a circle: {key} is owned by this object"
            checked.faults.append(FieldViolation(path, told, reason="BAD_OWNER"))
        else:
            checked.needed.append(key)
    return checked


async def _owned_by(resource: Resource, uid: str, exists: Exists) -> bool:
    """Whether `uid` is the object or stands anywhere above it.  Each owner is looked at once."""
    waiting, seen = [resource], set()
    while uid and waiting:
        here = waiting.pop()
        if here.metadata.uid == uid:
            return True
        for owner in here.metadata.ownerReferences:
            if owner.uid not in seen and owner.kind in kinds():
                seen.add(owner.uid)
                above = await exists(Key(owner.kind, resource.metadata.namespace, owner.name))
                if above is not None:
                    waiting.append(above)
    return False


def check_version(version: str, field: str) -> None:
    """Raise InvalidArgument for a resourceVersion that no object ever had."""
    if version and VERSION.match(version) is None:
        told = "is the version of an object as the server gave it: a decimal number"
        refuse([FieldViolation(field, told, shown(version))], "BAD_RESOURCE_VERSION")


def check_update(kind: Kind, old: Resource, new: Resource) -> list[FieldViolation]:
    """Return the fields of `new` that may not differ from `old`."""
    found = []
    if new.metadata.uid and new.metadata.uid != old.metadata.uid:
        found.append(
            FieldViolation("metadata.uid", f"is {old.metadata.uid} and never changes", shown(new.metadata.uid))
        )
    created, was = new.metadata.creationTimestamp, old.metadata.creationTimestamp
    # JSON tells it in whole seconds, as Kubernetes does.
    same = created.seconds == was.seconds and created.nanos in (was.nanos, 0)
    if new.metadata.HasField("creationTimestamp") and not same:
        found.append(FieldViolation("metadata.creationTimestamp", "is set by the server and never changes"))
    if kind.immutable and new.spec != old.spec:
        found.append(FieldViolation("spec", f"of a {kind.name} never changes: create a new one"))
    return found
