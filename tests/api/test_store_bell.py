"""What watchers are told without a look at the store: all of it, in order, and nothing that is not for them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from api.kinds import kinds
from api.resources import Resources
from api.store.bell import MOST_BYTES, Bell, Place, Row
from api.store.sqlite import SqliteStore
from api.store.writer import MOST_TOLD
from tests.patience import soon

SHORT_S = 0.05
WAIT_S = soon(6)


def row(revision: int, kind: str = "Model", size: int = 10) -> Row:
    return revision, kind, "shop", f"m-{revision}", "ADDED", b"x" * size, None


def numbers(rows: Sequence[Row]) -> list[int]:
    return [each[0] for each in rows]


def test_only_what_is_known_without_a_gap_is_told() -> None:
    bell = Bell()
    bell.publish(4, 6, [row(5), row(6)])
    bell.publish(6, 7, [row(7)])
    assert numbers(bell.news(Place(["Model"], 4))) == [5, 6, 7]
    assert numbers(bell.news(Place(["Model"], 6))) == [7]
    assert [numbers(bell.news(Place(["Model"], since))) for since in (3, 7, 8)] == [[], [], []]
    # Revision 8 was another process's.
    bell.publish(8, 9, [row(9)])
    assert [numbers(bell.news(Place(["Model"], since))) for since in (6, 7)] == [[], []]
    assert numbers(bell.news(Place(["Model"], 8))) == [9]


def test_what_is_too_much_is_told_no_more() -> None:
    bell = Bell(most=8)
    for revision in range(1, 9):
        bell.publish(revision - 1, revision, [row(revision)])
    assert numbers(bell.news(Place((), 0))) == [1, 2, 3, 4, 5, 6, 7, 8]
    for revision in range(9, 40):
        bell.publish(revision - 1, revision, [row(revision)])
        assert numbers(bell.news(Place((), revision - 3))) == [revision - 2, revision - 1, revision]
    assert numbers(bell.news(Place((), 30))) == []
    bell.publish(39, 40, [row(40, size=MOST_BYTES + 1)])
    assert numbers(bell.news(Place((), 39))) == []
    bell.publish(40, 41, [row(41)])
    assert numbers(bell.news(Place((), 40))) == [41]


async def test_who_waits_for_other_kinds_sleeps_on_and_has_come_further() -> None:
    bell = Bell()
    bell.publish(0, 1, [row(1)])
    sleeper, follower = Place(["Project"], 1), Place(["Model"], 1)
    for place in (sleeper, follower):
        assert bell.news(place) == ()
    asleep = asyncio.create_task(bell.after(sleeper, WAIT_S))
    follows = asyncio.create_task(bell.after(follower, WAIT_S))
    await asyncio.sleep(0)
    bell.publish(1, 2, [row(2)])
    assert await follows
    assert (sleeper.since, follower.since, asleep.done()) == (2, 1, False)
    bell.publish(2, 3, [row(3, "Project")])
    assert await asleep
    assert numbers(bell.news(sleeper)) == [3]
    assert numbers(bell.news(follower)) == [2, 3]


async def test_a_ring_between_a_look_and_the_wait_is_not_missed() -> None:
    bell, place = Bell(), Place(["Project"], 1)
    bell.news(place)
    bell.ring()
    assert await bell.after(place, WAIT_S)
    bell.news(place)
    assert not await bell.after(place, SHORT_S)


async def test_watchers_hear_what_two_processes_write_in_turns(tmp_path: Path) -> None:
    stores = [SqliteStore(tmp_path / "store.db") for _ in range(2)]
    writers = [Resources(store) for store in stores]
    await writers[0].create(kinds()["Project"].new("shop", "shop"))
    heard: list[int] = []
    done = asyncio.Event()
    names = [f"m-{number}" for number in range(40)]

    async def listen() -> None:
        async for change in writers[0].watch(["Model"], 0):
            heard.append(int(change.key.name[2:]))
            if len(heard) == len(names):
                done.set()

    listening = asyncio.create_task(listen())
    for number, name in enumerate(names):
        await writers[number // 3 % 2].create(kinds()["Model"].new("shop", name))
    async with asyncio.timeout(WAIT_S):
        await done.wait()
    listening.cancel()
    await asyncio.gather(listening, return_exceptions=True)
    assert heard == list(range(len(names)))
    for store in stores:
        await store.close()


async def test_one_write_of_more_changes_than_are_told_is_heard_whole(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "store.db")
    resources = Resources(store)
    await resources.create(kinds()["Project"].new("shop", "shop"))
    owner: Any = await resources.create(kinds()["ModelFamily"].new("shop", "owner"))

    async def owned(number: int) -> None:
        child: Any = kinds()["Model"].new("shop", f"c-{number}")
        child.metadata.ownerReferences.add(kind="ModelFamily", name="owner", uid=owner.metadata.uid)
        await resources.create(child)

    await asyncio.gather(*(owned(number) for number in range(MOST_TOLD + 20)))
    gone: set[str] = set()
    since = await resources.revision()

    async def listen() -> None:
        async for change in resources.watch(["Model"], since):
            gone.add(change.key.name)
            if len(gone) == MOST_TOLD + 20:
                return

    listening = asyncio.create_task(listen())
    await asyncio.sleep(SHORT_S)
    await resources.delete("ModelFamily", "shop", "owner")
    await asyncio.wait_for(listening, WAIT_S)
    await store.close()
