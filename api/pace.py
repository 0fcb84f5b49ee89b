"""Ends waits when their time has come, some at a time: a thousand that are due together would hold the loop for long.

Whoever is refused costs half a millisecond.  Five hundred callers who were refused together ask again together, and
nobody else is heard for a quarter of a second each time; paced, they spread out.  Knows nothing of what is waited for.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools

# So many waits end together, and so many seconds later the next: the loop looks at what else came in between.
AT_ONCE = 4
PAUSE_S = 0.008


class Pace:
    """Waits of one event loop."""

    def __init__(self, at_once: int = AT_ONCE, pause_s: float = PAUSE_S) -> None:
        self._at_once = at_once
        self._pause_s = pause_s
        self._ends: list[tuple[float, int, asyncio.Future[bool]]] = []
        self._numbers = itertools.count()
        self._timer: asyncio.Handle | None = None
        self._due = 0.0

    def end(self, wait: asyncio.Future[bool], after_s: float) -> None:
        """Let `wait` be False after some seconds or a little later, unless it is done by then."""
        loop = asyncio.get_running_loop()
        when = loop.time() + after_s
        heapq.heappush(self._ends, (when, next(self._numbers), wait))
        if self._timer is None or when < self._due:
            self._set(loop, when)

    async def sleep(self, for_s: float) -> None:
        """Return after some seconds or a little later."""
        wait: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self.end(wait, for_s)
        await wait

    def _set(self, loop: asyncio.AbstractEventLoop, when: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer, self._due = loop.call_at(when, self._sweep), when

    def _sweep(self) -> None:
        self._timer = None
        loop, ended = asyncio.get_running_loop(), 0
        now = loop.time()
        while self._ends and (self._ends[0][2].done() or (self._ends[0][0] <= now and ended < self._at_once)):
            _, _, wait = heapq.heappop(self._ends)
            if not wait.done():
                wait.set_result(False)
                ended += 1
        if self._ends:
            self._set(loop, max(self._ends[0][0], now + self._pause_s))
