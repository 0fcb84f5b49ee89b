"""Spreads what would hold the loop for long if it came at once: waits that end, and bytes that are sent.

Whoever is refused costs half a millisecond.  Five hundred callers who were refused together ask again together, and
nobody else is heard for a quarter of a second each time; paced, they spread out.  One large change that twenty watch
is as long a pause for all others if it is sent to all at once.  Knows nothing of what is waited for, or sent.
"""

from __future__ import annotations

import asyncio
import functools

from api.late import Late

# So many waits end together, and so many seconds later the next: the loop looks at what else came in between.
AT_ONCE = 4
PAUSE_S = 0.008

# What is larger than this costs others more than its turn.
LARGE_BYTES = 65_536
LARGE_BYTES_S = 20e6
# Nobody's turn comes later than this: what is more than can be sent at that pace is sent at once then.
LONGEST_TURN_S = 1.0


class Flow:
    """Lets large messages of one event loop go one after the other, so many bytes a second; small ones never wait."""

    def __init__(self, bytes_s: float = LARGE_BYTES_S, large: int = LARGE_BYTES) -> None:
        self._bytes_s = bytes_s
        self._large = large
        self._free = 0.0

    async def turn(self, size: int) -> bool:
        """Return True when a message of so many bytes may be sent."""
        if size > self._large:
            now = asyncio.get_running_loop().time()
            begins = min(max(now, self._free), now + LONGEST_TURN_S)
            self._free = begins + size / self._bytes_s
            await asyncio.sleep(begins - now)
        return True


class Pace:
    """Waits of one event loop."""

    def __init__(self, at_once: int = AT_ONCE, pause_s: float = PAUSE_S) -> None:
        self._late = Late(at_once, pause_s)

    def end(self, wait: asyncio.Future[bool], after_s: float) -> None:
        """Let `wait` be False after some seconds or a little later, unless it is done by then."""
        loop = asyncio.get_running_loop()
        number = self._late.begin(loop, loop.time() + after_s, functools.partial(_end, wait))
        wait.add_done_callback(lambda _: self._late.end(number))

    async def sleep(self, for_s: float) -> None:
        """Return after some seconds or a little later."""
        wait: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self.end(wait, for_s)
        await wait


def _end(wait: asyncio.Future[bool]) -> None:
    if not wait.done():
        wait.set_result(False)
