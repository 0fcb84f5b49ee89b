"""When what nobody uses is looked for: four times a day, each server a little differently.  Removes nothing itself."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable

from api.errors import ApiError

EVERY_S = 6 * 3600.0

log = logging.getLogger(__name__)


async def for_ever(sweep: Callable[[], Awaitable[int]], what: str, first_s: float) -> None:
    """Sweep for ever, for the first time after `first_s`.  `sweep` returns how many of `what` it removed."""
    pause_s = first_s
    while True:
        await asyncio.sleep(pause_s * random.uniform(0.9, 1.1))
        pause_s = EVERY_S
        try:
            log.info("%d unused %s removed", await sweep(), what)
        except ApiError as error:
            log.warning("unused %s stay: %s", what, error.message)
