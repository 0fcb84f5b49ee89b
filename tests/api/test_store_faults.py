"""What a store that fails says, and that it works again: full, locked, damaged; callers that leave; watchers told."""

from __future__ import annotations

import asyncio
import contextlib
import resource
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from api.errors import DataLoss, FailedPrecondition, ResourceExhausted, Unavailable
from api.kinds import kinds
from api.resources import Resources
from api.store import sqlite
from api.store.base import Key, Write
from api.store.sqlite import SqliteStore

WAIT_S = 5.0
FULL = 2
SETTINGS = {"journal_mode": "wal", "synchronous": FULL}


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    made = SqliteStore(tmp_path / "store.db")
    await Resources(made).create(kinds()["Project"].new("shop", "shop"))
    yield made
    await made.close()


def family(name: str, size: int = 10) -> Any:
    new = kinds()["ModelFamily"].new("shop", name)
    new.spec.description = "x" * size
    return new


@contextlib.contextmanager
def no_file_beyond(size: int) -> Iterator[None]:
    """Let every write beyond `size` bytes of a file fail, as it would on a disk that is full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


async def test_a_write_that_the_disk_refuses_says_so_and_reads_go_on(store: SqliteStore, tmp_path: Path) -> None:
    resources = Resources(store)
    before = await resources.revision()
    with no_file_beyond((tmp_path / "store.db-wal").stat().st_size + 10_000):
        for _ in range(3):
            with pytest.raises(ResourceExhausted) as refused:
                await resources.create(family("large", 500_000))
            assert refused.value.reason == "DISK_FULL"
            assert "volume of the resource store" in refused.value.message
        assert await resources.revision() == before
        assert (await resources.get("Project", "shop", "shop")).metadata.name == "shop"
    await resources.create(family("large", 500_000))
    assert await resources.revision() == before + 1


async def test_a_store_that_another_process_holds_is_unavailable_and_comes_back(
    store: SqliteStore, tmp_path: Path
) -> None:
    resources = Resources(store)
    await store._lease(lambda db: db.execute("PRAGMA busy_timeout = 50").fetchone())
    with contextlib.closing(sqlite3.connect(tmp_path / "store.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(Unavailable) as refused:
            await resources.create(family("waiting"))
        assert refused.value.reason == "STORE_BUSY"
        with pytest.raises(Unavailable):
            await resources.acquire("leader", "me", 1.0)
        other.execute("ROLLBACK")
    await resources.create(family("waiting"))


async def test_a_page_that_is_damaged_while_the_server_runs_is_data_loss(store: SqliteStore, tmp_path: Path) -> None:
    resources = Resources(store)
    for number in range(200):
        await resources.create(family(f"m-{number}", 2_000))
    path = tmp_path / "store.db"
    with contextlib.closing(sqlite3.connect(path)) as other:
        assert other.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0] == 0
    spoil(path)
    for read in (store._read, store._lease, store._point):
        # What is still in memory is not damaged.
        with contextlib.suppress(DataLoss):
            await read(lambda db: db.execute("PRAGMA shrink_memory").fetchall())
    damaged: list[Callable[[], Awaitable[object]]] = [
        lambda: resources.list("ModelFamily"),
        lambda: resources.get("ModelFamily", "shop", "m-100"),
        lambda: resources.create(family("another")),
    ]
    for call in damaged:
        with pytest.raises(DataLoss) as refused:
            await call()
        assert refused.value.reason == "STORE_CORRUPT"


async def test_a_damaged_page_of_a_large_store_is_found_while_it_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "store.db"
    whole = SqliteStore(path)
    resources = Resources(whole)
    await resources.create(kinds()["Project"].new("shop", "shop"))
    for number in range(200):
        await resources.create(family(f"m-{number}", 2_000))
    await whole.close()
    with path.open("r+b") as file:
        for page in range(60, path.stat().st_size // 4096, 7):
            file.seek(page * 4096)
            file.write(b"\0" * 4096)
    monkeypatch.setattr(sqlite, "CHECKED_BYTES", 100_000)
    damaged = SqliteStore(path)
    async with asyncio.timeout(WAIT_S):
        while damaged._damage is None:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    for call in (damaged.revision, lambda: damaged.get(Key("Project", "shop", "shop"))):
        with pytest.raises(DataLoss) as refused:
            await call()
        assert refused.value.reason == "STORE_CORRUPT"
    await damaged.close()


def spoil(path: Path) -> None:
    size = path.stat().st_size
    with path.open("r+b") as file:
        for page in range(2, size // 4096):
            file.seek(page * 4096)
            file.write(b"\xff" * 4096)


async def test_an_answer_waits_for_the_disk(store: SqliteStore) -> None:
    # A killed process loses nothing either way; only these settings keep what was answered over a power loss.
    found = await store._write(lambda db, _: [db.execute(f"PRAGMA {name}").fetchone()[0] for name in SETTINGS])
    assert dict(zip(SETTINGS, found, strict=True)) == SETTINGS


async def test_a_closed_store_says_so(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "store.db")
    await store.close()
    await store.close()
    with pytest.raises(FailedPrecondition) as refused:
        await store.revision()
    assert refused.value.reason == "STORE_CLOSED"


async def test_watchers_hear_of_a_write_whose_caller_left(store: SqliteStore, tmp_path: Path) -> None:
    resources, heard = Resources(store), asyncio.Event()

    async def listen() -> None:
        async for change in resources.watch(["ModelFamily"], await resources.revision()):
            if change.key == Key("ModelFamily", "shop", "left"):
                heard.set()

    listening = asyncio.create_task(listen())
    await asyncio.sleep(0.05)
    new = family("left")
    new.metadata.uid = "00000000-0000-4000-8000-000000000001"
    with contextlib.closing(sqlite3.connect(tmp_path / "store.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        writing = asyncio.create_task(store.create(Write(new)))
        await asyncio.sleep(0.1)
        # The write has begun and waits for the lock; nobody waits for the write any more.
        writing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await writing
        other.execute("ROLLBACK")
    await asyncio.wait_for(heard.wait(), WAIT_S)
    listening.cancel()
    await asyncio.gather(listening, return_exceptions=True)


async def test_nothing_is_created_in_a_project_that_is_being_deleted(store: SqliteStore) -> None:
    resources = Resources(store)
    project = await resources.get("Project", "shop", "shop")
    await resources.set_finalizer(project, "a.example/held", present=True)
    await resources.create(family("before"))
    await resources.delete("Project", "shop", "shop")
    before = await resources.revision()
    with pytest.raises(FailedPrecondition) as refused:
        await resources.create(family("after"))
    assert refused.value.reason == "PROJECT_DELETED"
    assert await resources.revision() == before
    held = await resources.get("ModelFamily", "shop", "before")
    held.spec.description = "what is there can still be changed"
    await resources.update(held)
