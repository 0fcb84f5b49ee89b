"""The store as a dictionary: what every operation must answer, and what stood there at any revision."""

from __future__ import annotations

import bisect
from collections.abc import Iterable
from dataclasses import dataclass, field

from tests.robustness.history.watch_rules import ADDED, DELETED, MODIFIED, Event


@dataclass(frozen=True)
class Held:
    """One object: its token and its version."""

    token: str
    revision: int


@dataclass
class StoreModel:
    """Names and what they hold.  One revision a change; a refusal changes nothing and returns its reason."""

    revision: int = 0
    held: dict[str, Held] = field(default_factory=dict)
    log: list[Event] = field(default_factory=list)

    def create(self, name: str, token: str) -> str:
        """Store a new name."""
        if name in self.held:
            return "ALREADY_EXISTS"
        return self._put(ADDED, name, token)

    def swap(self, name: str, expected: int, token: str) -> str:
        """Replace a name that is still at revision `expected`."""
        if name not in self.held:
            return "NOT_FOUND"
        if self.held[name].revision != expected:
            return "CONFLICT"
        return self._put(MODIFIED, name, token)

    def delete(self, name: str) -> str:
        """Remove a name."""
        if name not in self.held:
            return "NOT_FOUND"
        self.revision += 1
        self.log.append(Event(DELETED, self.revision, name, self.held.pop(name).token))
        return ""

    def _put(self, change: str, name: str, token: str) -> str:
        self.revision += 1
        self.held[name] = Held(token, self.revision)
        self.log.append(Event(change, self.revision, name, token))
        return ""


def replayed(log: Iterable[Event], until: int | None = None) -> dict[str, Held]:
    """Return what a change log leads to, at its end or at revision `until`.  Raises AssertionError if it is no log."""
    held: dict[str, Held] = {}
    newest = 0
    for event in log:
        if until is not None and event.revision > until:
            break
        assert event.revision > newest, f"{event} follows {newest}"
        newest = event.revision
        if event.type == DELETED:
            assert event.key in held, f"{event}: there was none"
            del held[event.key]
        else:
            assert (event.key in held) == (event.type == MODIFIED), f"{event}: wrong type"
            held[event.key] = Held(event.token, event.revision)
    return held


@dataclass
class Past:
    """Every state of a log, for questions about many revisions."""

    log: list[Event]
    _at: dict[int, dict[str, Held]] = field(default_factory=dict)

    def at(self, revision: int) -> dict[str, Held]:
        """Return what stood at a revision."""
        last = bisect.bisect_right([event.revision for event in self.log], revision)
        if last not in self._at:
            self._at[last] = replayed(self.log[:last])
        return self._at[last]
