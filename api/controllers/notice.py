"""Notice: sends each of its messages until it is accepted or given up.  Writes no text and chooses nobody.

That a try begins is committed before it does, what became of it afterwards: after a crash between the two the message
is sent again with the same id, by which its receiver knows it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from datetime import UTC, timedelta
from typing import Any

from api import failpoints
from api.controllers.conditions import set_condition
from api.controllers.platform import Platform
from api.gen.michelangelo.platform.v1 import notice_pb2 as wire
from api.kinds import Resource
from api.notifications.post_office import LONGEST_PAUSE_S, PostOffice, pause_s
from api.notifications.ways import Undelivered
from api.store.base import Change, Criterion, Key, Operator

UNDER_WAY = (wire.DELIVERY_STATE_WAITING, wire.DELIVERY_STATE_SENDING)
# What is being sent when this process stops is waited for so long.
LAST_S = 2.0
LISTED = 5

log = logging.getLogger(__name__)


class NoticeController:
    """SENDING -> DELIVERED | UNDELIVERABLE."""

    kind = "Notice"

    def __init__(self, platform: Platform, office: PostOffice | None = None) -> None:
        self._resources = platform.resources
        self._now = platform.now
        self._office = office or PostOffice(platform.config.notify)

    @property
    def unsettled(self) -> Criterion:
        """Those of which some message is to be sent."""
        return Criterion("state", Operator.EQUAL, (wire.NOTICE_STATE_SENDING,))

    def settled(self, resource: Resource) -> bool:
        """Whether nothing is to be sent; one without a status is not the platform's."""
        return bool(resource.status.state != wire.NOTICE_STATE_SENDING)

    async def related(self, change: Change) -> Sequence[Key]:
        """Nothing else changes a notice."""
        return ()

    async def reconcile(self, key: Key) -> float | None:
        """Make one try, of the message that has waited longest.  Returns when the next one is due."""
        notice = await self._resources.find(key)
        if notice is None or self.settled(notice):
            return None
        waiting = [
            (self._due_s(delivery), number)
            for number, delivery in enumerate(notice.status.deliveries)
            if delivery.state in UNDER_WAY
        ]
        rests = {number: self._office.rests_s(notice.spec.receivers[number]) for _, number in waiting}
        ready = [(due_s, number) for due_s, number in waiting if due_s <= 0 and not rests[number]]
        if ready:
            await self._try(notice, min(ready)[1])
        elif waiting:
            return min(max(due_s, rests[number]) for due_s, number in waiting)
        return await self._conclude(notice)

    def _due_s(self, delivery: Any) -> float:
        """Return in how many seconds a message is to be sent; one that was never tried waits since ever."""
        if not delivery.HasField("next_attempt"):
            return float("-inf") if not delivery.attempts else 0.0
        return float((delivery.next_attempt.ToDatetime(UTC) - self._now()).total_seconds())

    async def _try(self, notice: Any, number: int) -> None:
        delivery = notice.status.deliveries[number]
        delivery.state = wire.DELIVERY_STATE_SENDING
        delivery.attempts += 1
        delivery.ClearField("next_attempt")
        await self._resources.update_status(notice)
        failpoints.hit("notify.before_send")
        sending = asyncio.ensure_future(self._office.send(notice, notice.spec.receivers[number], delivery.message_id))
        try:
            # What a server has accepted is noted even if this process is to stop.
            await asyncio.shield(sending)
        except asyncio.CancelledError:
            if not await _ends_soon(sending):
                raise
            self._accepted(delivery)
            await self._resources.update_status(notice)
            raise
        except Undelivered as error:
            self._failed(notice, delivery, error)
        else:
            failpoints.hit("notify.after_send")
            self._accepted(delivery)

    def _accepted(self, delivery: Any) -> None:
        delivery.state = wire.DELIVERY_STATE_ACCEPTED
        delivery.end_time.FromDatetime(self._now())
        delivery.ClearField("reason")
        delivery.ClearField("message")

    def _failed(self, notice: Any, delivery: Any, error: Undelivered) -> None:
        delivery.reason, delivery.message = error.reason, error.message
        now = self._now()
        wait_s = error.retry_s or pause_s(delivery.attempts, LONGEST_PAUSE_S, self._office.rng)
        end = notice.metadata.creationTimestamp.ToDatetime(UTC) + timedelta(seconds=self._office.give_up_s)
        if error.for_good or now + timedelta(seconds=wait_s) > end:
            delivery.state = wire.DELIVERY_STATE_DEAD
            delivery.end_time.FromDatetime(now)
            log.warning("notice %s: a message is given up: %s", notice.metadata.name, error.reason)
        else:
            delivery.state = wire.DELIVERY_STATE_WAITING
            delivery.next_attempt.FromDatetime(now + timedelta(seconds=wait_s))

    async def _conclude(self, notice: Any) -> float | None:
        """Write down where the notice stands."""
        status = notice.status
        left = [delivery for delivery in status.deliveries if delivery.state in UNDER_WAY]
        dead = [
            f"{receiver.address}: {delivery.message}"
            for receiver, delivery in zip(notice.spec.receivers, status.deliveries, strict=True)
            if delivery.state == wire.DELIVERY_STATE_DEAD
        ]
        if dead:
            more = f"; and {len(dead) - LISTED} more" if len(dead) > LISTED else ""
            set_condition(notice, "Delivered", False, "GivenUp", "; ".join(dead[:LISTED]) + more)
        elif left:
            failed = next((delivery for delivery in left if delivery.reason), None)
            reason, message = ("Sending", "") if failed is None else (failed.reason, failed.message)
            set_condition(notice, "Delivered", None, reason, message)
        else:
            set_condition(notice, "Delivered", True, "Accepted")
        if not left:
            status.state = wire.NOTICE_STATE_UNDELIVERABLE if dead else wire.NOTICE_STATE_DELIVERED
        await self._resources.update_status(notice)
        return 0.0 if left else None


async def _ends_soon(sending: asyncio.Future[None]) -> bool:
    """Whether what is being sent is accepted in a moment; it is ended otherwise."""
    await asyncio.wait([sending], timeout=LAST_S)
    if not sending.done():
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)
        return False
    return sending.exception() is None
