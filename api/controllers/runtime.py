"""What drives controllers: the store's watch, queues of keys, one leader.  Knows no kind.

A controller is level-triggered: it is given a key, never an event, and may be called at any time, any number of times.
Source of the shape: controller-runtime's `reconcile.Reconciler`.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import logging
import random
import socket
import time
import uuid
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from api.controllers.leadership import DEPOSED, Clock, Leadership
from api.controllers.metrics import FAILURES, LEADING, RECONCILE, TERMS
from api.controllers.queue import Queue
from api.errors import ApiError, Expired, Unavailable
from api.kinds import Resource, kinds
from api.resources import Resources
from api.store.base import Change, ChangeType, Criterion, Group, Key, Query
from api.store.values import UPDATED_LABEL, key_of

EVERY = "*"
LEASE = "controllers"
LEASE_TTL_S = 15.0
RETRY_S = 2.0
# Each kind has its own: a dependency that hangs keeps nobody waiting who does not need it.
WORKERS = 4
# A look that takes longer hangs.
RECONCILE_S = 120.0
PAGE = 200
# While so many keys of a kind wait, a new leader reads no further: what changes now is not to wait behind what was.
ENOUGH_WAITING = 100
# Who wants to look again sooner waits for something that is about to happen.
ROUTINE_S = 5.0
SWEEP_AGAIN_S = 2.0
PAGED_TRIES = 3

log = logging.getLogger(__name__)


class Controller(Protocol):
    """Makes the world as the specs of `kind` say; EVERY for one that looks at objects of all kinds."""

    kind: str

    @property
    def unsettled(self) -> Criterion | Group | None:
        """Return which objects a new leader has to look at, by index; None for all."""
        ...

    def settled(self, resource: Resource) -> bool:
        """Whether nothing is to be done for an object that stands as it does."""
        ...

    async def reconcile(self, key: Key) -> float | None:
        """Compare and act.  Returns the seconds until it wants to look again, None for when something changes."""
        ...

    async def related(self, change: Change) -> Sequence[Key]:
        """Return the other keys that this controller has to look at because of a change."""
        ...


@runtime_checkable
class Patient(Protocol):
    """A controller whose objects need not all be looked at first by a new leader."""

    def waits(self, resource: Resource) -> bool:
        """Whether all that is to be done for an object was begun: it may be looked at when there is time."""
        ...


@dataclass(frozen=True)
class Term:
    """What acts while this process leads.  `background`: what runs for ever beside the controllers."""

    controllers: Sequence[Controller]
    background: Sequence[Callable[[], Coroutine[Any, Any, None]]] = ()


class Manager:
    """Runs controllers while this process is the leader.

    begin: makes the controllers of one term; all they do, they do through its `Leadership`.  ttl_s: of the lease;
    another process takes over within it and `RETRY_S` after this one stopped or froze.
    """

    def __init__(
        self,
        resources: Resources,
        begin: Callable[[Leadership], Term],
        *,
        ttl_s: float = LEASE_TTL_S,
        holder: str = "",
        clock: Clock = time.monotonic,
        rng: random.Random | None = None,
    ) -> None:
        self._resources = resources
        self._begin = begin
        self._ttl_s = ttl_s
        self._holder = holder or f"{socket.gethostname()}-{uuid.uuid4().hex[:8]}"
        self._clock = clock
        self._rng = rng or random.Random()
        self._queues: dict[str, Queue] = {}
        self.leading = False

    @property
    def busy(self) -> bool:
        """Whether an object is looked at, or waits for it."""
        return any(queue.busy for queue in self._queues.values())

    def wake(self, key: Key) -> None:
        """Look at `key` now: something outside the store changed."""
        if (queue := self._queues.get(key.kind)) is not None:
            queue.add(key)

    async def run(self) -> None:
        """Lead when nobody else does, for ever."""
        while True:
            try:
                await self._lead_once()
            except Exception as error:
                log.error("leadership cannot be taken: %s", error)
            await asyncio.sleep(min(RETRY_S, self._ttl_s / 3))

    async def _lead_once(self) -> None:
        asked = self._clock()
        lease = await self._resources.acquire(LEASE, self._holder, self._ttl_s)
        if lease is None:
            return
        log.info("leading, epoch %d", lease.epoch)
        try:
            await self._lead(Leadership(self._resources, lease, asked, self._clock))
        finally:
            with contextlib.suppress(ApiError):
                await self._resources.release(lease)

    async def _lead(self, leadership: Leadership) -> None:
        term = self._begin(leadership)
        self._queues = {each.kind: Queue(each.kind, self._rng) for each in term.controllers}
        work = [leadership.keep(), self._observe(term.controllers), *(begin() for begin in term.background)]
        work += [self._work(each, leadership) for each in term.controllers for _ in range(WORKERS)]
        tasks = [asyncio.create_task(each) for each in work]
        self.leading = True
        LEADING.set(1)
        TERMS.inc()
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                if error := task.exception():
                    log.error("leadership ends: %s", error)
        finally:
            self.leading = False
            LEADING.set(0)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            for queue in self._queues.values():
                queue.close()
            self._queues = {}

    async def _observe(self, controllers: Sequence[Controller]) -> None:
        """Follow all changes, and meanwhile look at what was there before them."""
        while True:
            since = await self._resources.revision()
            sweep = asyncio.create_task(self._sweep(controllers))
            try:
                await self._follow(controllers, since)
            except Expired:
                log.warning("changes were missed: looking at everything again")
            finally:
                sweep.cancel()
                await asyncio.gather(sweep, return_exceptions=True)

    async def _follow(self, controllers: Sequence[Controller], since: int) -> None:
        wanted = {name for each in controllers for name in _names(each)}
        async for change in self._resources.watch(sorted(wanted), since):
            for each in controllers:
                queue = self._queues[each.kind]
                mine = change.type is not ChangeType.DELETED and each.kind in (EVERY, change.key.kind)
                if mine and not each.settled(change.resource):
                    if is_report(change) and isinstance(each, Patient) and each.waits(change.resource):
                        # It wrote down itself what it saw, and is told of what happens next.
                        queue.add_after(change.key, ROUTINE_S, routine=True)
                    else:
                        queue.add(change.key, routine=is_report(change))
                for key in await each.related(change):
                    queue.add(key)

    async def _sweep(self, controllers: Sequence[Controller]) -> None:
        await asyncio.gather(*(self._sweep_for(each) for each in controllers))

    async def _sweep_for(self, controller: Controller) -> None:
        for kind in _names(controller):
            tries = 0
            while True:
                try:
                    await self._sweep_kind(controller, kind, paged=tries < PAGED_TRIES)
                    break
                except Expired:
                    tries += 1
                except ApiError as error:
                    log.warning("%s objects cannot be read: %s", kind, error.message)
                    await asyncio.sleep(SWEEP_AGAIN_S)

    async def _sweep_kind(self, controller: Controller, kind: str, *, paged: bool) -> None:
        """Queue what is not settled, never much more than is worked off.  Raises Expired when pages changed.

        What may be looked at when there is time is queued so at once, however much it is.
        """
        queue, query = self._queues[controller.kind], Query(where=controller.unsettled, limit=PAGE if paged else 0)
        while True:
            page = await self._resources.list(kind, query)
            for resource in page.items:
                if controller.settled(resource):
                    continue
                routine = isinstance(controller, Patient) and controller.waits(resource)
                if not routine:
                    await queue.eased(ENOUGH_WAITING)
                queue.add(key_of(resource), routine=routine)
            if not page.next:
                return
            query = Query(where=query.where, limit=query.limit, start=page.next)

    async def _work(self, controller: Controller, leadership: Leadership) -> None:
        queue, seconds = self._queues[controller.kind], RECONCILE.labels(controller.kind)
        while True:
            key = await queue.take()
            failed = True
            began = self._clock()
            try:
                leadership.check()
                async with asyncio.timeout(RECONCILE_S):
                    again_s = await controller.reconcile(key)
                failed = False
                if again_s is not None:
                    queue.add_after(key, again_s, routine=again_s >= ROUTINE_S)
            except Exception as error:
                if isinstance(error, ApiError) and error.reason == DEPOSED:
                    raise
                _tell(controller.kind, key, error)
            finally:
                seconds.observe(self._clock() - began)
                queue.done(key, failed=failed)


def is_report(change: Change) -> bool:
    """Whether nothing is asked for: a controller wrote down what it saw."""
    new, old = change.resource, change.previous
    if old is None or new.spec != old.spec or new.metadata.HasField("deletionTimestamp"):
        return False
    before, after = copy.deepcopy(old.metadata), copy.deepcopy(new.metadata)
    for metadata in (before, after):
        metadata.resourceVersion = ""
        metadata.labels.pop(UPDATED_LABEL, None)
        del metadata.finalizers[:]
    return bool(before == after)


def _names(controller: Controller) -> Sequence[str]:
    return tuple(kinds()) if controller.kind == EVERY else (controller.kind,)


def _tell(kind: str, key: Key, error: Exception) -> None:
    FAILURES.labels(kind, error.code if isinstance(error, ApiError) else type(error).__name__).inc()
    if isinstance(error, Unavailable):
        log.info("%s waits: %s", key, error.message)
    elif isinstance(error, TimeoutError):
        log.warning("%s: no end after %d s", key, RECONCILE_S)
    elif isinstance(error, ApiError):
        log.warning("%s: %s", key, error.message)
    else:
        log.error("reconciling %s failed", key, exc_info=error)
