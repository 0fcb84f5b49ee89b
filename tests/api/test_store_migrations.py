"""Stores of older releases open, whatever interrupts that; those of newer ones are refused."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from api.errors import FailedPrecondition
from api.kinds import kinds
from api.store import reindex, schema
from api.store.base import Criterion, Key, LabelRequirement, Operator, Preconditions, Query, Trail, Write
from api.store.sqlite import SqliteStore
from tests.api import old_stores
from tests.ports.stores import entry, heard, names


@pytest.mark.parametrize("trail", [False, True])
async def test_a_store_of_the_first_release_keeps_all_it_has(tmp_path: Path, trail: bool) -> None:
    path = tmp_path / "store.db"
    made = old_stores.first(path, trail=trail)
    store = SqliteStore(path)
    assert [await store.get(Key("Model", "shop", one.metadata.name)) for one in made] == made
    assert await store.revision() == 3
    assert [change.resource for change in await heard(store, 0, 3, ["Model"])] == made
    for query, found in (
        (Query(labels=(LabelRequirement("team", "in", ("t1",)),)), ["m-1", "m-3"]),
        (Query(where=Criterion("algorithm", Operator.EQUAL, ("a0",))), ["m-2"]),
        (Query(where=Criterion("description", Operator.EQUAL, ("x" * 300,))), ["m-1", "m-2", "m-3"]),
        (Query(order=(("metadata.creation_timestamp", True),)), ["m-3", "m-2", "m-1"]),
    ):
        assert await names(store, "Model", query) == found
    lease = await store.acquire("leader", "b", 5.0)
    assert lease is not None
    assert lease.epoch == 8
    new = kinds()["Model"].new("shop", "new")
    assert (await store.create(Write(new), Trail(audit=entry("new")))).metadata.resourceVersion == "4"
    await store.delete(Key("Model", "shop", "m-1"), Preconditions())
    assert await names(store, "Model", Query()) == ["new"], "what was owned is known too"
    await store.close()


def test_an_opening_that_is_killed_at_any_statement_begins_anew(tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "tests.api.old_stores", str(tmp_path)], capture_output=True, text=True, check=True
    )
    killed, different = map(int, ended.stdout.split())
    assert killed > 30
    assert different == 1


def test_a_migrated_store_has_the_tables_of_a_new_one(tmp_path: Path) -> None:
    columns, indexes = [], []
    old_stores.first(tmp_path / "old.db", trail=False)
    for name in ("old.db", "new.db"):
        db = old_stores.opened(tmp_path / name)
        tables = [row[0] for row in db.execute("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name")]
        columns.append({table: [row[1] for row in db.execute(f"PRAGMA table_info({table})")] for table in tables})
        indexes.append(db.execute("SELECT sql FROM sqlite_master WHERE type = 'index' ORDER BY name").fetchall())
        db.close()
    assert columns[0] == columns[1]
    assert indexes[0] == indexes[1]


async def test_a_store_whose_making_was_interrupted_is_made_anew(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    path.touch(0o600)
    with closing(sqlite3.connect(path)) as db:
        db.executescript(old_stores.FIRST)
    store = SqliteStore(path)
    assert await store.revision() == 0
    await store.close()


async def test_a_store_of_a_newer_release_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    await SqliteStore(path).close()
    with closing(sqlite3.connect(path)) as db:
        db.execute("UPDATE schema_version SET version = ?", (schema.VERSION + 1,))
        db.commit()
        before = list(db.iterdump())
    with pytest.raises(FailedPrecondition, match="newer release") as refused:
        SqliteStore(path)
    assert refused.value.reason == "STORE_TOO_NEW"
    with closing(sqlite3.connect(path)) as db:
        assert list(db.iterdump()) == before


async def test_objects_are_indexed_again_when_their_kind_declares_other_indexes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "store.db"
    store = SqliteStore(path)
    for number in range(reindex.STEP + 3):
        await store.create(Write(kinds()["ModelFamily"].new("shop", f"m-{number}")))
    await store.close()
    with closing(sqlite3.connect(path)) as db:
        db.execute("DELETE FROM field")
        db.commit()
    wanted = Query(where=Criterion("metadata.creation_timestamp", Operator.IS_NOT_NULL))
    same = SqliteStore(path)
    assert await names(same, "ModelFamily", wanted) == []
    await same.close()
    monkeypatch.setattr(reindex, "GENERIC", reindex.GENERIC + 1)
    again = SqliteStore(path)
    assert len(await names(again, "ModelFamily", wanted)) == reindex.STEP + 3
    await again.close()


def test_alembic_is_loaded_for_an_old_store_alone(tmp_path: Path) -> None:
    old_stores.first(tmp_path / "old.db", trail=True)
    program = (
        "import sys, pathlib; from api.store.sqlite import SqliteDatabase; from api.store import opening\n"
        "opening.prepare(SqliteDatabase(pathlib.Path(sys.argv[1]))); print('alembic' in sys.modules)"
    )
    for name, loaded in (("new.db", "False"), ("new.db", "False"), ("old.db", "True"), ("old.db", "False")):
        ended = subprocess.run(
            [sys.executable, "-c", program, str(tmp_path / name)], capture_output=True, text=True, check=True
        )
        assert ended.stdout.strip() == loaded
