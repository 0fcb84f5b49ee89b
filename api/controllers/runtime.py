"""What drives controllers: the store's watch, a queue of keys, one leader.  Knows no kind.

A controller is level-triggered: it is given a key, never an event, and may be called at any time, any number of times.
Source of the shape: controller-runtime's `reconcile.Reconciler` and client-go's work queue.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import socket
import uuid
from collections.abc import Mapping, Sequence
from typing import Protocol

from api.errors import ApiError, Expired, Unavailable
from api.resources import Resources
from api.store.base import ChangeType, Key
from api.store.values import key_of

FIRST_BACKOFF_S = 0.2
LONGEST_BACKOFF_S = 30.0
LEASE = "controllers"
LEASE_TTL_S = 15.0
RENEW_S = 5.0
RETRY_S = 2.0
WORKERS = 8

log = logging.getLogger(__name__)


class Controller(Protocol):
    """Makes the world as one kind's specs say."""

    kind: str

    async def reconcile(self, key: Key) -> float | None:
        """Compare and act.  Returns the seconds until it wants to look again, None for when something changes."""
        ...

    async def related(self, key: Key) -> Sequence[Key]:
        """Return the keys of this controller's kind to look at because the object at `key` changed."""
        ...


class Queue:
    """Keys to look at: each at most once in the queue and at most once in work."""

    def __init__(self) -> None:
        self._ready: asyncio.Queue[Key] = asyncio.Queue()
        self._waiting: set[Key] = set()
        self._working: set[Key] = set()
        self._again: set[Key] = set()
        self._timers: dict[Key, asyncio.TimerHandle] = {}
        self._failures: dict[Key, int] = {}

    def add(self, key: Key) -> None:
        """Look at `key` now, or once more after the look that is under way."""
        self._cancel_timer(key)
        if key in self._working:
            self._again.add(key)
        elif key not in self._waiting:
            self._waiting.add(key)
            self._ready.put_nowait(key)

    def add_after(self, key: Key, delay_s: float) -> None:
        """Look at `key` later, unless it is looked at before."""
        loop = asyncio.get_running_loop()
        due = loop.time() + delay_s
        timer = self._timers.get(key)
        if key in self._waiting or (timer is not None and timer.when() <= due):
            return
        self._cancel_timer(key)
        self._timers[key] = loop.call_at(due, self.add, key)

    async def take(self) -> Key:
        """Return the next key; `done` must follow."""
        key = await self._ready.get()
        self._waiting.discard(key)
        self._working.add(key)
        return key

    def done(self, key: Key, *, failed: bool) -> None:
        """End the look at `key`.  After a failure it is looked at again, later each time, at a random moment."""
        self._working.discard(key)
        if failed:
            self._failures[key] = self._failures.get(key, 0) + 1
            longest = min(FIRST_BACKOFF_S * 2 ** (self._failures[key] - 1), LONGEST_BACKOFF_S)
            self.add_after(key, random.uniform(longest / 2, longest))
        else:
            self._failures.pop(key, None)
        if key in self._again:
            self._again.discard(key)
            self.add(key)

    def close(self) -> None:
        """Forget everything that is planned."""
        for key in list(self._timers):
            self._cancel_timer(key)

    def _cancel_timer(self, key: Key) -> None:
        timer = self._timers.pop(key, None)
        if timer is not None:
            timer.cancel()


class Manager:
    """Runs controllers while this process is the leader."""

    def __init__(self, resources: Resources, controllers: Sequence[Controller], *, lease_ttl_s: float = LEASE_TTL_S):
        self._resources = resources
        self._controllers: Mapping[str, Controller] = {controller.kind: controller for controller in controllers}
        self._ttl_s = lease_ttl_s
        self._holder = f"{socket.gethostname()}-{uuid.uuid4().hex[:8]}"
        self._queue: Queue | None = None
        self.leading = False

    def wake(self, key: Key) -> None:
        """Look at `key` now: something outside the store changed."""
        if self._queue is not None:
            self._queue.add(key)

    async def run(self) -> None:
        """Lead when nobody else does, for ever."""
        while True:
            try:
                await self._lead_once()
            except Exception as error:
                log.error("leadership cannot be taken: %s", error)
            await asyncio.sleep(min(RETRY_S, self._ttl_s / 3))

    async def _lead_once(self) -> None:
        lease = await self._resources.acquire(LEASE, self._holder, self._ttl_s)
        if lease is None:
            return
        log.info("leading, epoch %d", lease.epoch)
        try:
            await self._lead()
        finally:
            self.leading = False
            with contextlib.suppress(ApiError):
                await self._resources.release(lease)

    async def _lead(self) -> None:
        self._queue = Queue()
        tasks = [asyncio.create_task(self._renew()), asyncio.create_task(self._watch(self._queue))]
        tasks += [asyncio.create_task(self._work(self._queue)) for _ in range(WORKERS)]
        self.leading = True
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                if error := task.exception():
                    log.error("leadership ends: %s", error)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self._queue.close()
            self._queue = None

    async def _renew(self) -> None:
        while True:
            lease = await self._resources.acquire(LEASE, self._holder, self._ttl_s)
            if lease is None:
                break
            await asyncio.sleep(min(RENEW_S, self._ttl_s / 3))
        log.warning("another process leads now")

    async def _watch(self, queue: Queue) -> None:
        while True:
            since = await self._resources.revision()
            for kind in self._controllers:
                for resource in (await self._resources.list(kind)).items:
                    queue.add(key_of(resource))
            try:
                async for change in self._resources.watch(None, since):
                    if change.key.kind in self._controllers and change.type is not ChangeType.DELETED:
                        queue.add(change.key)
                    for controller in self._controllers.values():
                        for key in await controller.related(change.key):
                            queue.add(key)
            except Expired:
                log.warning("changes were missed: looking at everything again")

    async def _work(self, queue: Queue) -> None:
        while True:
            key = await queue.take()
            failed = False
            try:
                again_s = await self._controllers[key.kind].reconcile(key)
                if again_s is not None:
                    queue.add_after(key, again_s)
            except Unavailable as error:
                failed = True
                log.info("%s waits: %s", key, error.message)
            except ApiError as error:
                failed = True
                log.warning("%s: %s", key, error.message)
            except Exception:
                failed = True
                log.exception("reconciling %s failed", key)
            finally:
                queue.done(key, failed=failed)
