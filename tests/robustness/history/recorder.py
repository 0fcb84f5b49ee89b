"""What clients did and saw, as they saw it: monotonic nanoseconds, and an open end where the outcome is not known.

An operation that was never answered may have its effect at any time after it was sent, or never.
"""

from __future__ import annotations

import enum
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

OPEN = 2**63


class Verb(enum.Enum):
    """What was asked of one name."""

    CREATE = "create"
    READ = "read"
    SWAP = "swap"
    DELETE = "delete"


class Outcome(enum.Enum):
    """What the client knows of it."""

    DONE = "done"
    REFUSED = "refused"
    UNKNOWN = "unknown"


@dataclass
class Operation:
    """One operation on one name.

    wrote: the token that it writes; expected: the token that a swap was computed from; read: the token that was seen,
    None for absent; revision: the version in the answer; sent_ns, answered_ns: monotonic.
    """

    client: int
    verb: Verb
    name: str
    sent_ns: int
    wrote: str | None = None
    expected: str | None = None
    read: str | None = None
    revision: int = 0
    answered_ns: int = OPEN
    outcome: Outcome = Outcome.UNKNOWN


@dataclass
class Listing:
    """One list: what every name had, by token, at `revision`."""

    client: int
    sent_ns: int
    answered_ns: int
    revision: int
    seen: dict[str, tuple[str, int]]


@dataclass
class Recorder:
    """Collects operations of many threads or tasks."""

    operations: list[Operation] = field(default_factory=list)
    listings: list[Listing] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @contextmanager
    def operation(
        self, client: int, verb: Verb, name: str, *, wrote: str | None = None, expected: str | None = None
    ) -> Iterator[Operation]:
        """Record what happens inside.  Who does not call `answered` or `refused` leaves the outcome open."""
        one = Operation(client, verb, name, time.monotonic_ns(), wrote, expected)
        try:
            yield one
        finally:
            with self._lock:
                self.operations.append(one)

    def listing(self, client: int, sent_ns: int, revision: int, seen: dict[str, tuple[str, int]]) -> None:
        """Record a list that was answered now."""
        with self._lock:
            self.listings.append(Listing(client, sent_ns, time.monotonic_ns(), revision, seen))

    def named(self) -> dict[str, list[Operation]]:
        """Return the operations by name.  What a list saw, or did not see, is a read of each name."""
        found: dict[str, list[Operation]] = {}
        for one in self.operations:
            found.setdefault(one.name, []).append(one)
        for listing in self.listings:
            for name, operations in found.items():
                token, revision = listing.seen.get(name, (None, 0))
                operations.append(
                    Operation(
                        listing.client,
                        Verb.READ,
                        name,
                        listing.sent_ns,
                        read=token,
                        revision=revision,
                        answered_ns=listing.answered_ns,
                        outcome=Outcome.DONE,
                    )
                )
        return found


def answered(one: Operation, *, read: str | None = None, revision: int = 0) -> None:
    """Note that an operation was carried out, with what it saw."""
    one.answered_ns, one.outcome, one.read, one.revision = time.monotonic_ns(), Outcome.DONE, read, revision


def refused(one: Operation) -> None:
    """Note that an operation was refused by the state it met."""
    one.answered_ns, one.outcome = time.monotonic_ns(), Outcome.REFUSED
