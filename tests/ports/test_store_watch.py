"""What every store promises its watchers: each change, once, in order, or that it is too late."""

from __future__ import annotations

import asyncio
import contextlib
import random
from typing import Any

import pytest

from api.errors import ApiError, Expired
from api.store.base import Change, ChangeType, Preconditions, Query, Store, Write
from api.store.writer import TIDY_EVERY
from tests.patience import PATIENCE_S
from tests.ports.stores import KIND, Place, create, heard, key, listening, resource, until

ANY = Preconditions()


async def edited(store: Store, name: str, text: str) -> Any:
    made = await store.get(key(name))
    made.spec.description = text
    return await store.update(Write(made, made.metadata.resourceVersion))


async def test_a_change_is_told_with_what_was_before_it(store: Store) -> None:
    made = await create(store, resource("a", text="one"))
    updated = await edited(store, "a", "two")
    gone = await store.delete(key("a"), ANY)
    added, modified, deleted = await heard(store, 0, 3)
    assert added == Change(int(made.metadata.resourceVersion), ChangeType.ADDED, key("a"), made)
    assert modified == Change(int(updated.metadata.resourceVersion), ChangeType.MODIFIED, key("a"), updated, made)
    assert (deleted.type, deleted.key, deleted.previous) == (ChangeType.DELETED, key("a"), None)
    assert deleted.resource == gone
    assert deleted.resource.spec.description == "two"
    assert deleted.revision == int(gone.metadata.resourceVersion)


async def test_a_watch_resumes_after_any_revision(store: Store) -> None:
    start = await store.revision()
    for name in "abcdef":
        await create(store, resource(name))
    everything = await heard(store, start, 6)
    assert [change.key.name for change in everything] == list("abcdef")
    for position, change in enumerate(everything):
        assert await heard(store, change.revision, 5 - position) == everything[position + 1 :]


async def test_a_watch_shows_its_kinds_alone(store: Store) -> None:
    await create(store, resource("a"), resource("p", kind="Pipeline"), resource("b"))
    assert [change.key.kind for change in await heard(store, 0, 1, ["Pipeline"])] == ["Pipeline"]
    assert [change.key.name for change in await heard(store, 0, 3, [KIND, "Pipeline"])] == ["a", "p", "b"]


async def test_a_watcher_that_waits_hears_at_once_of_a_write_anywhere(place: Place) -> None:
    here, there = await place.open(), await place.open()
    async with listening(here, await here.revision()) as found:
        await asyncio.sleep(0.3)
        for number, store in enumerate((here, there, here, there)):
            await create(store, resource(f"m-{number}"))
            await until(lambda: len(found) > number, 2.0)  # noqa: B023 - called before the next one


async def test_what_goes_with_its_owner_is_told_too(store: Store) -> None:
    owner = await create(store, resource("owner"))
    await create(store, resource("a", owner), resource("b", owner))
    start = await store.revision()
    await store.delete(key("owner"), ANY)
    told = await heard(store, start, 3)
    assert [change.type for change in told] == [ChangeType.DELETED] * 3
    assert sorted(change.key.name for change in told) == ["a", "b", "owner"]


async def test_four_writers_on_two_stores_leave_no_gap(place: Place) -> None:
    stores = [await place.open(), await place.open()]
    start = await stores[0].revision()
    written: dict[int, str] = {}

    async def churn(number: int) -> None:
        pick, store = random.Random(number), stores[number % 2]
        for step in range(60):
            name = f"w{number}-{pick.randrange(8)}"
            with contextlib.suppress(ApiError):
                if pick.random() < 0.3:
                    done = await store.delete(key(name), ANY)
                elif pick.random() < 0.5:
                    done = await edited(store, name, str(step))
                else:
                    done = await create(store, resource(name))
                written[int(done.metadata.resourceVersion)] = name

    async with listening(stores[0], start) as one, listening(stores[1], start) as two:
        await asyncio.gather(*(churn(number) for number in range(4)))
        newest = await stores[0].revision()
        for found in (one, two):
            await until(lambda found=found: found and found[-1].revision == newest)  # type: ignore[misc]
    assert {change.revision: change.key.name for change in one} == written
    assert one == two
    revisions = [change.revision for change in one]
    assert revisions == sorted(set(revisions))
    state: dict[str, Any] = {}
    for change in one:
        if change.type is ChangeType.DELETED:
            del state[change.key.name]
        else:
            state[change.key.name] = change.resource
    assert list(dict(sorted(state.items())).values()) == (await stores[1].list(KIND, Query())).items
    assert await heard(stores[1], start, len(one)) == one


async def test_who_asks_for_what_is_no_longer_kept_is_told_at_once(place: Place) -> None:
    store = await place.open(window=10, window_s=0.0)
    await create(store, resource("a"))
    await asyncio.gather(*(create(store, resource(f"m-{number}")) for number in range(TIDY_EVERY)))
    newest = await store.revision()

    async def forgotten() -> None:
        while True:
            await heard(store, 1, 1)
            await asyncio.sleep(0.01)

    with pytest.raises(Expired):
        await asyncio.wait_for(forgotten(), PATIENCE_S)
    assert len(await heard(store, newest - 10, 10)) == 10
    with pytest.raises(Expired):
        await heard(store, 0, 1)


async def test_what_is_younger_than_the_window_is_kept(place: Place) -> None:
    store = await place.open(window=10, window_s=600.0)
    await asyncio.gather(*(create(store, resource(f"m-{number}")) for number in range(TIDY_EVERY + 5)))
    await asyncio.sleep(0.2)
    assert len(await heard(store, 0, TIDY_EVERY + 5)) == TIDY_EVERY + 5
