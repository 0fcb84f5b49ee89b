"""One line for every call, written some at a time.  Knows no transport.

A line of its own costs a call 46 us of CPU on a busy core, its share of many 3 us.  A process that is killed loses the
lines of its last tenth of a second; failures have records of their own, at once.
"""

from __future__ import annotations

import asyncio
import logging
import time
from datetime import datetime

PAUSE_S = 0.1
MOST = 10_000

log = logging.getLogger("api.calls")


class CallLog:
    """Notes calls, and writes them within `PAUSE_S`."""

    def __init__(self) -> None:
        self._noted: list[tuple[float, str, str | int, float, str]] = []
        # Whose timer writes what is noted: one that has ended writes nothing any more.
        self._loop: asyncio.AbstractEventLoop | None = None

    def note(self, what: str, outcome: str | int, began_s: float, request_id: str) -> None:
        """Note a call that ends now.  what: its method and what it is about; began_s: by the monotonic clock.

        request_id: empty where nobody was told one.
        """
        now = time.monotonic()
        loop = asyncio.get_running_loop()
        if not self._noted or loop is not self._loop:
            self._loop = loop
            loop.call_later(PAUSE_S, self.write)
        self._noted.append((now, what, outcome, now - began_s, request_id))
        if len(self._noted) >= MOST:
            self.write()

    def write(self) -> None:
        """Write what was noted."""
        noted, self._noted = self._noted, []
        if noted and log.isEnabledFor(logging.INFO):
            epoch, written, lines = time.time() - time.monotonic(), 0.0, list[str]()
            for ended, what, outcome, took_s, request_id in noted:
                second, part = divmod(epoch + ended, 1)
                if second != written:
                    written, when = second, datetime.fromtimestamp(second).isoformat()
                lines.append(
                    f"{when}.{int(1000 * part):03d} {what if what.isprintable() else ascii(what)} {outcome} "
                    f"{1000 * took_s:.1f} ms request={request_id or '-'}"
                )
            log.info("%d calls\n%s", len(lines), "\n".join(lines))


CALLS = CallLog()
