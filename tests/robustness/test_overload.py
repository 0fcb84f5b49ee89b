"""Far more callers than can be served: memory is bounded, health answers, the refused are told so (guarantee G18)."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import psutil
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from api.kinds import kinds
from tests.robustness.clients import shop
from tests.robustness.killed_server import OPTIONS, KilledServer
from tests.robustness.results import told
from tests.robustness.stores import KIND, PROJECT

CALLERS = 500
CHANNELS = 20
LASTS_S = 20.0
LARGE = 3_000_000
IDLE = 1_000
MOST_MIB = 600
HEALTH_S = 1.0
TAKEN = {"OK", "RESOURCE_EXHAUSTED", "UNAVAILABLE"}


@dataclass
class Seen:
    """What callers saw.  took: seconds of accepted calls; health: seconds of health checks."""

    outcomes: Counter[str] = field(default_factory=Counter)
    took: list[float] = field(default_factory=list)
    health: list[float] = field(default_factory=list)
    most_mib: float = 0.0


def call_on(channel: grpc.aio.Channel, verb: str) -> Any:
    described = kinds()[KIND]
    method: Any = described.method(verb)
    return channel.unary_unary(
        f"/{described.service.full_name}/{method.name}",
        request_serializer=lambda message: message.SerializeToString(),
        response_deserializer=method.output_type._concrete_class.FromString,
    ), method.input_type._concrete_class


async def caller(number: int, channel: grpc.aio.Channel, server: KilledServer, seen: Seen, until: float) -> None:
    pick = random.Random(number)
    metadata = (("authorization", f"Bearer {server.config.token}"),)
    create, asked = call_on(channel, "Create")
    listing, listed = call_on(channel, "List")
    count = 0
    while time.monotonic() < until:
        count += 1
        item = kinds()[KIND].new(PROJECT, f"n{number}-{count}")
        item.spec.description = "x" * (LARGE if number % 50 == 0 else pick.randrange(2_000))
        began = time.monotonic()
        try:
            if pick.random() < 0.5:
                await create(asked(model_family=item), metadata=metadata, timeout=30)
            else:
                await listing(listed(namespace=PROJECT, list_options={"limit": 10}), metadata=metadata, timeout=30)
            seen.outcomes["OK"] += 1
            seen.took.append(time.monotonic() - began)
        except grpc.aio.AioRpcError as error:
            seen.outcomes[error.code().name] += 1
            await asyncio.sleep(pick.uniform(0, 0.2))


async def look(server: KilledServer, seen: Seen, until: float) -> None:
    """Ask for health, and look at the memory."""
    process = psutil.Process(server.pid)
    async with grpc.aio.insecure_channel(server.config.api_address, options=OPTIONS) as channel:
        health: Any = health_pb2_grpc.HealthStub(channel)
        while time.monotonic() < until:
            began = time.monotonic()
            await health.Check(health_pb2.HealthCheckRequest(), timeout=30)
            seen.health.append(time.monotonic() - began)
            seen.most_mib = max(seen.most_mib, process.memory_info().rss / 2**20)
            await asyncio.sleep(0.1)


async def flood(server: KilledServer) -> Seen:
    seen, until = Seen(), time.monotonic() + LASTS_S
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(IDLE):
            _, idle = await asyncio.open_connection("127.0.0.1", server.config.api_port)
            stack.callback(idle.close)
        channels = [
            await stack.enter_async_context(grpc.aio.insecure_channel(server.config.api_address, options=OPTIONS))
            for _ in range(CHANNELS)
        ]
        await asyncio.gather(
            look(server, seen, until),
            *(caller(number, channels[number % CHANNELS], server, seen, until) for number in range(CALLERS)),
        )
    return seen


@pytest.mark.robustness
def test_a_flood_is_answered_or_refused_and_memory_is_bounded(tmp_path: Path) -> None:
    with KilledServer(tmp_path) as server:
        connection = server.connect()
        shop(connection)
        connection.close()
        seen = asyncio.run(flood(server))
        connection = server.connect()
        assert connection.call("Project", "Get", namespace=PROJECT, name=PROJECT).project.metadata.name == PROJECT
        connection.close()
    seen.took.sort()
    seen.health.sort()
    p99_s, health_s = seen.took[len(seen.took) * 99 // 100], seen.health[len(seen.health) * 99 // 100]
    told(
        "G18",
        "a flood is answered or refused, memory is bounded, health answers",
        store="SQLite",
        trials=sum(seen.outcomes.values()),
        failed=sum(count for code, count in seen.outcomes.items() if code not in TAKEN),
        figures=f"{CALLERS} callers, {IDLE} idle connections, {LASTS_S:.0f} s: {dict(seen.outcomes)}; accepted p99 "
        f"{p99_s:.2f} s, health p99 {health_s:.2f} s, at most {seen.most_mib:.0f} MiB",
    )
    assert set(seen.outcomes) <= TAKEN
    assert seen.most_mib < MOST_MIB
    assert health_s < HEALTH_S
