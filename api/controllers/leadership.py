"""One term as leader: how long it lasts, and what may be done in it.  Decides nothing about objects.

A lease alone does not keep a paused process from acting when it goes on (`guarantees.md` finding 4).  So every write of
a term carries its epoch, which the store compares in the same transaction, and no other part is called once the term is
over by this process's own monotonic clock.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Any, TypeVar, cast

from api.errors import ApiError
from api.resources import Resources
from api.store.base import Lease, deposed

DEPOSED = "DEPOSED"
# A term ends this part of its lease before the lease does.
MARGIN = 0.2
RENEWALS = 3

T = TypeVar("T")
Clock = Callable[[], float]

log = logging.getLogger(__name__)


class Leadership:
    """A term.  `resources` are written only while nobody else leads: writes raise Conflict (DEPOSED) afterwards.

    asked: when the lease was asked for, by `clock` in seconds; the store's own time of expiry is later.
    """

    def __init__(self, resources: Resources, lease: Lease, asked: float, clock: Clock = time.monotonic) -> None:
        self.lease = lease
        self.resources = resources.fenced(lease)
        self._clock = clock
        self._until = asked + lease.ttl_s * (1 - MARGIN)

    @property
    def left_s(self) -> float:
        """Seconds that are left of the term unless the lease is renewed; not positive once it is over."""
        return self._until - self._clock()

    def check(self) -> None:
        """Return while the term lasts.  Raises Conflict (DEPOSED)."""
        if self.left_s <= 0:
            raise deposed(self.lease)

    def guard(self, part: T) -> T:
        """Return `part`, each of whose methods is reached only while the term lasts."""
        return cast("T", _Guarded(part, self.check))

    async def keep(self) -> None:
        """Renew the lease, until another leads or it cannot be renewed in time."""
        pause_s = self.lease.ttl_s / RENEWALS
        while True:
            await asyncio.sleep(pause_s)
            while (left_s := self.left_s) > 0:
                try:
                    async with asyncio.timeout(left_s):
                        renewed = await self._renewed()
                except TimeoutError:
                    break
                except ApiError as error:
                    log.warning("the lease is not renewed: %s", error.message)
                    await asyncio.sleep(min(pause_s / RENEWALS, left_s))
                    continue
                if not renewed:
                    log.warning("another process leads since epoch %d ended", self.lease.epoch)
                    return
                break
            if self.left_s <= 0:
                log.warning("the lease of epoch %d was not renewed in time", self.lease.epoch)
                return

    async def _renewed(self) -> bool:
        asked = self._clock()
        lease = await self.resources.acquire(self.lease.name, self.lease.holder, self.lease.ttl_s)
        if lease is None or lease.epoch != self.lease.epoch:
            return False
        self._until = asked + lease.ttl_s * (1 - MARGIN)
        return True


class _Guarded:
    """Stands before a part and asks `check` each time that one of its methods is looked up."""

    def __init__(self, part: Any, check: Callable[[], None]) -> None:
        self._part = part
        self._check = check

    def __getattr__(self, name: str) -> Any:
        self._check()
        return getattr(self._part, name)
