"""Counting together with read, compare and swap loses no increment (guarantee G4)."""

from __future__ import annotations

import asyncio
import random
import time
from pathlib import Path
from typing import Any

import grpc
import pytest

from api.kinds import kinds
from tests.robustness.clients import shop
from tests.robustness.killed_server import OPTIONS, KilledServer
from tests.robustness.lanes import lanes
from tests.robustness.results import told
from tests.robustness.stores import KIND, PROJECT, Place

COUNTER = "counter"
REFUSED_S = 0.1
# With shorter ones nine of ten updates come too late.
LONGEST_PAUSE_S = 1.0


class Calls:
    """Calls on one connection that many tasks share."""

    def __init__(self, server: KilledServer) -> None:
        self._channel = grpc.aio.insecure_channel(server.config.api_address, options=OPTIONS)
        self._metadata = (("authorization", f"Bearer {server.config.token}"),)

    async def call(self, verb: str, **fields: Any) -> Any:
        described = kinds()[KIND]
        method: Any = described.method(verb)
        sent: Any = self._channel.unary_unary(
            f"/{described.service.full_name}/{method.name}",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=method.output_type._concrete_class.FromString,
        )
        while True:
            try:
                return await sent(method.input_type._concrete_class(**fields), timeout=30, metadata=self._metadata)
            except grpc.aio.AioRpcError as error:
                # Refused before it began: so many clients at once may be too many.
                if error.code() is not grpc.StatusCode.RESOURCE_EXHAUSTED:
                    raise
            await asyncio.sleep(REFUSED_S)

    async def close(self) -> None:
        await self._channel.close()


async def count(calls: Calls, times: int, pick: random.Random) -> int:
    """Add one, `times` times; returns how often another was faster."""
    beaten = 0
    for _ in range(times):
        pause_s = 0.002
        while True:
            read = (await calls.call("Get", namespace=PROJECT, name=COUNTER)).model_family
            read.spec.description = str(int(read.spec.description) + 1)
            try:
                await calls.call("Update", model_family=read)
                break
            except grpc.aio.AioRpcError as error:
                if error.code() is not grpc.StatusCode.ABORTED or read.metadata.resourceVersion not in str(error):
                    raise
                beaten += 1
            await asyncio.sleep(pick.uniform(0, pause_s))
            pause_s = min(pause_s * 2, LONGEST_PAUSE_S)
    return beaten


async def together(server: KilledServer, clients: int, times: int) -> tuple[int, int]:
    calls = Calls(server)
    try:
        beaten = await asyncio.gather(*(count(calls, times, random.Random(number)) for number in range(clients)))
        final = (await calls.call("Get", namespace=PROJECT, name=COUNTER)).model_family
        return int(final.spec.description), sum(beaten)
    finally:
        await calls.close()


@pytest.mark.parametrize(("clients", "times"), [*lanes(p=8, c=64, also=(25,))[:1], *lanes(p=8, c=64, also=(200,))[1:]])
def test_no_increment_is_lost(any_place: Place, tmp_path: Path, clients: int, times: int) -> None:
    began = time.monotonic()
    with KilledServer(tmp_path, environ={"MA_STORE_URL": any_place.url}) as server:
        connection = server.connect()
        shop(connection)
        made = kinds()[KIND].new(PROJECT, COUNTER)
        made.spec.description = "0"
        connection.call(KIND, "Create", model_family=made)
        connection.close()
        final, beaten = asyncio.run(together(server, clients, times))
    told(
        "G4",
        "no increment by read, compare and swap is lost",
        store=any_place.name,
        trials=clients * times,
        failed=clients * times - final,
        figures=f"{clients} clients, {beaten:,} conflicts, {time.monotonic() - began:.0f} s",
    )
    assert final == clients * times
    assert beaten, "nobody was ever faster: they did not count at the same time"
