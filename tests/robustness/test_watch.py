"""A watch is ordered, unique, reliable, atomic, resumable, bookmarkable, or says it is too old (guarantee G5)."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from typing import TypeVar

import pytest

from api.errors import Expired, Unavailable
from api.events import Limits
from api.hub import Hub
from api.listing import parse_selector
from api.selection import Selection
from api.store.base import Key, Preconditions, Store, Write
from api.store.open import open_store
from tests.robustness.history.watch_rules import DELETED, Event, Logged, expected, judged, missing
from tests.robustness.lanes import lanes
from tests.robustness.results import told
from tests.robustness.stores import KIND, PROJECT, Place, family, token_of
from tests.robustness.watchers import CHOSEN, COLOUR, Watcher, crowd

T = TypeVar("T")

WRITERS = 4
NAMES = 25
WINDOW = 1_000
SIZES = {"SQLite": (10_000, 100_000), "PostgreSQL": (3_000, 100_000), "etcd": (3_000, 10_000)}
# Small, so that streams leave the ring for the log, and that the log is compacted below them.
LIMITS = Limits(ring_events=200, queue_events=150, bookmark_s=0.4)


class HubSource:
    """Streams of a hub in this process."""

    def __init__(self, store: Store, hub: Hub) -> None:
        self._store, self._hub = store, hub

    async def stream(self, since: int, *, chosen: bool) -> AsyncIterator[list[Event]]:
        """Yield what the hub hands out."""
        labels = parse_selector(f"{COLOUR}={CHOSEN}") if chosen else ()
        watch = await self._hub.watch(Selection.of({KIND: None}, labels), since, bookmarks=True)
        async with watch:
            async for events in watch:
                yield [
                    Event(
                        event.type.value,
                        event.revision,
                        "" if event.resource is None else event.resource.metadata.name,
                        "" if event.resource is None else token_of(event.resource),
                    )
                    for event in events
                ]

    async def revision(self) -> int:
        """Return the newest revision."""
        return await self._store.revision()


async def done(work: Callable[[], Awaitable[T]]) -> T:
    """Write; one that waited too long for the other writers had no effect, and is tried again as clients do."""
    while True:
        try:
            return await work()
        except Unavailable as error:
            if error.reason != "STORE_BUSY":
                raise
            await asyncio.sleep(0.05)


async def write(store: Store, number: int, count: int, log: dict[int, Logged]) -> None:
    """Create, change, recolour and delete names of one's own; note each change under its revision."""
    pick = random.Random(number)
    known: dict[str, str] = {}
    for written in range(count):
        name, token = f"n{number}-{pick.randrange(NAMES)}", f"{number}.{written}"
        if name in known and pick.random() < 0.1:
            gone = await done(partial(store.delete, Key(KIND, PROJECT, name), Preconditions()))
            revision = int(gone.metadata.resourceVersion)
            log[revision] = Logged(Event(DELETED, revision, name, token_of(gone)), selected=False)
            del known[name]
            continue
        colour = pick.choice((CHOSEN, "blue"))
        item = family(name, token, labels={COLOUR: colour})
        wanted = (
            partial(store.update, Write(item, known[name])) if name in known else partial(store.create, Write(item))
        )
        made = await done(wanted)
        revision = int(made.metadata.resourceVersion)
        what = "MODIFIED" if name in known else "ADDED"
        log[revision] = Logged(Event(what, revision, name, token), colour == CHOSEN)
        known[name] = made.metadata.resourceVersion


def faults_of(watchers: list[Watcher], log: list[Logged], until: int) -> list[str]:
    """Return what the judges say of every watcher."""
    everything = expected([Logged(one.event) for one in log])
    chosen = expected(log)
    faults = []
    for watcher in watchers:
        due = chosen if watcher.chosen else everything
        faults += [f"watcher {watcher.number}: {fault}" for fault in judged(due, watcher.sessions)]
        for event in missing(due, watcher.sessions, 0, until):
            if not any(low < event.revision <= high for low, high in watcher.excused):
                faults.append(f"watcher {watcher.number} never saw {event}")
    return faults


@pytest.mark.parametrize("lane", lanes(p=0, c=1))
async def test_every_watcher_sees_what_the_log_says(busy_place: Place, lane: int) -> None:
    began, log, final = time.monotonic(), dict[int, Logged](), list[int]()
    events = SIZES[busy_place.name][lane]
    store = await open_store(busy_place.url, window=WINDOW, window_s=0.0)
    # Each writer has a store of its own, as a server of its own would.
    written = [await open_store(busy_place.url, window=WINDOW, window_s=0.0) for _ in range(WRITERS)]
    watchers = crowd()
    try:
        async with Hub(store, LIMITS) as hub, asyncio.TaskGroup() as group:
            source = HubSource(store, hub)
            for one in watchers:
                group.create_task(one.run(source, lambda: final[0] if final else None))
            await asyncio.gather(*(write(one, n, events // WRITERS, log) for n, one in enumerate(written)))
            final.append(await store.revision())
    finally:
        for opened in (*written, store):
            await opened.close()
    assert sorted(log) == list(range(1, final[0] + 1)), "every revision is one change that a writer made"
    faults = faults_of(watchers, [log[revision] for revision in sorted(log)], final[0])
    seen = sum(len(session.events) for one in watchers for session in one.sessions)
    told(
        "G5",
        "every watcher sees every change once, in order",
        store=busy_place.name,
        trials=seen,
        failed=len(faults),
        figures=f"{events:,} changes, {len(watchers)} watchers, {sum(len(one.sessions) for one in watchers)} streams, "
        f"{sum(one.cuts for one in watchers)} cut as too slow, {sum(len(one.excused) for one in watchers)} too old, "
        f"{time.monotonic() - began:.0f} s",
    )
    assert faults[:10] == []
    assert sum(one.bookmarks for one in watchers) > len(watchers)
    assert sum(len(one.sessions) for one in watchers) > 2 * len(watchers)


async def test_every_position_is_kept_whole_or_refused(place: Place) -> None:
    store = await open_store(place.url, window=50, window_s=0.0)
    try:
        for number in range(1_100):
            stored = None if number < NAMES else await store.get(Key(KIND, PROJECT, f"n{number % NAMES}"))
            item = family(f"n{number % NAMES}", str(number))
            await (store.update(Write(item, stored.metadata.resourceVersion)) if stored else store.create(Write(item)))
        newest, refused = await store.revision(), 0
        # What is forgotten is forgotten beside the writes.
        deadline = time.monotonic() + 10
        while refused == 0 and time.monotonic() < deadline:
            refused = await first_kept(store)
        assert 0 < refused < newest
        for since in range(max(0, refused - 5), newest):
            changes = store.watch([KIND], since)
            if since < refused:
                with pytest.raises(Expired):
                    await anext(changes)
            else:
                assert (await anext(changes)).revision == since + 1, "no change is left out"
                await changes.aclose()  # type: ignore[attr-defined]
    finally:
        await store.close()


async def first_kept(store: Store) -> int:
    """Return the first position after which changes are sent."""
    low, high = 0, await store.revision() - 1
    while low < high:
        middle = (low + high) // 2
        changes = store.watch([KIND], middle)
        try:
            await anext(changes)
            high = middle
        except Expired:
            low = middle + 1
        finally:
            await changes.aclose()  # type: ignore[attr-defined]
    return low
