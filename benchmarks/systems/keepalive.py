"""HTTP over raw sockets that stay open: a client that costs microseconds, so that a server's time is what is seen."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Sequence
from typing import cast

import uvloop

BUFFER = 65536
PATIENCE_S = 30.0
END = b"\r\n\r\n"
LENGTH = b"content-length:"
Headers = Sequence[tuple[str, str]]
FINE = b"HTTP/1.1 20"


class BadAnswer(Exception):
    """A server refused or broke off: its time does not count."""


def post(path: str, body: bytes, headers: Headers = ()) -> bytes:
    """Return the bytes of a request."""
    own = (("Content-Type", "application/json"), ("Content-Length", str(len(body))))
    return _head("POST", path, (*own, *headers)) + body


def get(path: str, headers: Headers = ()) -> bytes:
    """Return the bytes of a request."""
    return _head("GET", path, headers)


def _head(method: str, path: str, headers: Headers) -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "Host: 127.0.0.1", *(f"{name}: {value}" for name, value in headers)]
    return "\r\n".join(lines).encode() + END


class KeptAlive:
    """One connection to a loopback port."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=30)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def close(self) -> None:
        """Close the connection."""
        self._socket.close()

    def ask(self, request: bytes) -> bytes:
        """Send a request and return the answer's body.  Raises BadAnswer."""
        self._socket.sendall(request)
        received = self._socket.recv(BUFFER)
        while (size := whole(received)) is None or len(received) < size:
            more = self._socket.recv(BUFFER)
            if not more:
                raise BadAnswer(f"the server closed the connection after {received[:200]!r}")
            received += more
        if not received.startswith(FINE):
            raise BadAnswer(repr(received[:500]))
        return received.partition(END)[2]


def whole(received: bytes) -> int | None:
    """Return how many bytes the answer has that begins with `received`; None if its head has not arrived."""
    end = received.find(END)
    if end < 0:
        return None
    head = received[:end].lower()
    at = head.find(LENGTH)
    if at < 0:
        raise BadAnswer(f"no Content-Length in {head[:200]!r}")
    return end + len(END) + int(head[at + len(LENGTH) :].split(b"\r\n", 1)[0])


def latencies(connection: KeptAlive, requests: Sequence[bytes], count: int) -> list[float]:
    """Send `count` requests one after another; return the milliseconds of each."""
    found = []
    for number in range(count):
        request = requests[number % len(requests)]
        begun = time.perf_counter_ns()
        connection.ask(request)
        found.append((time.perf_counter_ns() - begun) / 1e6)
    return found


def throughput(port: int, requests: Sequence[bytes], *, connections: int, seconds: float) -> float:
    """Return the answers a second when each of `connections` sends its next request as soon as it has its answer."""
    return uvloop.run(_closed_loop(port, requests, connections, seconds))


async def _closed_loop(port: int, requests: Sequence[bytes], connections: int, seconds: float) -> float:
    loop = asyncio.get_running_loop()
    begun = loop.time()
    made = [
        await loop.create_connection(lambda: _Asker(requests, begun + seconds), "127.0.0.1", port)
        for _ in range(connections)
    ]
    async with asyncio.timeout(seconds + PATIENCE_S):
        counts = await asyncio.gather(*(asker.done for _, asker in made))
    return sum(counts) / (loop.time() - begun)


class _Asker(asyncio.Protocol):
    """One connection of a closed loop; `done` gives the count of its answers."""

    def __init__(self, requests: Sequence[bytes], until_s: float) -> None:
        self._requests = requests
        self._until_s = until_s
        self._loop = asyncio.get_running_loop()
        self._received = b""
        self._count = 0
        self.done: asyncio.Future[int] = self._loop.create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are none of asyncio's classes, but have their methods.
        self._transport = cast(asyncio.Transport, transport)
        self._transport.write(self._requests[0])

    def data_received(self, data: bytes) -> None:
        self._received += data
        size = whole(self._received)
        if size is None or len(self._received) < size:
            return
        if not self._received.startswith(FINE):
            self._finish(BadAnswer(repr(self._received[:500])))
            return
        self._received = b""
        self._count += 1
        if self._loop.time() > self._until_s:
            self._finish(None)
        else:
            self._transport.write(self._requests[self._count % len(self._requests)])

    def connection_lost(self, error: Exception | None) -> None:
        self._finish(error or BadAnswer("the server closed the connection"))

    def _finish(self, error: Exception | None) -> None:
        if not self.done.done():
            if error:
                self.done.set_exception(error)
            else:
                self.done.set_result(self._count)
        self._transport.close()
