"""The open connections: times out what is slow, closes what is idle, drains all at the end.  Reads no request."""

from __future__ import annotations

import asyncio
import time
from typing import Protocol

LOOK_S = 5.0
REQUEST_S = 30.0
IDLE_LOOKS = 24
LINGER_S = 0.2


class Client(Protocol):
    """What is asked of a connection."""

    unfinished_since_s: float
    requests: int

    @property
    def unfinished(self) -> bool:
        """Whether a request is on its way."""
        ...

    @property
    def idle(self) -> bool:
        """Whether closing it loses nothing."""
        ...

    def close(self) -> None:
        """Close it."""
        ...

    def abort(self) -> None:
        """Close it without waiting for the client."""
        ...

    def time_out(self) -> None:
        """Refuse what has not arrived."""
        ...


class Connections:
    """A connection has `request_s` for each request and two minutes without one."""

    def __init__(self, *, request_s: float = REQUEST_S, look_s: float = LOOK_S) -> None:
        self.draining = False
        self._open: dict[Client, tuple[int, int]] = {}
        self._request_s = request_s
        self._look_s = look_s
        self._timer: asyncio.TimerHandle | None = None

    def add(self, client: Client) -> None:
        """Watch a connection."""
        self._open[client] = (0, 0)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self._look_s, self._look)

    def discard(self, client: Client) -> None:
        """Forget one that was closed."""
        self._open.pop(client, None)

    async def drain(self, *, grace_s: float) -> None:
        """Let every request that has arrived be answered, then close."""
        self.draining = True
        deadline = time.monotonic() + grace_s
        await asyncio.sleep(LINGER_S)
        while self._open and time.monotonic() < deadline:
            for client in [client for client in self._open if client.idle]:
                client.close()
            await asyncio.sleep(0.01)
        for client in list(self._open):
            client.abort()
        if self._timer is not None:
            self._timer.cancel()

    def _look(self) -> None:
        """One timer for all: a timer for each would wake an idle server all the time."""
        self._timer = None
        now = time.monotonic()
        for client, (requests, looks) in list(self._open.items()):
            if client.unfinished:
                if now - client.unfinished_since_s > self._request_s:
                    client.time_out()
            elif client.idle and client.requests == requests and looks >= IDLE_LOOKS:
                client.abort()
            else:
                self._open[client] = (client.requests, looks + 1 if client.requests == requests else 0)
        if self._open:
            self._timer = asyncio.get_running_loop().call_later(self._look_s, self._look)
