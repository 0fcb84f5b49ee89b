"""A TCP proxy on loopback that does to connections what networks do.  Knows no protocol.

Faults: latency, cut after n bytes of the answer, reset, black hole, half open, garbage.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import struct
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

PIECE = 65_536


@dataclass(frozen=True)
class Fault:
    """What happens to a new connection.

    latency_s: before each piece, both ways; cut_after: bytes of the answer that still arrive; reset: it is cut by RST
    instead of FIN; blackhole: nothing is passed on, nothing is closed; half_open: requests arrive, answers do not;
    garbage: answers arrive as random bytes.
    """

    latency_s: float = 0.0
    cut_after: int | None = None
    reset: bool = False
    blackhole: bool = False
    half_open: bool = False
    garbage: bool = False


GOOD = Fault()


class Proxy:
    """Listens on a port of its own and passes on to `target` of 127.0.0.1.  Use as a context manager.

    choose: gives the fault of each new connection; cuts: how many connections ended by a fault.
    """

    def __init__(self, target: int, choose: Callable[[], Fault] = lambda: GOOD, *, seed: int = 0) -> None:
        self.target = target
        self.choose = choose
        self.cuts = 0
        self._pick = random.Random(seed)
        self._open: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)
        self.port = 0

    def __enter__(self) -> Proxy:
        self._thread.start()
        self.port = asyncio.run_coroutine_threadsafe(self._start(), self._loop).result(10)
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    @property
    def address(self) -> str:
        """Return host:port."""
        return f"127.0.0.1:{self.port}"

    def cut_all(self) -> None:
        """Reset every open connection."""
        asyncio.run_coroutine_threadsafe(self._cut_all(), self._loop).result(10)

    async def _cut_all(self) -> None:
        for writer in list(self._open):
            _reset(writer)

    async def _start(self) -> int:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    async def _stop(self) -> None:
        self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for writer in list(self._open):
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self._open.add(writer)
        try:
            fault = self.choose()
            if fault.blackhole:
                await reader.read(-1)
                return
            try:
                far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self.target)
            except OSError:
                _reset(writer)
                return
            self._open.add(far_writer)
            try:
                await self._pass_on(fault, reader, writer, far_reader, far_writer)
            finally:
                self._open.discard(far_writer)
                far_writer.transport.abort()
        except asyncio.CancelledError:
            # The proxy stops: a task of asyncio.start_server that ends cancelled would be reported as an error.
            return
        finally:
            self._tasks.discard(task)
            self._open.discard(writer)
            if not writer.is_closing():
                writer.close()

    async def _pass_on(
        self,
        fault: Fault,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        far_reader: asyncio.StreamReader,
        far_writer: asyncio.StreamWriter,
    ) -> None:
        ways = [
            asyncio.create_task(self._requests(fault, reader, far_writer)),
            asyncio.create_task(self._answers(fault, far_reader, writer)),
        ]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)

    async def _requests(self, fault: Fault, reader: asyncio.StreamReader, far: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while piece := await reader.read(PIECE):
                if fault.latency_s:
                    await asyncio.sleep(fault.latency_s)
                far.write(piece)
                await far.drain()

    async def _answers(self, fault: Fault, far: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        left = fault.cut_after
        with contextlib.suppress(OSError):
            while piece := await far.read(PIECE):
                if fault.latency_s:
                    await asyncio.sleep(fault.latency_s)
                if fault.half_open:
                    continue
                if left is not None and len(piece) >= left:
                    writer.write(piece[:left])
                    await writer.drain()
                    self.cuts += 1
                    if fault.reset:
                        _reset(writer)
                    return
                left = None if left is None else left - len(piece)
                writer.write(self._pick.randbytes(len(piece)) if fault.garbage else piece)
                await writer.drain()


def _reset(writer: asyncio.StreamWriter) -> None:
    """End a connection by RST: a zero linger throws away what was not sent."""
    sock: socket.socket | None = writer.get_extra_info("socket")
    if sock is not None:
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
