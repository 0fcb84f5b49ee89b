"""Sends messages and knows which servers rest: one that fails is asked again later, by whoever waits for it.

Bounded: a try takes at most `TRY_S`, and no server has more than two at once, so that one that hangs holds up only
those who wait for it.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from api.gen.michelangelo.api.v2 import notification_pb2
from api.notifications.mail import Mail
from api.notifications.slack import Slack
from api.notifications.ways import TRIES, Undelivered, Way
from api.notify_settings import NotifySettings

Wire = notification_pb2.Notification
# A look at an object takes at most 120 s.
TRY_S = 100.0
# Of the time for an answer: how long a try may take, with the answer that accepts the message.
ANSWERS = 10
AT_ONCE = 2
BUSY_S = 0.5
FIRST_PAUSE_S = 2.0
LONGEST_PAUSE_S = 3600.0
LONGEST_REST_S = 60.0


def pause_s(tries: int, longest_s: float, rng: random.Random) -> float:
    """Return how long to wait after so many tries that failed: twice as long each time, at a random moment."""
    return min(FIRST_PAUSE_S * 2.0 ** min(tries - 1, 20), longest_s) * rng.uniform(0.75, 1.0)


class PostOffice:
    """Sends by the ways of the settings."""

    def __init__(
        self,
        settings: NotifySettings,
        *,
        ways: Mapping[int, Way] | None = None,
        clock: Callable[[], float] = time.monotonic,
        rng: random.Random | None = None,
    ) -> None:
        self._ways = ways or {
            Wire.NOTIFICATION_TYPE_EMAIL: Mail(settings),
            Wire.NOTIFICATION_TYPE_SLACK: Slack(settings),
        }
        self._try_s = min(ANSWERS * settings.step_s, TRY_S)
        self.give_up_s = settings.give_up_s
        self._clock = clock
        self.rng = rng or random.Random()
        self._busy: Counter[str] = Counter()
        self._failed: Counter[str] = Counter()
        self._rests_until: dict[str, float] = {}

    def rests_s(self, receiver: Any) -> float:
        """Return how long to wait until a receiver's server may be asked, 0 for now."""
        server = self._server(receiver)
        left = self._rests_until.get(server, 0.0) - self._clock()
        if left > 0:
            return left + self.rng.uniform(0.0, 1.0)
        return BUSY_S if self._busy[server] >= AT_ONCE else 0.0

    def _server(self, receiver: Any) -> str:
        return self._ways[receiver.type].server(receiver.address)

    async def send(self, notice: Any, receiver: Any, message_id: str) -> None:
        """Send one message.  Raises Undelivered."""
        way, server = self._ways[receiver.type], self._server(receiver)
        self._busy[server] += 1
        try:
            async with asyncio.timeout(self._try_s):
                await way.send(notice, receiver.address, message_id)
        except TimeoutError:
            told = f"no answer within {self._try_s:g} s"
            self._rest(way, server, failed := Undelivered("NoAnswer", told, all_of_them=True))
            raise failed from None
        except Undelivered as error:
            self._rest(way, server, error)
            raise
        else:
            TRIES.labels(way.name, "accepted").inc()
            self._failed.pop(server, None)
        finally:
            self._busy[server] -= 1

    def _rest(self, way: Way, server: str, error: Undelivered) -> None:
        TRIES.labels(way.name, "refused" if error.for_good else "failed").inc()
        if not error.all_of_them:
            return
        self._failed[server] += 1
        rest_s = error.retry_s or pause_s(self._failed[server], LONGEST_REST_S, self.rng)
        self._rests_until[server] = self._clock() + rest_s
