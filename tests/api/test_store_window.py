"""The record of changes: bounded, complete within its window, and honest about what it has forgotten."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from api.errors import Expired
from api.kinds import kinds
from api.resources import Resources
from api.store.base import Change, ChangeType, Request, Trail, Write
from api.store.sqlite import SqliteStore
from api.store.writer import TIDY_EVERY
from tests.patience import PATIENCE_S

WINDOW = 10


async def reach(resources: Resources, revision: int) -> None:
    """Change the project until the store is at a revision."""
    project = await resources.get("Project", "shop", "shop")
    while await resources.revision() < revision:
        project.spec.description = str(await resources.revision())
        project = await resources.update(project)


async def opened(path: Path) -> tuple[SqliteStore, Resources]:
    store = SqliteStore(path, window=WINDOW, window_s=0)
    resources = Resources(store)
    await resources.create(kinds()["Project"].new("shop", "shop"))
    return store, resources


def kept(path: Path) -> list[int]:
    with closing(sqlite3.connect(path)) as db:
        return [row[0] for row in db.execute("SELECT revision FROM change ORDER BY revision")]


async def forgotten(path: Path, newest: int) -> None:
    """Wait until only the window up to `newest` is kept: it is tidied when the write has been answered."""
    async with asyncio.timeout(PATIENCE_S):
        while kept(path) != list(range(newest - WINDOW + 1, newest + 1)):  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.01)


async def read(resources: Resources, since: int, count: int) -> list[Change]:
    found: list[Change] = []
    async with asyncio.timeout(PATIENCE_S):
        async for change in resources.watch(None, since):
            found.append(change)
            if len(found) == count:
                break
    return found


async def test_changes_beyond_the_window_are_forgotten_and_said_to_be(tmp_path: Path) -> None:
    store, resources = await opened(tmp_path / "store.db")
    await reach(resources, TIDY_EVERY - 1)
    assert len(kept(tmp_path / "store.db")) == TIDY_EVERY - 1
    await reach(resources, TIDY_EVERY)
    await forgotten(tmp_path / "store.db", TIDY_EVERY)
    oldest = TIDY_EVERY - WINDOW
    assert [change.revision for change in await read(resources, oldest, WINDOW)] == kept(tmp_path / "store.db")
    with pytest.raises(Expired):
        await read(resources, oldest - 1, 1)
    await store.close()


async def test_a_change_of_many_revisions_compacts_too(tmp_path: Path) -> None:
    store, resources = await opened(tmp_path / "store.db")
    owner = await resources.create(kinds()["ModelFamily"].new("shop", "owner"))
    for number in range(20):
        child = kinds()["ModelFamily"].new("shop", f"child-{number}")
        child.metadata.ownerReferences.add(kind="ModelFamily", name="owner", uid=owner.metadata.uid)
        await resources.create(child)
    await reach(resources, TIDY_EVERY - 5)
    await resources.delete("ModelFamily", "shop", "owner")
    newest = TIDY_EVERY - 5 + 21
    assert await resources.revision() == newest
    await forgotten(tmp_path / "store.db", newest)
    await store.close()


async def test_a_watcher_of_some_kinds_hears_each_of_their_changes_once_and_in_order(tmp_path: Path) -> None:
    store, resources = await opened(tmp_path / "store.db")
    heard: list[Change] = []
    complete = asyncio.Event()

    async def listen() -> None:
        async for change in resources.watch(["ModelFamily"], 0):
            heard.append(change)
            if len(heard) == 60:
                complete.set()

    listening = asyncio.create_task(listen())
    await asyncio.gather(*(life(resources, number) for number in range(20)))
    await asyncio.wait_for(complete.wait(), PATIENCE_S)
    listening.cancel()
    await asyncio.gather(listening, return_exceptions=True)
    revisions = [change.revision for change in heard]
    assert revisions == sorted(set(revisions))
    for number in range(20):
        own = [change for change in heard if change.key.name == f"m-{number}"]
        assert [change.type for change in own] == [ChangeType.ADDED, ChangeType.MODIFIED, ChangeType.DELETED]
        assert [change.resource.metadata.resourceVersion for change in own] == [str(c.revision) for c in own]
        assert own[1].resource.spec.description == own[2].resource.spec.description == "changed"
    await store.close()


async def life(resources: Resources, number: int) -> None:
    """Create, change and delete an object."""
    made: Any = await resources.create(kinds()["ModelFamily"].new("shop", f"m-{number}"))
    made.spec.description = "changed"
    await resources.update(made)
    await resources.delete("ModelFamily", "shop", f"m-{number}")


async def test_answers_are_remembered_for_two_days(tmp_path: Path) -> None:
    store, resources = await opened(tmp_path / "store.db")
    old, young = (Request("ada Create", name, b"d" * 32) for name in ("old", "young"))
    for request in (old, young):
        await store.create(Write(kinds()["ModelFamily"].new("shop", request.id)), Trail(request=request))
    with closing(sqlite3.connect(tmp_path / "store.db")) as db:
        for request, hours in ((old, 48.1), (young, 47.9)):
            db.execute("UPDATE request SET time = ? WHERE id = ?", (time.time() - hours * 3600, request.id))
        db.commit()
    await reach(resources, TIDY_EVERY)
    async with asyncio.timeout(PATIENCE_S):
        while await store.remembered(old, "ModelFamily") is not None:  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.01)
    assert await store.remembered(young, "ModelFamily") is not None
    await store.close()
