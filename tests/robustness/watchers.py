"""Watchers of every temper: fast, slow, choosy, and those that leave and come back.  They only record what they see."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Protocol

from api.errors import Expired, ResourceExhausted, Unavailable
from tests.robustness.history.watch_rules import BOOKMARK, Event, Session

COLOUR = "colour"
CHOSEN = "red"
QUIET_S = 0.5


class TooOld(Exception):
    """The position is no longer kept."""


class Ended(Exception):
    """The stream ended for no fault of its position."""


class Source(Protocol):
    """Where streams come from."""

    def stream(self, since: int, *, chosen: bool) -> AsyncIterator[list[Event]]:
        """Yield events and bookmarks after `since`, of all or of one colour.  Raises `api.errors`, TooOld, Ended."""
        ...

    async def revision(self) -> int:
        """Return the revision of a list that was read now."""
        ...


@dataclass
class Watcher:
    """One watcher.

    pause_s: between two batches; leaves_s: how long it stays before it comes back, 0 for ever; excused: changes that
    it did not see because it was told that its position is too old, and listed instead.
    """

    number: int
    chosen: bool = False
    pause_s: float = 0.0
    leaves_s: float = 0.0
    sessions: list[Session] = field(default_factory=list)
    excused: list[tuple[int, int]] = field(default_factory=list)
    cuts: int = 0
    position: int = 0

    async def run(self, source: Source, final: Callable[[], int | None]) -> None:
        """Watch until everything up to `final()` was seen."""
        pick = random.Random(self.number)
        while (end := final()) is None or self.position < end:
            session = Session(self.position)
            self.sessions.append(session)
            try:
                await self._session(source, session, final, pick)
            except (Expired, TooOld):
                session.expired = True
                listed = await source.revision()
                self.excused.append((self.position, listed))
                self.position = listed
            except (Unavailable, ResourceExhausted, Ended):
                self.cuts += 1
                await asyncio.sleep(0.05 * pick.random())

    async def _session(
        self, source: Source, session: Session, final: Callable[[], int | None], pick: random.Random
    ) -> None:
        leaves = asyncio.get_running_loop().time() + self.leaves_s * pick.uniform(0.5, 1.5)
        async with aclosing(source.stream(self.position, chosen=self.chosen)) as stream:  # type: ignore[type-var]
            while True:
                try:
                    events = await asyncio.wait_for(anext(stream), QUIET_S)
                except TimeoutError:
                    # It is quiet: a new stream tells by its first bookmark whether that is all.
                    if final() is not None:
                        return
                    continue
                except StopAsyncIteration:
                    return
                session.events += events
                self.position = max(self.position, events[-1].revision)
                end = final()
                if end is not None and self.position >= end:
                    return
                if self.leaves_s and asyncio.get_running_loop().time() > leaves:
                    return
                if self.pause_s:
                    await asyncio.sleep(self.pause_s)

    @property
    def bookmarks(self) -> int:
        """Return how many bookmarks it saw."""
        return sum(event.type == BOOKMARK for session in self.sessions for event in session.events)


def crowd(each: int = 5) -> list[Watcher]:
    """Return watchers of each temper."""
    return [
        *(Watcher(number) for number in range(each)),
        *(Watcher(each + number, pause_s=0.2) for number in range(each)),
        *(Watcher(2 * each + number, chosen=True) for number in range(each)),
        *(Watcher(3 * each + number, chosen=number % 2 == 0, leaves_s=0.2) for number in range(each)),
    ]
