"""Keys to look at: each at most once in the queue and at most once in work; projects take turns.  Knows no kind.

Source of the shape: client-go's work queue and its rate limiters.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque

from api.controllers.metrics import DEPTH
from api.store.base import Key

FIRST_BACKOFF_S = 0.2
# Shorter than two polls: what waited for Airflow is up to date as soon after it is back (`guarantees.md` G8).
LONGEST_BACKOFF_S = 15.0
# After a failure, a change that came meanwhile may have mended it: it is looked at no later than this.
CHANGED_S = 1.0
# All failed keys together: a dependency that is down is asked this often, and a burst after it went.
RETRIES_PER_S = 50.0
RETRY_BURST = 100


class Queue:
    """One kind's keys.  `rng`: spreads the retries."""

    def __init__(self, kind: str = "", rng: random.Random | None = None) -> None:
        self._depth = DEPTH.labels(kind)
        self._rng = rng or random.Random()
        self._lines: dict[str, deque[Key]] = {}
        self._there = asyncio.Semaphore(0)
        self._taken = asyncio.Event()
        self._waiting: set[Key] = set()
        self._working: set[Key] = set()
        self._again: set[Key] = set()
        self._timers: dict[Key, asyncio.TimerHandle] = {}
        self._failures: dict[Key, int] = {}
        self._retried = float("-inf")

    @property
    def busy(self) -> bool:
        """Whether a key waits or is in work."""
        return bool(self._waiting or self._working)

    def add(self, key: Key) -> None:
        """Look at `key` now, or once more after the look that is under way."""
        self._cancel_timer(key)
        if key in self._working:
            self._again.add(key)
        elif key not in self._waiting:
            self._waiting.add(key)
            self._lines.setdefault(key.namespace, deque()).append(key)
            self._depth.set(len(self._waiting))
            self._there.release()

    def add_after(self, key: Key, delay_s: float) -> None:
        """Look at `key` later, unless it is looked at before."""
        loop = asyncio.get_running_loop()
        due = loop.time() + delay_s
        timer = self._timers.get(key)
        if key in self._waiting or (timer is not None and timer.when() <= due):
            return
        self._cancel_timer(key)
        self._timers[key] = loop.call_at(due, self.add, key)

    async def eased(self, most: int) -> None:
        """Return once no more than `most` keys wait."""
        while len(self._waiting) > most:
            self._taken.clear()
            await self._taken.wait()

    async def take(self) -> Key:
        """Return the next key, of the project whose turn it is; `done` must follow."""
        await self._there.acquire()
        project = next(iter(self._lines))
        line = self._lines.pop(project)
        key = line.popleft()
        if line:
            self._lines[project] = line
        self._waiting.discard(key)
        self._working.add(key)
        self._taken.set()
        self._depth.set(len(self._waiting))
        return key

    def done(self, key: Key, *, failed: bool) -> None:
        """End the look at `key`.  After a failure it is looked at again, later each time, at a random moment."""
        self._working.discard(key)
        changed = key in self._again
        self._again.discard(key)
        if failed:
            delay_s = self._backoff_s(key)
            self.add_after(key, min(delay_s, CHANGED_S) if changed else delay_s)
            return
        self._failures.pop(key, None)
        if changed:
            self.add(key)

    def close(self) -> None:
        """Forget everything that is planned."""
        for key in list(self._timers):
            self._cancel_timer(key)
        self._depth.set(0)

    def _backoff_s(self, key: Key) -> float:
        failures = self._failures[key] = self._failures.get(key, 0) + 1
        longest = min(FIRST_BACKOFF_S * 2 ** min(failures - 1, 16), LONGEST_BACKOFF_S)
        now = asyncio.get_running_loop().time()
        self._retried = max(self._retried, now - RETRY_BURST / RETRIES_PER_S) + 1 / RETRIES_PER_S
        return max(self._rng.uniform(longest / 2, longest), self._retried - now)

    def _cancel_timer(self, key: Key) -> None:
        timer = self._timers.pop(key, None)
        if timer is not None:
            timer.cancel()
