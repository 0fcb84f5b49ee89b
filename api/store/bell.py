"""Tells coroutines that something was committed.  May be rung from any thread; a ring is never missed."""

from __future__ import annotations

import asyncio
import contextlib
import threading


class Bell:
    """Counts its rings.  A waiter names the count that it saw before it looked."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        # In the order in which they came: who is woken first does not hang on addresses in memory.
        self._waiting: dict[tuple[asyncio.AbstractEventLoop, asyncio.Event], None] = {}
        self.count = 0

    def ring(self) -> None:
        """Wake everybody who waits."""
        with self._lock:
            self.count += 1
            waiting, self._waiting = self._waiting, {}
        for loop, event in waiting:
            # A loop that is closed has nobody who waits.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(event.set)

    async def after(self, count: int, timeout_s: float) -> bool:
        """Return when it has rung since `count` (true), or a time has passed (false)."""
        waiter = (asyncio.get_running_loop(), asyncio.Event())
        with self._lock:
            if self.count != count:
                return True
            self._waiting[waiter] = None
        try:
            async with asyncio.timeout(timeout_s):
                await waiter[1].wait()
        except TimeoutError:
            return False
        finally:
            with self._lock:
                self._waiting.pop(waiter, None)
        return True
