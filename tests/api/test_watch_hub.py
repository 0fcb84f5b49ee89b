"""The hub over a real store: one reader, bounded memory, and what it does when the log fails it."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import uuid
from collections.abc import AsyncIterator, Collection
from pathlib import Path
from typing import Any

import pytest

from api.errors import ApiError, Expired, InvalidArgument, ResourceExhausted, Unavailable
from api.events import Event, EventType, Limits, Ring
from api.hub import Hub
from api.kinds import kinds
from api.listing import parse_selector
from api.pace import LARGE_BYTES_S
from api.selection import Selection
from api.store.base import Change, ChangeType, Key, Store, Write
from api.store.sqlite import SqliteStore
from api.watch import Watch
from tests.patience import PATIENCE_S

KIND = "ModelFamily"
EVERYTHING = Selection.of({KIND: None})


def family(name: str, description: str = "", **labels: str) -> Any:
    made = kinds()[KIND].new("shop", name)
    made.metadata.uid = str(uuid.uuid4())
    made.spec.description = description
    made.metadata.labels.update(labels)
    return made


async def write(store: Store, count: int, description: str = "") -> int:
    """Create objects; returns the last revision."""
    revision = 0
    for _ in range(count):
        made = await store.create(Write(family(f"f-{uuid.uuid4().hex}", description)))
        revision = int(made.metadata.resourceVersion)
    return revision


async def until(watch: Watch, revision: int) -> list[int]:
    """Return the revisions that a watch hands out, up to one."""
    found: list[int] = []
    async with asyncio.timeout(PATIENCE_S):
        async for events in watch:
            found += [event.revision for event in events if event.type is not EventType.BOOKMARK]
            if events[-1].revision >= revision:
                break
    return found


class Reading:
    """A change log that counts its readers and fails when it is told to."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.readers = 0
        self.failures: list[ApiError] = []

    async def revision(self) -> int:
        """Return the newest revision."""
        return await self._store.revision()

    async def watch(self, names: Collection[str], since: int) -> AsyncIterator[Change]:
        """Yield changes, unless a failure waits."""
        self.readers += 1
        async with contextlib.aclosing(self._store.watch(names, since)) as changes:  # type: ignore[type-var]
            async for change in changes:
                if self.failures:
                    raise self.failures.pop()
                yield change


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    made = SqliteStore(tmp_path / "store.db")
    yield made
    await made.close()


async def test_fifty_watchers_have_one_reader_and_each_event_is_encoded_once(store: SqliteStore) -> None:
    log, encoded = Reading(store), list[int]()

    def encode(event: Event) -> bytes:
        encoded.append(event.revision)
        return b"-"

    async def consume(watch: Watch, count: int) -> None:
        async with watch:
            async for events in watch:
                for event in events:
                    event.once("test", encode)
                    count -= 1
                if not count:
                    return

    async with Hub(log) as hub:
        watches = [await hub.watch(Selection.of({KIND: None}, parse_selector("a!=b" * (n % 2)))) for n in range(50)]
        consumers = [asyncio.create_task(consume(watch, 20)) for watch in watches]
        await write(store, 20)
        await asyncio.gather(*consumers)
    assert log.readers == 1
    assert encoded == list(range(1, 21))


async def test_a_large_event_goes_to_one_watcher_after_the_other(store: SqliteStore) -> None:
    size, told = 1_000_000, list[float]()

    async def consume(watch: Watch) -> None:
        async with watch:
            found = await until(watch, 1)
            told.append(asyncio.get_running_loop().time())
            assert found + ([] if 2 in found else await until(watch, 2)) == [1, 2]

    async with Hub(store) as hub:
        consumers = [asyncio.create_task(consume(await hub.watch(EVERYTHING))) for _ in range(10)]
        await write(store, 1, "x" * size)
        await write(store, 1)
        await asyncio.gather(*consumers)
    apart = [later - earlier for earlier, later in itertools.pairwise(told)]
    assert min(apart) > 0.5 * size / LARGE_BYTES_S


async def test_a_hub_without_watchers_reads_nothing(store: SqliteStore) -> None:
    log = Reading(store)
    async with Hub(log):
        await write(store, 3)
        await asyncio.sleep(0.05)
    assert log.readers == 0


@pytest.mark.parametrize("ring", [1, 3, 100])
@pytest.mark.parametrize("since", [0, 1, 46, 48, 50])
async def test_a_watch_from_any_version_brings_all_that_follows(store: SqliteStore, ring: int, since: int) -> None:
    async with Hub(store, Limits(ring_events=ring)) as hub, await hub.watch(EVERYTHING):
        await write(store, 50)
        watch = await hub.watch(EVERYTHING, since)
        writing = asyncio.create_task(write(store, 50))
        async with watch:
            assert await until(watch, 100) == list(range(since + 1, 101))
        await writing


async def test_what_is_no_longer_kept_is_refused_before_the_watch_opens(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "small.db", window=100, window_s=0.0)
    async with Hub(store, Limits(ring_events=10)) as hub:
        for _ in range(10):
            await asyncio.gather(*(write(store, 5) for _ in range(50)))
        last = await store.revision()
        # What is beyond the window is forgotten beside the writes.
        refused: Expired | None = None
        async with asyncio.timeout(PATIENCE_S):
            while refused is None:
                try:
                    await (await hub.watch(EVERYTHING, 1)).close()
                except Expired as error:
                    refused = error
                await asyncio.sleep(0.05)
        assert (refused.code, refused.reason) == ("OUT_OF_RANGE", "EXPIRED")
        async with await hub.watch(EVERYTHING, last - 50) as watch:
            assert await until(watch, last) == list(range(last - 49, last + 1))
    await store.close()


async def test_a_version_that_was_never_given_out_is_refused(store: SqliteStore) -> None:
    last = await write(store, 3)
    async with Hub(store) as hub:
        with pytest.raises(InvalidArgument) as error:
            await hub.watch(EVERYTHING, last + 1)
        assert error.value.reason == "RV_IN_FUTURE"
        await (await hub.watch(EVERYTHING, last)).close()


@pytest.mark.parametrize(
    ("limits", "size", "count"),
    [(Limits(queue_events=10, ring_events=5), 0, 10), (Limits(queue_bytes=20_000, ring_events=5), 6_000, 4)],
)
async def test_who_does_not_read_is_cut_at_the_limit_and_not_before(
    store: SqliteStore, limits: Limits, size: int, count: int
) -> None:
    async with Hub(store, limits) as hub, await hub.watch(EVERYTHING) as watch, await hub.watch(EVERYTHING) as reader:
        first = await write(store, 1)
        assert await until(watch, first) == await until(reader, first) == [first]
        pulled = asyncio.create_task(anext(watch))
        await write(store, 1)
        await pulled
        for _ in range(count - 1):
            await until(reader, await write(store, 1, "x" * size))
        assert watch.error is None
        await until(reader, await write(store, 1, "x" * size))
        with pytest.raises(ResourceExhausted) as error:
            await anext(watch)
    assert error.value.reason == "SLOW_CONSUMER"
    assert "the last version sent is 2:" in error.value.message


async def test_a_bookmark_waits_for_what_is_queued(store: SqliteStore) -> None:
    limits = Limits(batch_events=2, bookmark_s=0.0)
    async with Hub(store, limits) as hub, await hub.watch(EVERYTHING, 0, bookmarks=True) as watch:
        assert [event.type for event in await anext(watch)] == [EventType.BOOKMARK]
        async with await hub.watch(EVERYTHING) as reader:
            await until(reader, await write(store, 5))
        batches = [[(event.type.value, event.revision) for event in await anext(watch)] for _ in range(3)]
    assert batches == [
        [("ADDED", 1), ("ADDED", 2)],
        [("ADDED", 3), ("ADDED", 4)],
        [("ADDED", 5), ("BOOKMARK", 5)],
    ]


async def test_a_delivery_that_hangs_ends_with_the_watch(store: SqliteStore) -> None:
    async with Hub(store, Limits(queue_events=5)) as hub, await hub.watch(EVERYTHING) as watch:
        hanging = asyncio.create_task(watch.deliver(asyncio.Event().wait()))
        pulling = asyncio.create_task(anext(watch))
        await write(store, 1)
        await pulling
        await write(store, 10)
        with pytest.raises(ResourceExhausted):
            await asyncio.wait_for(hanging, PATIENCE_S)
        assert not hanging.cancelled()
        with pytest.raises(ResourceExhausted):
            await watch.deliver(asyncio.sleep(0))


async def test_a_delivery_that_is_cancelled_from_outside_stays_cancelled(store: SqliteStore) -> None:
    async with Hub(store) as hub, await hub.watch(EVERYTHING) as watch:
        hanging = asyncio.create_task(watch.deliver(asyncio.Event().wait()))
        await asyncio.sleep(0)
        hanging.cancel()
        with pytest.raises(asyncio.CancelledError):
            await hanging
        assert watch.error is None


async def test_a_log_that_cannot_be_read_for_a_while_costs_no_event(store: SqliteStore) -> None:
    log = Reading(store)
    async with Hub(log) as hub, await hub.watch(EVERYTHING) as watch:
        await until(watch, await write(store, 2))
        log.failures.append(Unavailable("the store is away"))
        assert await until(watch, await write(store, 5)) == [3, 4, 5, 6, 7]
    assert log.readers == 2


async def test_a_hub_that_lost_its_place_ends_its_watches(store: SqliteStore) -> None:
    log = Reading(store)
    async with Hub(log) as hub, await hub.watch(EVERYTHING) as watch:
        await until(watch, await write(store, 2))
        log.failures.append(Expired("compacted"))
        await write(store, 1)
        with pytest.raises(Unavailable) as error:
            await asyncio.wait_for(anext(watch), PATIENCE_S)
        assert "the last version sent is 2:" in error.value.message
        async with asyncio.timeout(PATIENCE_S):
            async with await hub.watch(EVERYTHING, 2) as again:
                assert await until(again, 3) == [3]


async def test_nothing_is_left_behind_by_watches_that_are_gone(store: SqliteStore) -> None:
    async with Hub(store, Limits(watches=2)) as hub:
        for _ in range(20):
            async with await hub.watch(EVERYTHING, principal="ann") as watch:
                await until(watch, await write(store, 1))
        watch = await hub.watch(EVERYTHING, principal="ann")
        await hub.watch(EVERYTHING, principal="ann")
        await hub.watch(EVERYTHING, principal="bob")
        with pytest.raises(ResourceExhausted) as error:
            await hub.watch(EVERYTHING, principal="ann")
        assert error.value.reason == "TOO_MANY_WATCHES"
        await watch.close()
        await watch.close()
        await hub.watch(EVERYTHING, principal="ann")
    with pytest.raises(Unavailable):
        await hub.watch(EVERYTHING)


def test_an_exit_is_told_where_the_state_before_is_not_known() -> None:
    chosen = Selection.of({KIND: None}, parse_selector("stage=live"))
    left = Change(7, ChangeType.MODIFIED, Key(KIND, "shop", "a"), family("a"))
    assert chosen.seen(left) is ChangeType.DELETED
    kept = Change(7, ChangeType.MODIFIED, Key(KIND, "shop", "a"), family("a", stage="live"))
    assert chosen.seen(kept) is ChangeType.MODIFIED


def test_a_ring_is_bounded_and_has_every_change_behind_its_floor() -> None:
    ring = Ring(10, 4, 100_000)
    for revision in range(11, 700):
        ring.append(Change(revision, ChangeType.ADDED, Key(KIND, "shop", "a"), family("a")))
        held = [entry.change.revision for entry in ring.after(ring.floor)]
        assert held == list(range(ring.floor + 1, revision + 1))
        assert len(held) == min(4, revision - 10)
    ring.append(Change(700, ChangeType.ADDED, Key(KIND, "shop", "a"), family("a", "x" * 200_000)))
    assert [entry.change.revision for entry in ring.after(ring.floor)] == [700]
