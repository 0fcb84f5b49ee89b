"""Tells of what is not done in time.  Most things are, and a timer for each costs them more than a record here.

Of what is late together, some may be told of at a time, and the next a little later.

Knows nothing of what is waited for.
"""

from __future__ import annotations

import asyncio
import heapq
import math
from collections.abc import Callable


class Late:
    """What is under way on one event loop, with one timer for all.

    at_once, pause_s: so many are told of together, and so many seconds later the next.
    """

    def __init__(self, at_once: float = math.inf, pause_s: float = 0.0) -> None:
        self._at_once = at_once
        self._pause_s = pause_s
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
            self._set(loop, when)
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
        now, waits, told = loop.time(), self._waits, 0
        while waits and (waits[0][1] not in self._tell or (waits[0][0] <= now and told < self._at_once)):
            _, number = heapq.heappop(waits)
            if (tell := self._tell.pop(number, None)) is not None:
                tell()
                told += 1
        if waits:
            self._set(loop, max(waits[0][0], now + self._pause_s))
