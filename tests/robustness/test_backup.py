"""A store is put back as it was at any revision, and goes on above all that was ever handed out (guarantee G22)."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import random
import sqlite3
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from api.audit import Entry, first_break, read
from api.errors import AlreadyExists, DataLoss, Expired, FailedPrecondition, InvalidArgument, NotFound
from api.store.backup import JUMP, backup, restore
from api.store.base import NO_TRAIL, Key, Preconditions, Query, Request, Store, Trail, Write
from api.store.open import open_store
from tests.robustness.lanes import lanes
from tests.robustness.results import told
from tests.robustness.stores import KIND, PROJECT, family, log
from tests.servers import PostgresServer

NAMES = 40
WRITES_FOR_EACH = 20
MANY = 100_000
LONGEST_RESTORE_S = 60.0
BY = Entry(time_us=1, subject="somebody", verb="Restore", kind="Store", namespace="", name="store.db", request_id="r")


@dataclass(frozen=True)
class Places:
    """Empty places of one kind of store.  name: for people; fresh: returns the URL of another one."""

    name: str
    fresh: Callable[[], str]


@pytest.fixture(params=["SQLite", "PostgreSQL"])
def places(request: pytest.FixtureRequest, tmp_path: Path) -> Places:
    """Places of a test alone."""
    if request.param == "PostgreSQL":
        server: PostgresServer = request.getfixturevalue("postgres")
        return Places("PostgreSQL", lambda: server.url(server.database()))
    numbers = iter(range(1_000))
    return Places("SQLite", lambda: f"sqlite:///{tmp_path}/store-{next(numbers)}.db")


async def digest(store: Store) -> str:
    """Return what stands for everything that a list shows."""
    items = (await store.list(KIND, Query())).items
    return hashlib.sha256(b"".join(item.SerializeToString(deterministic=True) for item in items)).hexdigest()


async def churn(store: Store, count: int, seed: int) -> dict[int, str]:
    """Create, change and delete; return the digest at each revision."""
    pick, digests = random.Random(seed), {await store.revision(): await digest(store)}
    known = {item.metadata.name: item.metadata.resourceVersion for item in (await store.list(KIND, Query())).items}
    for number in range(count):
        name = f"n{pick.randrange(NAMES)}"
        if name in known and pick.random() < 0.25:
            await store.delete(Key(KIND, PROJECT, name), Preconditions())
            del known[name]
        else:
            item = family(name, f"{seed}-{number}", labels={"a": str(pick.randrange(3))})
            made = await (store.update(Write(item, known[name])) if name in known else store.create(Write(item)))
            known[name] = made.metadata.resourceVersion
        digests[await store.revision()] = await digest(store)
    return digests


@pytest.mark.parametrize("restores", lanes(p=3, c=20))
async def test_each_revision_comes_back_as_it_was(places: Places, tmp_path: Path, restores: int) -> None:
    url, copy = places.fresh(), tmp_path / "copy.db"
    store = await open_store(url)
    digests = await churn(store, WRITES_FOR_EACH * restores, seed=22)
    pick, wrong, took = random.Random(22), [], list[float]()
    # The copy is taken while the store is in use.
    writing = asyncio.create_task(churn(store, 5 * restores, seed=23))
    copied = await asyncio.to_thread(backup, url, copy)
    later = await writing
    await store.close()
    digests.update({revision: found for revision, found in later.items() if revision <= copied})
    for revision in [copied, 0, *pick.sample(sorted(digests), restores - 2)]:
        began, place = time.monotonic(), places.fresh()
        restored = await asyncio.to_thread(restore, copy, place, BY, revision)
        again = await open_store(place)
        took.append(time.monotonic() - began)
        if await digest(again) != digests[revision]:
            wrong.append(revision)
        assert restored.newest == copied + JUMP == await again.revision()
        with pytest.raises(Expired):
            await anext(again.watch([KIND], max(later)))
        made = await again.create(Write(family("afterwards", "x")))
        assert int(made.metadata.resourceVersion) == copied + JUMP + 1
        assert [event.key for event in await log(again, copied + JUMP)] == ["afterwards"]
        await again.close()
    told(
        "G22",
        "a restore to a revision shows the list of that revision",
        store=places.name,
        trials=restores,
        failed=len(wrong),
        figures=f"of {copied} revisions; longest {max(took):.2f} s",
    )
    assert wrong == []


async def test_a_store_goes_from_one_kind_to_the_other_and_back(postgres_url: str, tmp_path: Path) -> None:
    first, copies = f"sqlite:///{tmp_path}/first.db", [tmp_path / f"{number}.db" for number in range(3)]
    store = await open_store(first)
    await churn(store, 200, seed=5)
    odd = family("odd", "nul \0 and \1, \u20ac", labels={"a": "\1\0"})
    await store.create(Write(odd), Trail(audit=BY, request=Request("me", "id \0", b"digest")))
    stood = {name: await lists(store, name) for name in ("ModelFamily", "Project")}
    await store.close()
    backup(first, copies[0])
    restore(copies[0], postgres_url, BY)
    store = await open_store(postgres_url)
    assert {name: await lists(store, name) for name in stood} == stood
    assert await store.remembered(Request("me", "id \0", b"digest"), KIND) == odd
    assert first_break(await store.audit(0, 10)) is None
    # Rows written afterwards have numbers of their own.
    await store.create(Write(family("another", "x")))
    await store.delete(Key(KIND, PROJECT, "another"), Preconditions())
    await store.close()
    backup(postgres_url, copies[1])
    restore(copies[1], f"sqlite:///{tmp_path}/last.db", BY)
    store = await open_store(f"sqlite:///{tmp_path}/last.db")
    assert {name: await lists(store, name) for name in stood} == stood
    assert [read(record.body).verb for record in await store.audit(0, 10)] == ["Restore"] * 3
    assert first_break(await store.audit(0, 10)) is None
    await store.close()
    for table in ("object", "field", "label", "owner", "request"):
        assert rows(tmp_path / "first.db", table) == rows(tmp_path / "last.db", table), table


async def lists(store: Store, kind: str) -> list[bytes]:
    """Return a list as bytes."""
    return [item.SerializeToString(deterministic=True) for item in (await store.list(kind, Query())).items]


def rows(path: Path, table: str) -> list[tuple[object, ...]]:
    """Return the rows of a table."""
    with contextlib.closing(sqlite3.connect(path)) as db:
        return sorted(db.execute(f"SELECT * FROM {table}").fetchall(), key=repr)


async def test_what_is_found_by_label_comes_back_too(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/store.db"
    store = await open_store(url)
    await store.create(Write(family("a", "x", labels={"colour": "red"})))
    stood = await store.revision()
    item = family("a", "y", labels={"colour": "blue"})
    await store.update(Write(item, str(stood)))
    await store.close()
    backup(url, tmp_path / "copy.db")
    restore(tmp_path / "copy.db", f"sqlite:///{tmp_path}/again.db", BY, stood)
    with contextlib.closing(sqlite3.connect(tmp_path / "again.db")) as db:
        assert db.execute("SELECT value FROM label WHERE key = 'colour'").fetchall() == [("red",)]
        assert db.execute("PRAGMA foreign_key_check").fetchall() == []
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)


async def test_a_page_an_answer_and_a_term_from_before_are_of_no_use(places: Places, tmp_path: Path) -> None:
    url = places.fresh()
    store = await open_store(url)
    for number in range(3):
        await store.create(Write(family(f"n{number}", "x")))
    stood = await store.revision()
    request = Request("me", "5b0e0b2c-0000-4000-8000-000000000001", b"digest")
    await store.create(Write(family("undone", "x")), Trail(request=request))
    page = await store.list(KIND, Query(limit=1))
    lease = await store.acquire("controllers", "old", 60.0)
    assert lease is not None
    await store.close()
    backup(url, tmp_path / "copy.db")
    place = places.fresh()
    restore(tmp_path / "copy.db", place, BY, stood)
    again = await open_store(place)
    try:
        with pytest.raises(Expired):
            await again.list(KIND, Query(limit=1, start=page.next))
        assert await again.remembered(request, KIND) is None
        assert NO_TRAIL.request is None
        taken = await again.acquire("controllers", "new", 60.0)
        assert taken is not None
        assert taken.epoch > lease.epoch + 1
        records = await again.audit(0, 10)
        assert first_break(records) is None
        assert read(records[-1].body).verb == "Restore"
    finally:
        await again.close()


async def test_the_same_copy_restored_again_goes_on_above_the_first_time(places: Places, tmp_path: Path) -> None:
    url, copy, handed_out = places.fresh(), tmp_path / "copy.db", 0
    for number in range(3):
        store = await open_store(url)
        made = await store.create(Write(family(f"n{number}", "x")))
        lease = await store.acquire("controllers", "one", 60.0)
        assert lease is not None
        assert int(made.metadata.resourceVersion) > handed_out
        handed_out, epoch = int(made.metadata.resourceVersion), lease.epoch
        await store.close()
        if number == 0:
            backup(url, copy)
        assert restore(copy, url, BY, replace=True).newest > handed_out
        store = await open_store(url)
        following = await store.acquire("controllers", "another", 60.0)
        assert following is not None
        assert following.epoch > epoch + 1
        await store.release(following)
        await store.close()


async def test_what_stood_there_is_kept_beside(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    url = f"sqlite:///{path}"
    store = await open_store(url)
    await store.create(Write(family("a", "x")))
    await store.close()
    backup(url, tmp_path / "copy.db")
    store = await open_store(url)
    await store.create(Write(family("later", "x")))
    await store.close()
    restore(tmp_path / "copy.db", url, BY)
    for name, stood in (("store.db", ["a"]), ("store.db.before-restore", ["a", "later"])):
        store = await open_store(f"sqlite:///{tmp_path}/{name}")
        assert [item.metadata.name for item in (await store.list(KIND, Query())).items] == stood
        await store.close()
        assert (tmp_path / name).stat().st_mode & 0o077 == 0
    left = {"store.db", "store.db.ballast", "store.db.before-restore", "store.db.before-restore.ballast", "copy.db"}
    assert set(os.listdir(tmp_path)) == left


async def test_a_store_that_cannot_be_read_is_replaced_and_kept(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    url = f"sqlite:///{path}"
    store = await open_store(url)
    await store.create(Write(family("a", "x")))
    await store.close()
    backup(url, tmp_path / "copy.db")
    for damage in (b"SQLite format 3\0" + bytes(5_000), b"noise" * 1_000, path.read_bytes()[:-8_192]):
        path.write_bytes(damage)
        assert restore(tmp_path / "copy.db", url, BY).objects == 1
        assert (tmp_path / "store.db.before-restore").read_bytes() == damage
        await (await open_store(url)).close()


async def test_a_server_that_starts_during_a_restore_finds_the_new_store(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    url = f"sqlite:///{path}"
    store = await open_store(url)
    await store.create(Write(family("a", "x")))
    await store.close()
    backup(url, tmp_path / "copy.db")
    started = threading.Event()

    def start() -> int:
        started.set()
        return asyncio.run(write())

    async def write() -> int:
        begun = await open_store(url)
        made = await begun.create(Write(family("b", "x")))
        await begun.close()
        return int(made.metadata.resourceVersion)

    with ThreadPoolExecutor(1) as pool:

        def while_it_is_restored(_: object) -> None:
            made.append(pool.submit(start))
            started.wait()
            time.sleep(0.3)

        made: list[Future[int]] = []
        restored = await asyncio.to_thread(restore, tmp_path / "copy.db", url, BY, also=while_it_is_restored)
        assert await asyncio.to_thread(made[0].result) == restored.newest + 1
    store = await open_store(url)
    assert [item.metadata.name for item in (await store.list(KIND, Query())).items] == ["a", "b"]
    await store.close()


async def test_what_a_database_holds_is_replaced_only_when_that_is_said(postgres_url: str, tmp_path: Path) -> None:
    store = await open_store(postgres_url)
    await store.close()
    url = f"sqlite:///{tmp_path}/store.db"
    await (await open_store(url)).close()
    backup(url, tmp_path / "copy.db")
    # Tables without anything in them are nothing that could be lost.
    restore(tmp_path / "copy.db", postgres_url, BY)
    with pytest.raises(FailedPrecondition, match="holds a store of 0 objects") as refused:
        restore(tmp_path / "copy.db", postgres_url, BY)
    assert refused.value.reason == "STORE_NOT_EMPTY"
    restore(tmp_path / "copy.db", postgres_url, BY, replace=True)


async def test_a_store_in_use_is_not_replaced(places: Places, tmp_path: Path) -> None:
    url = places.fresh()
    store = await open_store(url)
    await store.create(Write(family("a", "x")))
    backup(url, tmp_path / "copy.db")
    with pytest.raises(FailedPrecondition) as refused:
        await asyncio.to_thread(restore, tmp_path / "copy.db", url, BY, replace=True)
    assert refused.value.reason == "STORE_IN_USE"
    await store.create(Write(family("b", "x")))
    await store.close()
    assert restore(tmp_path / "copy.db", url, BY, replace=True).objects == 1


async def test_what_cannot_be_done_says_why(tmp_path: Path) -> None:
    url, copy = f"sqlite:///{tmp_path}/store.db", tmp_path / "copy.db"
    again = f"sqlite:///{tmp_path}/again.db"
    with pytest.raises(NotFound):
        backup(url, copy)
    assert os.listdir(tmp_path) == []
    with pytest.raises(NotFound):
        restore(copy, url, BY)
    store = await open_store(url, window=10, window_s=0.0)
    for start in range(0, 2_100, 100):
        await asyncio.gather(*(store.create(Write(family(f"n{start + number}", "x"))) for number in range(100)))
    await store.close()
    backup(url, copy)
    with pytest.raises(AlreadyExists):
        backup(url, copy)
    with pytest.raises(FailedPrecondition, match="take an older copy"):
        restore(copy, again, BY, 5)
    with pytest.raises(InvalidArgument, match="ends at revision"):
        restore(copy, again, BY, 10**6)
    (tmp_path / "noise.db").write_bytes(b"SQLite format 3\0" + bytes(5_000))
    with pytest.raises(DataLoss):
        restore(tmp_path / "noise.db", again, BY)
    assert not (tmp_path / "again.db").exists()
    with pytest.raises(InvalidArgument):
        backup("mysql://user:secret@host/ma", tmp_path / "other.db")
    for refused in (
        lambda: backup("etcd://host:2379", tmp_path / "other.db"),
        lambda: restore(copy, "etcd://host", BY),
    ):
        with pytest.raises(FailedPrecondition, match="etcdctl snapshot save"):
            refused()


async def test_an_empty_database_has_no_store_to_copy(postgres_url: str, tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        backup(postgres_url, tmp_path / "copy.db")
    assert os.listdir(tmp_path) == []


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of a large store."""

    async def fill(url: str) -> None:
        store = await open_store(url)
        for start in range(0, MANY, 1_000):
            made = [store.create(Write(family(f"n{start + number}", "x", size=500))) for number in range(1_000)]
            await asyncio.gather(*made)
        await store.close()

    folder = tmp_path_factory.mktemp("large")
    asyncio.run(fill(f"sqlite:///{folder}/store.db"))
    backup(f"sqlite:///{folder}/store.db", folder / "copy.db")
    return folder / "copy.db"


@pytest.mark.robustness
def test_a_hundred_thousand_objects_are_back_within_a_minute(places: Places, tmp_path: Path, large: Path) -> None:
    async def first_page() -> int:
        store = await open_store(url)
        found = await store.list(KIND, Query(limit=500))
        await store.close()
        return len(found.items)

    url, began = places.fresh(), time.monotonic()
    restore(large, url, BY)
    assert asyncio.run(first_page()) == 500
    took_s = time.monotonic() - began
    began = time.monotonic()
    backup(url, tmp_path / "copy.db")
    copied_s = time.monotonic() - began
    told(
        "G22",
        f"a restore of {MANY:,} objects answers within {LONGEST_RESTORE_S:.0f} s",
        store=places.name,
        trials=1,
        failed=int(took_s > LONGEST_RESTORE_S),
        figures=f"restored and answering in {took_s:.1f} s, copied in {copied_s:.1f} s",
    )
    assert took_s < LONGEST_RESTORE_S
