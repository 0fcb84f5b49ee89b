"""Events of the public watch, and the ring of the newest changes that they are made of.  Knows no watcher."""

from __future__ import annotations

import copy
import enum
from bisect import bisect_right
from collections.abc import AsyncIterator, Callable, Collection, Iterator
from dataclasses import dataclass, field
from typing import Protocol

from api.kinds import Resource, kinds
from api.masking import masked
from api.store.base import Change, ChangeType

# Dropped entries are cut off together.
SLACK = 256


class EventType(enum.Enum):
    """What a watcher is told."""

    ADDED = "ADDED"
    MODIFIED = "MODIFIED"
    DELETED = "DELETED"
    BOOKMARK = "BOOKMARK"


TYPES = {change: EventType(change.value) for change in ChangeType}


class Event:
    """One change as watchers are told it, or a bookmark.  `resource`: None in a bookmark; never change it."""

    __slots__ = ("_forms", "resource", "revision", "size", "type")

    def __init__(self, told: EventType, revision: int, resource: Resource | None = None) -> None:
        self.type = told
        self.revision = revision
        self.resource = resource
        self.size = 0 if resource is None else resource.ByteSize()
        self._forms: dict[str, bytes] = {}

    @property
    def kind(self) -> str:
        """The kind of the object, empty in a bookmark."""
        return "" if self.resource is None else self.resource.DESCRIPTOR.name

    def once(self, form: str, encode: Callable[[Event], bytes]) -> bytes:
        """Return the event in a form (`grpc`, `json`), encoded by the first who asks."""
        found = self._forms.get(form)
        if found is None:
            found = self._forms[form] = encode(self)
        return found


class Log(Protocol):
    """What changes are read from: a store, or resources over one."""

    async def revision(self) -> int: ...

    def watch(self, names: Collection[str], since: int) -> AsyncIterator[Change]: ...


@dataclass(frozen=True)
class Limits:
    """How much is kept.  ring: the newest changes, for all; queue: what one watcher has not read; watches: a principal.

    watches_in_all: of all principals.  A batch is what a watcher gets at a time; one event may be larger.
    """

    ring_events: int = 4096
    ring_bytes: int = 32 * 1024 * 1024
    queue_events: int = 1000
    queue_bytes: int = 16 * 1024 * 1024
    batch_events: int = 500
    batch_bytes: int = 1024 * 1024
    watches: int = 50
    watches_in_all: int = 1000
    bookmark_s: float = 10.0


@dataclass(frozen=True)
class Entry:
    """One change, and what was made of it for watchers."""

    change: Change
    events: dict[ChangeType, Event] = field(default_factory=dict)

    @property
    def size(self) -> int:
        """Bytes of the objects it holds."""
        previous = self.change.previous
        return self.change.resource.ByteSize() + (0 if previous is None else previous.ByteSize())


class Ring:
    """Every change in (floor, head], oldest first."""

    def __init__(self, revision: int, most: int, most_bytes: int) -> None:
        self._most = most
        self._most_bytes = most_bytes
        self.clear(revision)

    def clear(self, revision: int) -> None:
        """Forget all, and go on after `revision`."""
        self.floor = self.head = revision
        self._entries: list[Entry] = []
        self._revisions: list[int] = []
        self._first = 0
        self._bytes = 0

    def append(self, change: Change) -> Entry:
        """Add the next change, dropping the oldest ones that no longer fit."""
        entry = Entry(change)
        self._entries.append(entry)
        self._revisions.append(change.revision)
        self._bytes += entry.size
        self.head = change.revision
        while len(self._entries) - self._first > self._most or (
            self._bytes > self._most_bytes and len(self._entries) - self._first > 1
        ):
            oldest = self._entries[self._first]
            self._bytes -= oldest.size
            self.floor = oldest.change.revision
            self._first += 1
        if self._first >= SLACK:
            del self._entries[: self._first], self._revisions[: self._first]
            self._first = 0
        return entry

    def after(self, revision: int) -> Iterator[Entry]:
        """Yield the changes after `revision`, which must not be below `floor`."""
        for position in range(bisect_right(self._revisions, revision, self._first), len(self._entries)):
            yield self._entries[position]


def told(entry: Entry, seen: ChangeType) -> Event:
    """Return the event of a change as it looks through some selection, the same one for all that see it so.

    Sensitive fields are never told: who may see them gets the object.
    """
    found = entry.events.get(seen)
    if found is None:
        kind, resource = kinds()[entry.change.key.kind], entry.change.resource
        shown = masked(kind, copy.deepcopy(resource)) if kind.sensitive else resource
        found = entry.events[seen] = Event(TYPES[seen], entry.change.revision, shown)
    return found
