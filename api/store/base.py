"""The store's port.  One transaction an operation; one revision counter; never I/O of anybody else inside one.

Revision: a 64-bit counter of the whole store, +1 a change, written in the same transaction as the change
(a sequence or a clock would let a watcher miss changes, `guarantees.md` finding 1).
"""

from __future__ import annotations

import enum
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from api.errors import AlreadyExists
from api.kinds import Resource


@dataclass(frozen=True, order=True)
class Key:
    """Where an object stands: kind (`PipelineRun`), namespace (project) and name."""

    kind: str
    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind}/{self.namespace}/{self.name}"


class ChangeType(enum.Enum):
    """What happened to an object."""

    ADDED = "ADDED"
    MODIFIED = "MODIFIED"
    DELETED = "DELETED"


@dataclass(frozen=True)
class Change:
    """One committed change.  `resource`: the object after it, or its last state when deleted."""

    revision: int
    type: ChangeType
    key: Key
    resource: Resource


@dataclass(frozen=True)
class Page:
    """Objects of one revision.  `next`: opaque position of the next page, empty at the end."""

    items: Sequence[Resource]
    revision: int
    next: str = ""
    remaining: int | None = None


class Operator(enum.Enum):
    """Comparisons of a criterion; the values are the wire's numbers."""

    EQUAL = 1
    NOT_EQUAL = 2
    GREATER_THAN = 3
    GREATER_THAN_OR_EQUAL_TO = 4
    LESS_THAN = 5
    LESS_THAN_OR_EQUAL_TO = 6
    IN = 7
    NOT_IN = 8
    LIKE = 9
    IS_NULL = 10
    IS_NOT_NULL = 11


Scalar = str | int | float | bool


@dataclass(frozen=True)
class Criterion:
    """`field` is an index key of the kind or one of the base fields (`metadata.name` ...)."""

    field: str
    operator: Operator
    values: tuple[Scalar, ...] = ()


@dataclass(frozen=True)
class Group:
    """A nested condition: all (or any) of `terms`."""

    terms: tuple[Criterion | Group, ...]
    any: bool = False


@dataclass(frozen=True)
class LabelRequirement:
    """One term of a label selector.  `operator`: in, notin, exists, absent."""

    key: str
    operator: str
    values: tuple[str, ...] = ()


@dataclass(frozen=True)
class Query:
    """What to list.  Empty namespace: all.  `order`: (field, descending); name is always the last tie-breaker."""

    namespace: str = ""
    labels: tuple[LabelRequirement, ...] = ()
    where: Criterion | Group | None = None
    order: tuple[tuple[str, bool], ...] = ()
    offset: int = 0
    limit: int = 0
    start: str = ""


@dataclass(frozen=True)
class Lease:
    """Leadership for a while.  `epoch` grows with every new holder: a fencing token."""

    name: str
    holder: str
    epoch: int
    ttl_s: float


@dataclass(frozen=True)
class Preconditions:
    """What must hold at commit.  Empty values are not checked."""

    uid: str = ""
    resource_version: str = ""


@dataclass(frozen=True)
class Write:
    """One object to create or replace; `expect`: the resourceVersion it must have now, empty for a create."""

    resource: Resource
    expect: str = ""
    must_exist: tuple[Key, ...] = field(default_factory=tuple)


class Store(Protocol):
    """Get, list, create, update (compare-and-swap), delete, watch, lease.  Every method may raise `api.errors`."""

    async def get(self, key: Key) -> Resource:
        """Return the object at `key`.  Raises NotFound."""
        ...

    async def list(self, kind: str, query: Query) -> Page:
        """Return the objects of `kind` that match, all of one revision.  Raises Expired for an old `start`."""
        ...

    async def create(self, write: Write) -> Resource:
        """Store a new object; sets metadata.resourceVersion.  Raises AlreadyExists, NotFound (`must_exist`)."""
        ...

    async def update(self, write: Write) -> Resource:
        """Replace an object if its resourceVersion is `write.expect`.  Raises NotFound, Conflict."""
        ...

    async def delete(
        self, key: Key, preconditions: Preconditions, *, orphan: bool = False, finalized: bool = False
    ) -> Resource:
        """Remove an object for good with what it alone owns, all in one transaction, and return its last state.

        What has finalizers only gets its deletionTimestamp, unless `finalized`: those of `key` have done their work.
        What other owners hold too, and with `orphan` all that it owns, stays without the reference to it.
        Raises NotFound, Conflict.
        """
        ...

    async def revision(self) -> int:
        """Return the newest committed revision."""
        ...

    def watch(self, kinds: Collection[str], since: int) -> AsyncIterator[Change]:
        """Yield every change after revision `since`, in order, for ever.  Raises Expired when compacted."""
        ...

    async def acquire(self, name: str, holder: str, ttl_s: float) -> Lease | None:
        """Take or renew the lease `name`; None while another holds it."""
        ...

    async def release(self, lease: Lease) -> None:
        """Give a lease back early."""
        ...

    async def close(self) -> None:
        """Stop; every later call fails."""
        ...


def already_exists(key: Key, uid: str) -> AlreadyExists:
    """Return the refusal of a name that is taken."""
    return AlreadyExists(f"{key} already exists with uid {uid}: choose another name or update it")


def labels_match(requirements: Sequence[LabelRequirement], labels: Mapping[str, str]) -> bool:
    """Tell whether `labels` meet all requirements.  Source: Kubernetes label selectors."""
    for term in requirements:
        present = term.key in labels
        if term.operator == "exists" and not present:
            return False
        if term.operator == "absent" and present:
            return False
        if term.operator == "in" and (not present or labels[term.key] not in term.values):
            return False
        if term.operator == "notin" and present and labels[term.key] in term.values:
            return False
    return True
