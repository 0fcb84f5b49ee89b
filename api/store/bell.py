"""Tells coroutines that something was committed.  May be rung from any thread; a ring is never missed."""

from __future__ import annotations

import asyncio
import contextlib
import threading


class Bell:
    """Counts its rings.  A waiter names the count that it saw before it looked."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: set[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = set()
        self.count = 0

    def ring(self) -> None:
        """Wake everybody who waits."""
        with self._lock:
            self.count += 1
            waiting, self._waiting = self._waiting, set()
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
            self._waiting.add(waiter)
        try:
            async with asyncio.timeout(timeout_s):
                await waiter[1].wait()
        except TimeoutError:
            return False
        finally:
            with self._lock:
                self._waiting.discard(waiter)
        return True
