"""Tells of what is not done in time.  Most things are, and a timer for each costs them more than a record here.

Knows nothing of what is waited for.
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable


class Late:
    """What is under way on one event loop, with one timer for all."""

    def __init__(self) -> None:
        self._tell: dict[int, Callable[[], None]] = {}
        # When each is late, by the loop's time, with its number.
        self._waits: list[tuple[float, int]] = []
        self._last = 0
        self._timer: asyncio.TimerHandle | None = None
        self._due = 0.0

    def begin(self, loop: asyncio.AbstractEventLoop, when: float, tell: Callable[[], None]) -> int:
        """Note what is late at `when`, by the loop's time, and is told of once then.  Returns its number."""
        self._last = number = self._last + 1
        self._tell[number] = tell
        waits = self._waits
        while waits and waits[0][1] not in self._tell:
            heapq.heappop(waits)
        heapq.heappush(waits, (when, number))
        if self._timer is None or when < self._due:
            self._set(loop, waits[0][0])
        return number

    def end(self, number: int) -> None:
        """Note that it is done."""
        self._tell.pop(number, None)

    def _set(self, loop: asyncio.AbstractEventLoop, when: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer, self._due = loop.call_at(when, self._look, loop), when

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = None
        now, waits = loop.time(), self._waits
        while waits and (waits[0][0] <= now or waits[0][1] not in self._tell):
            _, number = heapq.heappop(waits)
            if (tell := self._tell.pop(number, None)) is not None:
                tell()
        if waits and self._timer is None:
            self._set(loop, waits[0][0])
