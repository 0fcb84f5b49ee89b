"""Forgets events whose time is over.  What waits for others in a subscription is then no longer waited with."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable

from api.broker.deliveries import is_over
from api.errors import ApiError, Conflict, NotFound
from api.resources import Resources
from api.store.base import Criterion, Group, Operator, Preconditions, Query
from api.subscriptions.values import DEFAULT_TTL

LOOK_S = 300.0
PAGE = 500
# What is left of more is forgotten at the next look.
MOST_PAGES = 20
US = 1_000_000

log = logging.getLogger(__name__)


class EventRetention:
    """Looks every few minutes.  `clock`: seconds since 1970."""

    def __init__(self, resources: Resources, clock: Callable[[], float] = time.time) -> None:
        self._resources = resources
        self._clock = clock

    async def run(self) -> None:
        """Forget, for ever."""
        while True:
            try:
                await self.look()
            except ApiError as error:
                if is_over(error):
                    raise
                log.warning("old events are not forgotten now: %s", error.message)
            await asyncio.sleep(LOOK_S)

    async def look(self) -> int:
        """Delete what is due; returns how many events that were."""
        now_us = int(self._clock() * US)
        over = Criterion("expire_time", Operator.LESS_THAN, (now_us,))
        unsaid = Criterion("expire_time", Operator.IS_NULL)
        old = Criterion(
            "metadata.creation_timestamp", Operator.LESS_THAN, (now_us - int(DEFAULT_TTL.total_seconds()) * US,)
        )
        query = Query(where=Group((over, Group((unsaid, old))), any=True), limit=PAGE)
        count = 0
        for _ in range(MOST_PAGES):
            items = (await self._resources.list("Event", query)).items
            for item in items:
                same = Preconditions(uid=item.metadata.uid)
                with contextlib.suppress(NotFound):
                    try:
                        await self._resources.delete(
                            "Event", item.metadata.namespace, item.metadata.name, preconditions=same
                        )
                    except Conflict as error:
                        if is_over(error):
                            raise
                count += 1
            if len(items) < PAGE:
                break
        return count
