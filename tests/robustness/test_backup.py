"""A store is put back as it was at any revision, and goes on above all that was ever handed out (guarantee G22)."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import random
import sqlite3
import time
from pathlib import Path

import pytest

from api.audit import Entry, first_break, read
from api.errors import AlreadyExists, DataLoss, Expired, FailedPrecondition, InvalidArgument, NotFound
from api.store.backup import JUMP, backup, restore
from api.store.base import NO_TRAIL, Key, Preconditions, Query, Request, Trail, Write
from api.store.sqlite import SqliteStore
from tests.robustness.results import told
from tests.robustness.stores import KIND, PROJECT, family, log

NAMES = 40
WRITES = 600
RESTORES = 20
MANY = 100_000
LONGEST_RESTORE_S = 60.0
BY = Entry(time_us=1, subject="somebody", verb="Restore", kind="Store", namespace="", name="store.db", request_id="r")


async def digest(store: SqliteStore) -> str:
    """Return what stands for everything that a list shows."""
    items = (await store.list(KIND, Query())).items
    return hashlib.sha256(b"".join(item.SerializeToString(deterministic=True) for item in items)).hexdigest()


async def churn(store: SqliteStore, count: int, seed: int) -> dict[int, str]:
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


async def test_each_revision_comes_back_as_it_was(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "store.db")
    digests = await churn(store, WRITES, seed=22)
    pick, wrong, took = random.Random(22), [], list[float]()
    # The copy is taken while the store is in use.
    writing = asyncio.create_task(churn(store, 50, seed=23))
    copied = await asyncio.to_thread(backup, tmp_path / "store.db", tmp_path / "copy.db")
    later = await writing
    await store.close()
    digests.update({revision: found for revision, found in later.items() if revision <= copied})
    for number, revision in enumerate([copied, 0, *pick.sample(sorted(digests), RESTORES - 2)]):
        path = tmp_path / f"restored-{number}.db"
        began = time.monotonic()
        restored = restore(tmp_path / "copy.db", path, BY, revision)
        again = SqliteStore(path)
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
        store="SQLite",
        trials=RESTORES,
        failed=len(wrong),
        figures=f"of {copied} revisions; longest {max(took):.2f} s",
    )
    assert wrong == []


async def test_what_is_found_by_label_comes_back_too(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "store.db")
    await store.create(Write(family("a", "x", labels={"colour": "red"})))
    stood = await store.revision()
    item = family("a", "y", labels={"colour": "blue"})
    await store.update(Write(item, str(stood)))
    await store.close()
    backup(tmp_path / "store.db", tmp_path / "copy.db")
    restore(tmp_path / "copy.db", tmp_path / "again.db", BY, stood)
    with contextlib.closing(sqlite3.connect(tmp_path / "again.db")) as db:
        assert db.execute("SELECT value FROM label WHERE key = 'colour'").fetchall() == [("red",)]
        assert db.execute("PRAGMA foreign_key_check").fetchall() == []
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)


async def test_a_page_an_answer_and_a_term_from_before_are_of_no_use(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "store.db")
    for number in range(3):
        await store.create(Write(family(f"n{number}", "x")))
    stood = await store.revision()
    request = Request("me", "5b0e0b2c-0000-4000-8000-000000000001", b"digest")
    await store.create(Write(family("undone", "x")), Trail(request=request))
    page = await store.list(KIND, Query(limit=1))
    lease = await store.acquire("controllers", "old", 60.0)
    assert lease is not None
    await store.close()
    backup(tmp_path / "store.db", tmp_path / "copy.db")
    restore(tmp_path / "copy.db", tmp_path / "again.db", BY, stood)
    again = SqliteStore(tmp_path / "again.db")
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


async def test_what_stood_there_is_kept_beside(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    store = SqliteStore(path)
    await store.create(Write(family("a", "x")))
    await store.close()
    backup(path, tmp_path / "copy.db")
    before = path.read_bytes()
    restore(tmp_path / "copy.db", path, BY)
    assert (tmp_path / "store.db.before-restore").read_bytes() == before
    assert path.stat().st_mode & 0o077 == 0
    assert not [name for name in os.listdir(tmp_path) if "unfinished" in name]


async def test_what_cannot_be_done_says_why(tmp_path: Path) -> None:
    path, copy = tmp_path / "store.db", tmp_path / "copy.db"
    with pytest.raises(NotFound):
        backup(path, copy)
    with pytest.raises(NotFound):
        restore(copy, path, BY)
    store = SqliteStore(path, window=10, window_s=0.0)
    await churn(store, 2_100, seed=1)
    await store.close()
    assert not (tmp_path / "again.db").exists()
    backup(path, copy)
    with pytest.raises(AlreadyExists):
        backup(path, copy)
    with pytest.raises(FailedPrecondition, match="take an older copy"):
        restore(copy, tmp_path / "again.db", BY, 5)
    with pytest.raises(InvalidArgument, match="ends at revision"):
        restore(copy, tmp_path / "again.db", BY, 10**6)
    (tmp_path / "noise.db").write_bytes(b"SQLite format 3\0" + bytes(5_000))
    with pytest.raises(DataLoss):
        restore(tmp_path / "noise.db", tmp_path / "again.db", BY)
    assert not (tmp_path / "again.db").exists()


@pytest.mark.robustness
async def test_a_hundred_thousand_objects_are_back_within_a_minute(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "store.db")
    for start in range(0, MANY, 1_000):
        await asyncio.gather(
            *(store.create(Write(family(f"n{start + number}", "x", size=500))) for number in range(1_000))
        )
    await store.close()
    began = time.monotonic()
    backup(tmp_path / "store.db", tmp_path / "copy.db")
    copied_s = time.monotonic() - began
    began = time.monotonic()
    restore(tmp_path / "copy.db", tmp_path / "store.db", BY)
    again = SqliteStore(tmp_path / "store.db")
    assert len((await again.list(KIND, Query(limit=500))).items) == 500
    took_s = time.monotonic() - began
    await again.close()
    told(
        "G22",
        f"a restore of {MANY:,} objects answers within {LONGEST_RESTORE_S:.0f} s",
        store="SQLite",
        trials=1,
        failed=int(took_s > LONGEST_RESTORE_S),
        figures=f"copied in {copied_s:.1f} s, restored and answering in {took_s:.1f} s",
    )
    assert took_s < LONGEST_RESTORE_S
