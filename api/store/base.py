"""The store's port.  One transaction an operation; one revision counter; never I/O of anybody else inside one.

Revision: a 64-bit counter of the whole store, +1 a change, written in the same transaction as the change
(a sequence or a clock would let a watcher miss changes, `guarantees.md` finding 1).
"""

from __future__ import annotations

import enum
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from api.audit import Entry, Record
from api.errors import AlreadyExists, Conflict, FailedPrecondition
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
    """One committed change.  `resource`: the object after it, or its last state when deleted.

    previous: the object before it was modified, None when it was added or deleted.
    """

    revision: int
    type: ChangeType
    key: Key
    resource: Resource
    previous: Resource | None = None


# The most objects of a list that a client gets at once.
LARGEST_PAGE = 1000


@dataclass(frozen=True)
class Page:
    """Objects of one revision.  `next`: opaque position of the next page, empty at the end.

    remaining: how many follow, None where nobody counted.
    """

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
    """What to list.  Empty namespace: all.  `order`: (field, descending); name is always the last tie-breaker.

    count: tell how many objects follow the page, however long that takes; principal: for whom, its pages are for nobody
    else; namespaces: the only ones it may see, None for all.
    """

    namespace: str = ""
    labels: tuple[LabelRequirement, ...] = ()
    where: Criterion | Group | None = None
    order: tuple[tuple[str, bool], ...] = ()
    offset: int = 0
    limit: int = 0
    start: str = ""
    count: bool = False
    principal: str = ""
    namespaces: frozenset[str] | None = None


@dataclass(frozen=True)
class Lease:
    """Leadership for a while.  `epoch` grows with every new holder: a fencing token."""

    name: str
    holder: str
    epoch: int
    ttl_s: float


@dataclass(frozen=True)
class Unchanged:
    """That no object of some kinds was written or removed after a revision: what was read then still holds."""

    kinds: frozenset[str]
    since: int


@dataclass(frozen=True)
class Preconditions:
    """What must hold at commit.  Empty values are not checked."""

    uid: str = ""
    resource_version: str = ""
    unchanged: Unchanged | None = None


@dataclass(frozen=True)
class Write:
    """One object to create or replace; `expect`: the resourceVersion it must have now, empty for a create.

    must_exist: objects that must be there and not be deleted, not even with finalizers that keep them for a while.
    """

    resource: Resource
    expect: str = ""
    must_exist: tuple[Key, ...] = field(default_factory=tuple)


# Reasons of refusals: what must exist does not; others wrote what it was decided from.
REFERENCE_GONE = "REFERENCE_GONE"
OVERTAKEN = "OVERTAKEN"
# How long the answer of a request is kept at least.
REQUESTS_KEPT_S = 48 * 3600


@dataclass(frozen=True)
class Request:
    """A client's own name for one mutating call.  `scope`: principal and method; `digest`: SHA-256 of what it asks.

    Repeated, it has one effect and the same answer.
    """

    scope: str
    id: str
    digest: bytes


@dataclass(frozen=True)
class Trail:
    """What is committed together with an effect, or not at all.

    fence: the leadership under which the effect was decided; it is refused when another leads since.
    """

    audit: Entry | None = None
    request: Request | None = None
    fence: Lease | None = None


NO_TRAIL = Trail()


class Store(Protocol):
    """Get, list, create, update (compare-and-swap), delete, watch, lease.  Every method may raise `api.errors`."""

    async def get(self, key: Key) -> Resource:
        """Return the object at `key`.  Raises NotFound."""
        ...

    async def list(self, kind: str, query: Query) -> Page:
        """Return the objects of `kind` that match, all of one revision.  Raises Expired for an old `start`."""
        ...

    async def create(self, write: Write, trail: Trail = NO_TRAIL) -> Resource:
        """Store a new object; sets metadata.resourceVersion.  Raises AlreadyExists, FailedPrecondition (`must_exist`).

        Of a request that was carried out before, this and the two below return the answer it had then.
        """
        ...

    async def update(self, write: Write, trail: Trail = NO_TRAIL) -> Resource:
        """Replace an object if its resourceVersion is `write.expect`.  Raises NotFound, Conflict."""
        ...

    async def delete(
        self,
        key: Key,
        preconditions: Preconditions,
        *,
        orphan: bool = False,
        finalized: bool = False,
        trail: Trail = NO_TRAIL,
    ) -> Resource:
        """Remove an object for good with what it alone owns, all in one transaction, and return its last state.

        What has finalizers only gets its deletionTimestamp, unless `finalized`: those of `key` have done their work.
        What other owners hold too, and with `orphan` all that it owns, stays without the reference to it.
        Raises NotFound, Conflict; OVERTAKEN when something changed that `preconditions.unchanged` names.
        """
        ...

    async def remembered(self, request: Request, kind: str) -> Resource | None:
        """Return the object that a repeated request answered with, None for a new one.

        Raises AlreadyExists (REQUEST_ID_REUSED) when the id named another request.
        """
        ...

    async def record(self, entry: Entry, request: Request | None = None, answer: Resource | None = None) -> None:
        """Append to the audit log what changed nothing: a denied call, a governed read.

        request: its answer, `answer`, is remembered in the same transaction.
        """
        ...

    async def audit(self, after: int, limit: int) -> Sequence[Record]:
        """Return audit records that follow number `after`, oldest first."""
        ...

    async def revision(self) -> int:
        """Return the newest committed revision."""
        ...

    def peek(self, key: Key) -> bytes | None:
        """Return the bytes of an object as `get` would find it, where that takes no wait; None says nothing."""
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


def request_reused(request: Request) -> AlreadyExists:
    """Return the refusal of a request id that named something else before."""
    return AlreadyExists(
        f"request id {request.id} was used for another request: take a new one for each", reason="REQUEST_ID_REUSED"
    )


def deposed(lease: Lease) -> Conflict:
    """Return the refusal of what a former leader decided."""
    return Conflict(f"another process holds {lease.name} since epoch {lease.epoch}", reason="DEPOSED")


def overtaken(unchanged: Unchanged) -> Conflict:
    """Return the refusal of what was decided before others wrote."""
    told = f"{', '.join(sorted(unchanged.kinds))} objects changed since revision {unchanged.since}: look again"
    return Conflict(told, reason=OVERTAKEN)


def reference_gone(key: Key, *, going: bool) -> FailedPrecondition:
    """Return the refusal of what names an object that is not there any more, or not for long."""
    told = "is being deleted" if going else "is gone"
    return FailedPrecondition(f"{key.kind} {key.name!r} in {key.namespace!r} {told}", reason=REFERENCE_GONE)


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
