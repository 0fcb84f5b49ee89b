"""Removes notices a month after they ended, and those that the platform did not write.  The leader runs it."""

from __future__ import annotations

import asyncio
import logging
import random
from datetime import UTC, datetime, timedelta

from api.errors import ApiError, Conflict, NotFound
from api.gen.michelangelo.platform.v1 import notice_pb2 as wire
from api.resources import Resources
from api.store.base import Criterion, Group, Operator, Query

KEPT = timedelta(days=30)
FIRST_S = 300.0
EVERY_S = 6 * 3600.0
MOST_AT_ONCE = 1000

log = logging.getLogger(__name__)


class Keeping:
    """Looks four times a day."""

    def __init__(self, resources: Resources) -> None:
        self._resources = resources

    async def run(self) -> None:
        """Remove what is old, for ever."""
        again_s = FIRST_S
        while True:
            await asyncio.sleep(again_s * random.uniform(0.9, 1.1))
            again_s = EVERY_S
            try:
                removed = await self.sweep(datetime.now(UTC))
                again_s = 1.0 if removed == MOST_AT_ONCE else EVERY_S
            except ApiError as error:
                if isinstance(error, Conflict) and error.reason == "DEPOSED":
                    raise
                log.warning("old notices stay: %s", error.message)

    async def sweep(self, now: datetime) -> int:
        """Remove at most a thousand; returns how many."""
        old = (
            Criterion("state", Operator.NOT_EQUAL, (wire.NOTICE_STATE_SENDING,)),
            Criterion("metadata.update_timestamp", Operator.LESS_THAN, (int((now - KEPT).timestamp() * 1_000_000),)),
        )
        found = (await self._resources.list("Notice", Query(where=Group(old), limit=MOST_AT_ONCE))).items
        for notice in found:
            try:
                await self._resources.delete("Notice", notice.metadata.namespace, notice.metadata.name)
            except NotFound:
                continue
        return len(found)
