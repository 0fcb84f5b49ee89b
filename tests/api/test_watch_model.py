"""The watch through real gRPC, held against the change log while writers write and watchers come and go."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc

from api.client import refusal
from api.events import Limits
from api.gen.michelangelo.platform.v1 import resource_service_pb2 as wire
from api.hub import Hub
from api.platform import Platform
from api.resources import Resources
from api.server import grpc_server
from api.store.base import Store
from api.store.sqlite import SqliteStore
from tests.api.watching import SERVICE, told
from tests.robustness.history.watch_rules import Event, Logged
from tests.robustness.stores import KIND, token_of
from tests.robustness.test_watch import WRITERS, faults_of, write
from tests.robustness.watchers import CHOSEN, COLOUR, crowd

EVENTS = 2_000
# Small, so that watchers go from the log to the ring and from there to what happens now, again and again.
LIMITS = Limits(ring_events=100, queue_events=80, batch_events=30, bookmark_s=0.2, watches=1000)


class GrpcSource:
    """Streams of a server."""

    def __init__(self, store: Store, channel: grpc.aio.Channel) -> None:
        self._store = store
        self._method: Any = channel.unary_stream(SERVICE + "Watch", None, wire.WatchResponse.FromString)

    async def stream(self, since: int, *, chosen: bool) -> AsyncIterator[list[Event]]:
        """Yield what a watch sends."""
        request = wire.WatchRequest(kinds=[KIND], resource_version=str(since), allow_bookmarks=True)
        if chosen:
            request.label_selector = f"{COLOUR}={CHOSEN}"
        call = self._method(request.SerializeToString())
        try:
            async for response in call:
                events = [told(event) for event in response.events]
                yield [
                    Event(event.type, event.revision, event.name, token_of(event.resource) if event.resource else "")
                    for event in events
                ]
        except grpc.aio.AioRpcError as error:
            raise refusal(error, "here") from None
        finally:
            call.cancel()

    async def revision(self) -> int:
        """Return the newest revision."""
        return await self._store.revision()


async def test_every_watcher_is_sent_what_the_log_says(tmp_path: Path) -> None:
    log, final = dict[int, Logged](), list[int]()
    store = SqliteStore(tmp_path / "store.db")
    resources = Resources(store)
    watchers = crowd(3)
    for one in watchers:
        # Each response is one of many that the connection holds already.
        one.pause_s /= 20
    try:
        async with (
            grpc_server(resources, 0, Platform(resources, Hub(resources, LIMITS))) as port,
            grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel,
        ):
            source = GrpcSource(store, channel)
            watching = [asyncio.create_task(one.run(source, lambda: final[0] if final else None)) for one in watchers]
            await asyncio.gather(*(write(store, number, EVENTS // WRITERS, log) for number in range(WRITERS)))
            final.append(await store.revision())
            await asyncio.gather(*watching)
    finally:
        await store.close()
    assert sorted(log) == list(range(1, EVENTS + 1))
    assert faults_of(watchers, [log[revision] for revision in sorted(log)], EVENTS) == []
    assert not any(one.excused for one in watchers), "nothing was compacted"
    assert sum(one.bookmarks for one in watchers) > len(watchers)
    assert sum(len(one.sessions) for one in watchers) > len(watchers)
