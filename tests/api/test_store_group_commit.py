"""Writes that wait are committed together, and stay apart in all else; where a SQLite store may stand."""

from __future__ import annotations

import asyncio
import contextlib
import resource
import sqlite3
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from api.errors import AlreadyExists, FailedPrecondition, NotFound, ResourceExhausted
from api.store import filesystem
from api.store.base import Key, Preconditions, Query, Write
from api.store.sqlite import SqliteStore
from tests.ports.stores import KIND, create, heard, key, listening, names, until
from tests.ports.stores import resource as made


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    opened = SqliteStore(tmp_path / "store.db")
    yield opened
    await opened.close()


@contextlib.asynccontextmanager
async def held(path: Path) -> AsyncIterator[None]:
    """Hold the store, so that writes gather; those that were begun before have the time to wait."""
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        try:
            yield
            await asyncio.sleep(0.1)
        finally:
            other.execute("ROLLBACK")


def traced(store: SqliteStore) -> list[str]:
    """Return a list that grows with every statement of the writer."""
    said: list[str] = []
    session: Any = store._writer._session
    session.db.driver.set_trace_callback(said.append)
    return said


async def test_writes_that_wait_share_one_commit(store: SqliteStore, tmp_path: Path) -> None:
    said = traced(store)
    async with held(tmp_path / "store.db"):
        writing = [asyncio.create_task(create(store, made(f"m-{number}"))) for number in range(60)]
    answers = await asyncio.gather(*writing)
    assert len({answer.metadata.resourceVersion for answer in answers}) == 60
    # The first waits for the lock alone, the others behind it.
    assert said.count("COMMIT") == 2
    assert sorted(await names(store, KIND, Query())) == sorted(f"m-{number}" for number in range(60))


async def test_nothing_is_answered_before_the_commit(store: SqliteStore, tmp_path: Path) -> None:
    await create(store, made("taken"))
    session: Any = store._writer._session
    commit, gate = session.commit, threading.Event()

    def late(*, changed: bool) -> None:
        gate.wait()
        commit(changed=changed)

    session.commit = late
    async with held(tmp_path / "store.db"):
        writing = [asyncio.create_task(create(store, made(name))) for name in ("a", "b", "taken", "c")]
    await asyncio.sleep(0.1)
    assert not [task for task in writing if task.done()], "a refusal may rest on a write that is not committed either"
    assert await names(store, KIND, Query()) == ["taken"]
    gate.set()
    ended = await asyncio.gather(*writing, return_exceptions=True)
    assert [isinstance(one, AlreadyExists) for one in ended] == [False, False, True, False]


async def test_what_one_write_refuses_touches_no_other_beside_it(store: SqliteStore, tmp_path: Path) -> None:
    await create(store, made("taken"))
    before = await store.revision()

    def half(db: Any, following: Any) -> None:
        following()
        db.execute("INSERT INTO label VALUES (1, 'half', 'x', 'x', 'x', 'x')")
        db.execute("INSERT INTO nowhere VALUES (1)")

    async with held(tmp_path / "store.db"):
        writing: list[asyncio.Task[Any]] = [
            asyncio.create_task(work)
            for work in (
                create(store, made("a")),
                create(store, made("taken")),
                store._write(half),
                create(store, made("b")),
                store.delete(Key(KIND, "shop", "absent"), Preconditions()),
                create(store, made("c")),
            )
        ]
    ended = await asyncio.gather(*writing, return_exceptions=True)
    assert [type(one) for one in ended if isinstance(one, BaseException)] == [
        AlreadyExists,
        sqlite3.OperationalError,
        NotFound,
    ]
    assert await names(store, KIND, Query()) == ["a", "b", "c", "taken"]
    assert await store.revision() == before + 3
    assert [change.revision for change in await heard(store, before, 3)] == [before + 1, before + 2, before + 3]
    with contextlib.closing(sqlite3.connect(tmp_path / "store.db")) as db:
        assert db.execute("SELECT count(*) FROM label WHERE key = 'half'").fetchone() == (0,)


@contextlib.contextmanager
def no_file_beyond(size: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


async def test_a_write_that_does_not_fit_leaves_room_for_those_beside_it(store: SqliteStore, tmp_path: Path) -> None:
    await create(store, made("first"))
    with no_file_beyond((tmp_path / "store.db-wal").stat().st_size + 300_000):
        async with held(tmp_path / "store.db"):
            wanted = [made("a"), made("large", text="x" * 1_000_000), made("b")]
            writing = [asyncio.create_task(create(store, one)) for one in wanted]
        ended = await asyncio.gather(*writing, return_exceptions=True)
    assert [isinstance(one, ResourceExhausted) for one in ended] == [False, True, False]
    assert await names(store, KIND, Query()) == ["a", "b", "first"]


async def test_a_watcher_hears_what_another_process_writes(store: SqliteStore, tmp_path: Path) -> None:
    program = (
        "import asyncio, pathlib, sys\n"
        "from api.store.sqlite import SqliteStore\n"
        "from tests.ports.stores import create, resource\n"
        "async def main():\n"
        "    store = SqliteStore(pathlib.Path(sys.argv[1]))\n"
        "    await create(store, resource('there'))\n"
        "    await store.close()\n"
        "asyncio.run(main())"
    )
    async with listening(store, 0) as found:
        await asyncio.sleep(0.1)
        await asyncio.to_thread(subprocess.run, [sys.executable, "-c", program, str(tmp_path / "store.db")], check=True)
        await until(lambda: found, 2.0)
    assert found[0].key == key("there")
    assert await store.get(key("there"))


async def test_a_read_by_key_waits_for_no_writer(store: SqliteStore, tmp_path: Path) -> None:
    written = await create(store, made("a"))
    async with held(tmp_path / "store.db"):
        writing = asyncio.create_task(store.create(Write(made("b"))))
        await asyncio.sleep(0.05)
        assert await store.get(key("a")) == written
        assert await names(store, KIND, Query()) == ["a"]
        assert not writing.done()
    await writing


@pytest.mark.parametrize(("number", "name"), sorted(filesystem.NETWORKED.items()))
def test_a_store_on_a_network_file_system_is_refused_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, name: str
) -> None:
    monkeypatch.setattr(filesystem, "type_of", lambda folder: number)
    with pytest.raises(FailedPrecondition) as refused:
        SqliteStore(tmp_path / "store.db")
    assert refused.value.reason == "STORE_ON_NETWORK"
    assert f"({name})" in refused.value.message
    assert not (tmp_path / "store.db").exists()


def test_the_type_of_a_file_system_is_what_the_system_says(tmp_path: Path) -> None:
    for folder in (tmp_path, Path("/proc"), Path("/dev/shm")):
        said = subprocess.run(["stat", "-f", "-c", "%t", folder], capture_output=True, text=True, check=True)
        assert filesystem.type_of(folder) == int(said.stdout, 16)
    assert filesystem.type_of(tmp_path / "absent") == 0
