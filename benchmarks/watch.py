"""What watching costs: many watchers of one project, each sent every change, over HTTP as lines of JSON.

Ours: `python -m api.server` over SQLite; ten users with 50 watches each, all of model families.
Peer: none that does the same; the goals are deliveries a second, and the time from asking for a create to its delivery
to the last of all watchers.
Command: `python -m benchmarks watch [--watchers 500]`

The server has one core; writer and watchers share the other.
"""

from __future__ import annotations

import asyncio
import functools
import itertools
import json
import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import cast

import uvloop

from benchmarks.measuring.figures import Figure, Goal, percentile
from benchmarks.measuring.results import Measured
from benchmarks.systems import control_planes, store_fill
from benchmarks.systems.control_planes import Keeping
from benchmarks.systems.keepalive import get, post
from benchmarks.systems.processes import on_core
from benchmarks.systems.servers import CLIENT_CORE
from benchmarks.systems.sides import AUTH, FAMILIES, PROJECT
from benchmarks.workbench import Workbench

TITLE = "A watch with many watchers"
PEER = "none"
ROUNDS = 5
USERS = 10
# Nobody has more than a few calls at once while others call: those who watch write, too.
BURST, AT_ONCE = 400, 16
STEADY, STEADY_PER_S = 100, 20
PATIENCE_S = 120.0
ADDED = b'"type":"ADDED"'


@dataclass(frozen=True)
class Round:
    """deliveries_per_s: of a burst; p50_ms, p99_ms: from asking for a create until the last watcher has it."""

    deliveries_per_s: float
    p50_ms: float
    p99_ms: float


def measure(bench: Workbench) -> Measured:
    """Return the figures."""
    home, tokens = bench.new_home(), [secrets.token_urlsafe(24) for _ in range(USERS)]
    store_fill.fill(home, PROJECT, 0)
    store_fill.let_in(home, PROJECT, tokens)
    with control_planes.ours(home, tokens_file=home / "tokens.json") as server, on_core(CLIENT_CORE):
        found = [uvloop.run(_round(server, tokens, bench.watchers)) for _ in range(bench.rounds_or(ROUNDS))]
    per_s, p50, p99 = (tuple(getattr(one, name) for one in found) for name in ("deliveries_per_s", "p50_ms", "p99_ms"))
    return Measured(
        [
            Figure(
                f"deliveries to {bench.watchers} watchers", "/s", per_s, better="higher", goal=Goal("least", 50_000)
            ),
            Figure("create asked for until all have it, p50", "ms", p50),
            Figure("create asked for until all have it, p99", "ms", p99, goal=Goal("most", 20)),
        ],
        [
            f"A round is {BURST} creates, {AT_ONCE} at once by {USERS} users, for the deliveries; then {STEADY} at "
            f"{STEADY_PER_S} a second for the times.",
        ],
    )


@dataclass
class Seen:
    """How many of the watchers have each event, and what waits for the last one."""

    watchers: int
    counts: list[int] = field(default_factory=list)
    done: dict[int, float] = field(default_factory=dict)
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def add(self, first: int, many: int, now: float) -> None:
        """One watcher has events `first` to `first + many`."""
        self.counts.extend([0] * (first + many - len(self.counts)))
        for number in range(first, first + many):
            self.counts[number] += 1
            if self.counts[number] == self.watchers:
                self.done[number] = now
                self.changed.set()

    async def all_have(self, events: int) -> float:
        """Return when the last watcher had the last of `events`."""
        while len(self.done) < events:
            self.changed.clear()
            await asyncio.wait_for(self.changed.wait(), PATIENCE_S)
        return max(self.done.values())


class Watcher(asyncio.Protocol):
    """One connection that counts events."""

    def __init__(self, request: bytes, seen: Seen, clock: Callable[[], float]) -> None:
        self._request, self._seen, self._clock = request, seen, clock
        self._count = 0
        self._tail = b""
        self.ready = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask for the watch."""
        cast(asyncio.Transport, transport).write(self._request)

    def data_received(self, data: bytes) -> None:
        """Count what begins in these bytes, also across two pieces."""
        if not self.ready.is_set():
            if b" 200 " not in data[:16]:
                raise ValueError(f"the watch was refused: {data[:300]!r}")
            self.ready.set()
        found = (self._tail + data).count(ADDED)
        self._tail = data[-len(ADDED) + 1 :]
        if found:
            self._seen.add(self._count, found, self._clock())
            self._count += found


async def _round(server: Keeping, tokens: list[str], watchers: int) -> Round:
    loop = asyncio.get_running_loop()
    seen, version = Seen(watchers), await _version(server)
    made = []
    for token in itertools.islice(itertools.cycle(tokens), watchers):
        headers = (("Authorization", f"Bearer {token}"),)
        request = get(f"{FAMILIES}?watch=true&resourceVersion={version}", headers)
        follower = functools.partial(Watcher, request, seen, loop.time)
        made.append(await loop.create_connection(follower, "127.0.0.1", server.http))
    for _, watcher in made:
        await asyncio.wait_for(watcher.ready.wait(), PATIENCE_S)
    begun = loop.time()
    requests = [_creates(token) for token in itertools.islice(itertools.cycle(tokens), AT_ONCE)]
    await asyncio.gather(*(_write(server, each, BURST // AT_ONCE) for each in requests))
    per_s = BURST * watchers / (await seen.all_have(BURST) - begun)
    asked = []
    for number in range(STEADY):
        asked.append(loop.time())
        await _write(server, requests[0], 1)
        await asyncio.sleep(max(0.0, asked[0] + (number + 1) / STEADY_PER_S - loop.time()))
    await seen.all_have(BURST + STEADY)
    times = [(seen.done[BURST + number] - at) * 1000 for number, at in enumerate(asked)]
    for transport, _ in made:
        transport.close()
    return Round(per_s, percentile(times, 0.5), percentile(times, 0.99))


async def _version(server: Keeping) -> str:
    reader, writer = await asyncio.open_connection("127.0.0.1", server.http)
    writer.write(get(f"{FAMILIES}?limit=1", (*AUTH, ("Connection", "close"))))
    answer = (await reader.read()).partition(b"\r\n\r\n")[2]
    writer.close()
    return str(json.loads(answer)["metadata"]["resourceVersion"])


async def _write(server: Keeping, requests: Iterator[bytes], count: int) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", server.http)
    for _ in range(count):
        writer.write(next(requests))
        head = await reader.readuntil(b"\r\n\r\n")
        if b" 201 " not in head[:16]:
            raise ValueError(f"a create was refused: {head[:300]!r}")
        length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n", 1)[0])
        await reader.readexactly(length)
    writer.close()


def _creates(token: str) -> Iterator[bytes]:
    run, headers = secrets.token_hex(4), (("Authorization", f"Bearer {token}"),)
    for number in itertools.count():
        name = f"w-{run}-{number}"
        body = {"metadata": {"name": name, "namespace": PROJECT}, "spec": {"name": name, "description": "watched"}}
        yield post(FAMILIES, json.dumps(body).encode(), headers)
