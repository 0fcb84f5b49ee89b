"""Keys to look at: each at most once in the queue and at most once in work; projects take turns.  Knows no kind.

What changed comes before what is looked at from time to time, and never keeps all of that waiting.
Source of the shape: client-go's work queue and its rate limiters.
"""

from __future__ import annotations

import asyncio
import functools
import random
from collections import OrderedDict

from api.controllers.metrics import DEPTH
from api.store.base import Key

FIRST_BACKOFF_S = 0.2
# Half of two polls: what waited for Airflow is up to date by then, slow as it is when it comes back (G8).
LONGEST_BACKOFF_S = 10.0
# After a failure, a change that came meanwhile may have mended it: it is looked at no later than this.
CHANGED_S = 1.0
# All failed keys together: a dependency that is down is asked this often, and a burst after it went.
RETRIES_PER_S = 50.0
RETRY_BURST = 100
# After so many that changed, one is taken that is only looked at from time to time.
SHARE = 7


class Line:
    """Keys that wait, those of a project in order; projects take turns."""

    def __init__(self) -> None:
        self._projects: OrderedDict[str, OrderedDict[Key, None]] = OrderedDict()
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def __contains__(self, key: Key) -> bool:
        return key in self._projects.get(key.namespace, ())

    def add(self, key: Key) -> None:
        """Put a key that does not wait here at the end."""
        self._projects.setdefault(key.namespace, OrderedDict())[key] = None
        self._count += 1

    def remove(self, key: Key) -> None:
        """Take a key out, wherever it stands."""
        mine = self._projects[key.namespace]
        del mine[key]
        if not mine:
            del self._projects[key.namespace]
        self._count -= 1

    def take(self) -> Key:
        """Take the first key of the project whose turn it is."""
        project, mine = next(iter(self._projects.items()))
        key = next(iter(mine))
        self._projects.move_to_end(project)
        self.remove(key)
        return key


class Queue:
    """One kind's keys.  `rng`: spreads the retries."""

    def __init__(self, kind: str = "", rng: random.Random | None = None) -> None:
        self._depth = DEPTH.labels(kind)
        self._rng = rng or random.Random()
        self._changed, self._routine = Line(), Line()
        # How many of `_changed` were taken since one of `_routine` was.
        self._in_a_row = 0
        self._there = asyncio.Semaphore(0)
        self._taken = asyncio.Event()
        self._working: set[Key] = set()
        # Those to be looked at once more, and whether that is routine.
        self._again: dict[Key, bool] = {}
        self._timers: dict[Key, asyncio.TimerHandle] = {}
        self._failures: dict[Key, int] = {}
        self._retried = float("-inf")

    @property
    def busy(self) -> bool:
        """Whether a key waits or is in work."""
        return bool(self._changed or self._routine or self._working)

    def add(self, key: Key, *, routine: bool = False) -> None:
        """Look at `key` now, or once more after the look that is under way.

        routine: nothing is known to have changed, it is looked at when there is time.
        """
        self._cancel_timer(key)
        if key in self._working:
            self._again[key] = routine and self._again.get(key, True)
        elif key in self._changed or (routine and key in self._routine):
            return
        elif key in self._routine:
            self._routine.remove(key)
            self._changed.add(key)
        else:
            (self._routine if routine else self._changed).add(key)
            self._there.release()
        self._depth.set(len(self._changed) + len(self._routine))

    def add_after(self, key: Key, delay_s: float, *, routine: bool = False) -> None:
        """Look at `key` later, unless it is looked at before."""
        loop = asyncio.get_running_loop()
        due = loop.time() + delay_s
        timer = self._timers.get(key)
        if key in self._changed or key in self._routine or (timer is not None and timer.when() <= due):
            return
        self._cancel_timer(key)
        self._timers[key] = loop.call_at(due, functools.partial(self.add, key, routine=routine))

    async def eased(self, most: int) -> None:
        """Return once no more than `most` keys wait that changed."""
        while len(self._changed) > most:
            self._taken.clear()
            await self._taken.wait()

    async def take(self) -> Key:
        """Return the next key, of the project whose turn it is; `done` must follow."""
        await self._there.acquire()
        changed = bool(self._changed) and (self._in_a_row < SHARE or not self._routine)
        self._in_a_row = self._in_a_row + 1 if changed else 0
        key = (self._changed if changed else self._routine).take()
        self._working.add(key)
        self._taken.set()
        self._depth.set(len(self._changed) + len(self._routine))
        return key

    def done(self, key: Key, *, failed: bool) -> None:
        """End the look at `key`.  After a failure it is looked at again, later each time, at a random moment."""
        self._working.discard(key)
        routine = self._again.pop(key, None)
        if failed:
            delay_s = self._backoff_s(key)
            self.add_after(key, delay_s if routine is None else min(delay_s, CHANGED_S))
            return
        self._failures.pop(key, None)
        if routine is not None:
            self.add(key, routine=routine)

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
