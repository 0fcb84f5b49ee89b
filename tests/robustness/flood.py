"""Clients in a process of their own: callers that ask without end, watchers, and connections that never ask.

python -m tests.robustness.flood '{"role": "callers", "address": …}'    prints `ready`, then what it saw as JSON
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import resource
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import grpc
from google.rpc import error_details_pb2  # type: ignore[import-untyped,unused-ignore]
from grpc_status import rpc_status

from api.gen.michelangelo.platform.v1 import resource_service_pb2 as platform
from api.kinds import kinds
from tests.robustness.killed_server import OPTIONS
from tests.robustness.stores import KIND

READY = "ready"
CALL_S = 30
SMALL, LARGE, TOO_LARGE = 2_000, 1_000_000, 5 * 2**20
# How soon a connection that the server ended is made again.
AGAIN_S = 10.0
# Of connections that ask nothing, every so many never says a word.
EACH_SILENT = 11
SETTINGS, PING, ACKNOWLEDGES = 4, 6, 1
WATCH = "/michelangelo.platform.v1.ResourceService/Watch"


@dataclass
class Seen:
    """What clients saw.  outcomes: codes and reasons; took: seconds of accepted calls; most: connections at once.

    untold: refused, but not until when.
    """

    outcomes: Counter[str] = field(default_factory=Counter)
    took: list[float] = field(default_factory=list)
    untold: int = 0
    events: int = 0
    open: int = 0
    closed: int = 0
    most: int = 0


@dataclass(frozen=True)
class Load:
    """What one process does.  Callers pause up to `pause_s` after each call; large: every 50th sends large bodies."""

    role: str
    host: str
    port: int
    project: str = ""
    token: str = ""
    count: int = 1
    channels: int = 1
    lasts_s: float = 10.0
    pause_s: float = 0.0
    large: bool = False
    ports: tuple[int, ...] = ()
    nice: int = 0

    @property
    def metadata(self) -> tuple[tuple[str, str], ...]:
        """Who calls."""
        return (("authorization", f"Bearer {self.token}"),)


def started(load: Load) -> subprocess.Popen[str]:
    """Start a process of such clients; it waits for a line before it begins."""
    made = subprocess.Popen(
        [sys.executable, "-m", "tests.robustness.flood", json.dumps(load.__dict__)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert made.stdout is not None
    assert made.stdout.readline().strip() == READY
    return made


def go(process: subprocess.Popen[str]) -> None:
    """Let a process begin, or a quiet one end."""
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()


def ended(process: subprocess.Popen[str]) -> Seen:
    """Wait for the end of a process and return what it saw."""
    text, _ = process.communicate(timeout=300)
    assert process.returncode == 0
    found = json.loads(text.splitlines()[-1])
    return Seen(**{**found, "outcomes": Counter(found["outcomes"])})


def call_on(channel: grpc.aio.Channel, verb: str) -> Any:
    described = kinds()[KIND]
    method: Any = described.method(verb)
    return channel.unary_unary(
        f"/{described.service.full_name}/{method.name}",
        request_serializer=lambda message: message.SerializeToString(),
        response_deserializer=method.output_type._concrete_class.FromString,
    ), method.input_type._concrete_class


def size_of(load: Load, number: int, pick: random.Random) -> int:
    if load.large and number % 50 in (0, 1):
        return (LARGE, TOO_LARGE)[number % 50]
    return pick.randrange(SMALL)


async def caller(number: int, channel: grpc.aio.Channel, load: Load, seen: Seen, until: float) -> None:
    """Create and list, half and half; after a refusal ask again as if nothing had been said."""
    pick = random.Random(number)
    create, asked = call_on(channel, "Create")
    listing, listed = call_on(channel, "List")
    count = 0
    while time.monotonic() < until:
        count += 1
        item = kinds()[KIND].new(load.project, f"n{os.getpid()}-{number}-{count}")
        item.spec.description = "x" * size_of(load, number, pick)
        began = time.monotonic()
        try:
            if pick.random() < 0.5:
                await create(asked(model_family=item), metadata=load.metadata, timeout=CALL_S)
            else:
                wanted = listed(namespace=load.project, list_options={"limit": 10})
                await listing(wanted, metadata=load.metadata, timeout=CALL_S)
            seen.outcomes["OK"] += 1
            seen.took.append(time.monotonic() - began)
        except grpc.aio.AioRpcError as error:
            note(seen, error)
        if load.pause_s:
            await asyncio.sleep(pick.uniform(0, load.pause_s))


def note(seen: Seen, error: Any) -> None:
    """Count a refusal, and whether it says when to come again."""
    reason, told = "", False
    status = rpc_status.from_call(error)
    for packed in status.details if status is not None else ():
        info = error_details_pb2.ErrorInfo()
        if packed.Unpack(info):
            reason = info.reason
        told = told or packed.Is(error_details_pb2.RetryInfo.DESCRIPTOR)
    seen.outcomes[f"{error.code().name} {reason}".strip()] += 1
    seen.untold += error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED and reason != "TOO_LARGE" and not told


async def calls(load: Load, seen: Seen) -> None:
    async with contextlib.AsyncExitStack() as stack:
        channels = [
            await stack.enter_async_context(grpc.aio.insecure_channel(f"{load.host}:{load.port}", options=OPTIONS))
            for _ in range(load.channels)
        ]
        await begin()
        until = time.monotonic() + load.lasts_s
        work = (caller(number, channels[number % load.channels], load, seen, until) for number in range(load.count))
        await asyncio.gather(*work)


async def watcher(channel: grpc.aio.Channel, load: Load, seen: Seen) -> None:
    watch: Any = channel.unary_stream(WATCH, None, platform.WatchResponse.FromString)
    asked = platform.WatchRequest(kinds=[KIND], namespaces=[load.project]).SerializeToString()
    while True:
        try:
            async for answer in watch(asked, metadata=load.metadata):
                seen.events += len(answer.events)
        except grpc.aio.AioRpcError as error:
            note(seen, error)
            await asyncio.sleep(1)


async def watches(load: Load, seen: Seen) -> None:
    async with grpc.aio.insecure_channel(f"{load.host}:{load.port}", options=OPTIONS) as channel:
        tasks = [asyncio.create_task(watcher(channel, load, seen)) for _ in range(load.count)]
        await begin()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def idle_grpc(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Hold a connection of HTTP/2 that is set up and asks nothing, until the server ends it."""
    writer.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(SETTINGS))
    while True:
        head = await reader.readexactly(9)
        body = await reader.readexactly(int.from_bytes(head[:3], "big"))
        if head[3] in (SETTINGS, PING) and not head[4]:
            writer.write(frame(head[3], body if head[3] == PING else b"", ACKNOWLEDGES))


async def idle_http(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Hold a connection that was answered once, until the server ends it."""
    writer.write(b"GET /healthz HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n")
    while await reader.read(1000):
        pass


async def silent(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
    """Hold a connection that never says anything, until the server ends it."""
    await reader.read(1)


def frame(kind: int, body: bytes = b"", flags: int = 0) -> bytes:
    return len(body).to_bytes(3, "big") + bytes((kind, flags)) + bytes(4) + body


async def idles(load: Load, seen: Seen) -> None:
    """Hold connections that ask nothing, each made again when the server ends it; some of them were never set up."""
    kinds_of = (idle_grpc, idle_http)

    async def hold(number: int) -> None:
        turn = number % len(load.ports)
        port, wait = load.ports[turn], silent if number % EACH_SILENT == 0 else kinds_of[turn]
        while True:
            try:
                reader, writer = await asyncio.open_connection(load.host, port)
            except OSError:
                await asyncio.sleep(1)
                continue
            seen.open += 1
            seen.most = max(seen.most, seen.open - seen.closed)
            with contextlib.suppress(OSError, EOFError):
                await wait(reader, writer)
            writer.close()
            seen.closed += 1
            await asyncio.sleep(random.uniform(0, AGAIN_S))

    await held([hold(number) for number in range(load.count)])


async def slows(load: Load, seen: Seen) -> None:
    """Send a request's bytes one by one, for ever, and begin anew when the server ends it."""

    async def drip(number: int) -> None:
        while True:
            try:
                reader, writer = await asyncio.open_connection(load.host, load.port)
            except OSError:
                await asyncio.sleep(1)
                continue
            seen.open += 1
            body = b"content-length: 4000\r\n\r\n" if number % 2 else b""
            writer.write(
                b"POST /apis/michelangelo.api/v2/namespaces/%s/model_families HTTP/1.1\r\nhost: 127.0.0.1\r\n"
                b"authorization: Bearer %s\r\ncontent-type: application/json\r\n%s"
                % (load.project.encode(), load.token.encode(), body)
            )
            left = asyncio.create_task(reader.read(1))
            with contextlib.suppress(OSError):
                while not left.done():
                    writer.write(b"x")
                    await writer.drain()
                    await asyncio.wait([left], timeout=1)
            writer.close()
            seen.closed += 1
            await asyncio.sleep(1)

    await held([drip(number) for number in range(load.count)])


async def held(work: list[Any]) -> None:
    tasks = [asyncio.create_task(one) for one in work]
    await begin()
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def begin() -> None:
    """Say that everything is there, and wait for a line."""
    print(READY, flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)


def main(load: Load) -> None:
    """Do what a load says, and print what was seen."""
    if load.nice:
        os.nice(load.nice)
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    seen = Seen()
    roles = {"callers": calls, "watchers": watches, "idle": idles, "slow": slows}
    asyncio.run(roles[load.role](load, seen))
    print(json.dumps(seen.__dict__))


if __name__ == "__main__":
    given = json.loads(sys.argv[1])
    main(Load(**{**given, "ports": tuple(given["ports"])}))
