"""The public watch through two servers that die: what a watcher saw, put together, is the change log (guarantee G5)."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections.abc import AsyncIterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import grpc
import psycopg
import pytest

from api.gen.michelangelo.platform.v1 import resource_service_pb2 as wire
from api.kinds import kinds
from api.store.open import open_store
from tests.robustness.callers import Caller, at_work
from tests.robustness.clients import shop
from tests.robustness.faults.killer import Killer
from tests.robustness.history.watch_rules import BOOKMARK, Event, expected, judged, missing
from tests.robustness.history.watch_rules import Logged as Change
from tests.robustness.killed_server import OPTIONS, KilledServer
from tests.robustness.lanes import lanes
from tests.robustness.results import told
from tests.robustness.stores import KIND, Place, log, token_of
from tests.robustness.watchers import Ended, Source, TooOld, Watcher

WRITERS = 4
WATCHERS = 10
METHOD = "/michelangelo.platform.v1.ResourceService/Watch"


class Public:
    """Streams of the public watch, each through any of the servers."""

    def __init__(self, servers: list[KilledServer]) -> None:
        self._servers = servers
        self._pick = random.Random(5)

    async def stream(self, since: int, *, chosen: bool) -> AsyncIterator[list[Event]]:
        """Yield what one server sends until it dies."""
        server = self._pick.choice(self._servers)
        metadata = (("authorization", f"Bearer {server.config.token}"),)
        asked = wire.WatchRequest(kinds=[KIND], resource_version=str(since), allow_bookmarks=True)
        async with grpc.aio.insecure_channel(server.config.api_address, options=OPTIONS) as channel:
            watch: Any = channel.unary_stream(
                METHOD,
                request_serializer=wire.WatchRequest.SerializeToString,
                response_deserializer=wire.WatchResponse.FromString,
            )
            try:
                async for answer in watch(asked, metadata=metadata):
                    yield [event_of(event) for event in answer.events]
            except grpc.aio.AioRpcError as error:
                if error.code() is grpc.StatusCode.OUT_OF_RANGE:
                    raise TooOld from error
                if error.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED):
                    raise Ended from error
                raise

    async def revision(self) -> int:
        """Nothing is too old here."""
        raise AssertionError("the whole log is kept")


def event_of(event: Any) -> Event:
    """Return an event as judges know it."""
    kind, revision = wire.WatchEvent.Type.Name(event.type), int(event.resource_version)
    if kind == BOOKMARK:
        return Event(BOOKMARK, revision)
    item: Any = kinds()[KIND].message()
    event.object.Unpack(item)
    return Event(kind, revision, item.metadata.name, token_of(item))


async def watch_all(watchers: list[Watcher], source: Source, final: list[int]) -> None:
    await asyncio.gather(*(one.run(source, lambda: final[0] if final else None) for one in watchers))


def write_all(servers: list[KilledServer], place: Place, changes: int, struck: int) -> tuple[int, int]:
    """Write so many changes, and until each fault struck so often; returns the deaths of servers and of connections.

    A store in a file has no connections that somebody else could end.
    """
    token, kills, ends = servers[0].config.token, 0, 0
    callers = [Caller(n, servers[n % 2].config.api_address, token) for n in range(WRITERS)]

    def strike(pick: random.Random) -> None:
        nonlocal kills, ends
        if place.name == "PostgreSQL" and pick.random() < 0.5:
            end_connections(place.url)
            ends += 1
            return
        server = pick.choice(servers)
        server.kill()
        server.start()
        kills += 1

    def enough() -> bool:
        return killer.failed is not None or (kills >= struck and (ends >= struck or place.name == "SQLite"))

    killer = Killer(strike, between_s=(0.3, 0.8), seed=changes)
    with killer.about(), at_work(callers, changes // WRITERS, enough):
        pass
    return kills, ends


def end_connections(url: str) -> None:
    """End what all servers have open to a PostgreSQL store."""
    ours = "application_name = 'michelangelo' AND datname = current_database()"
    with psycopg.connect(url, autocommit=True) as link:
        link.execute(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {ours}")


async def changed(url: str) -> list[Event]:
    store = await open_store(url)
    try:
        return await log(store)
    finally:
        await store.close()


@pytest.mark.parametrize(("changes", "struck"), lanes(p=(1_000, 1), c=(25_000, 50)))
def test_streams_through_dying_servers_are_the_change_log(
    place: Place, tmp_path: Path, changes: int, struck: int
) -> None:
    began, final = time.monotonic(), list[int]()
    watchers = [Watcher(number, leaves_s=0.5 if number % 3 == 0 else 0.0) for number in range(WATCHERS)]
    with ExitStack() as stack:
        environ = {"MA_STORE_URL": place.url}
        servers = [stack.enter_context(KilledServer(tmp_path, called=f"api-{n}", environ=environ)) for n in range(2)]
        connection = servers[0].connect()
        shop(connection)
        failed: list[BaseException] = []

        def watch() -> None:
            try:
                asyncio.run(watch_all(watchers, Public(servers), final))
            except BaseException as error:
                failed.append(error)

        watching = threading.Thread(target=watch)
        watching.start()
        try:
            kills, ends = write_all(servers, place, changes, struck)
        finally:
            due = asyncio.run(changed(place.url))
            final.append(due[-1].revision)
            watching.join()
        connection.close()
    if failed:
        raise failed[0]
    due = expected([Change(event) for event in due])
    faults = [f"watcher {one.number}: {fault}" for one in watchers for fault in judged(due, one.sessions)]
    faults += [
        f"watcher {one.number} never saw {e}" for one in watchers for e in missing(due, one.sessions, 0, final[0])
    ]
    seen = sum(len(session.events) for one in watchers for session in one.sessions)
    told(
        "G5",
        "the public watch through two servers that die is the change log",
        store=place.name,
        trials=seen,
        failed=len(faults),
        figures=f"{len(due):,} changes, {WATCHERS} watchers, {sum(len(one.sessions) for one in watchers)} streams, "
        f"{kills} server kills, {ends} times all connections to the store ended, {time.monotonic() - began:.0f} s",
    )
    assert faults[:10] == []
    assert kills >= struck
    assert ends >= struck or place.name == "SQLite"
