"""A store of a released version is read whole, whenever its migration is cut off; a newer one is refused (G21)."""

from __future__ import annotations

import contextlib
import json
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from api.errors import FailedPrecondition
from api.kinds import kinds
from api.store.base import LabelRequirement, Query
from api.store.open import open_store
from api.store.schema import VERSION
from api.store.sqlite import SqliteStore
from tests.robustness import opening_loop
from tests.robustness.lanes import lanes
from tests.robustness.migration_loop import golden
from tests.robustness.results import told
from tests.servers import PostgresServer

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = sorted(Path(__file__).with_name("golden").glob("v*.sql"))


@pytest.fixture(params=GOLDEN, ids=lambda path: path.stem)
def old(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A store as a released version left it."""
    path = tmp_path / "store.db"
    golden(request.param, path)
    return path


def rows(path: Path, statement: str) -> list[Any]:
    with contextlib.closing(sqlite3.connect(path)) as db:
        return db.execute(statement).fetchall()


async def test_everything_in_an_old_store_is_read_and_found(old: Path) -> None:
    bodies = {row[:3]: row[3] for row in rows(old, "SELECT kind, namespace, name, body FROM object")}
    labels = rows(old, "SELECT object.name FROM label JOIN object ON object.id = object WHERE key = 'colour'")
    ((revision,),) = rows(old, "SELECT revision FROM counter")
    ((changes,),) = rows(old, "SELECT count(*) FROM change")
    store = SqliteStore(old)
    try:
        found = {}
        for kind in kinds():
            for item in (await store.list(kind, Query())).items:
                metadata = item.metadata
                found[kind, metadata.namespace, metadata.name] = item.SerializeToString(deterministic=True)
        assert found == bodies
        coloured = await store.list("ModelFamily", Query(labels=(LabelRequirement("colour", "exists"),)))
        assert sorted(item.metadata.name for item in coloured.items) == sorted(name for (name,) in labels)
        assert await store.revision() == revision
        watch, seen = store.watch(tuple(kinds()), 0), 0
        async for change in watch:
            seen += 1
            if change.revision == revision:
                break
        assert seen == changes
        lease = await store.acquire("another", "me", 1.0)
        assert lease is not None
    finally:
        await store.close()
    assert rows(old, "SELECT version FROM schema_version") == [(VERSION,)]
    assert rows(old, "PRAGMA integrity_check") == [("ok",)]


@pytest.mark.parametrize("every", lanes(p=11, c=1))
@pytest.mark.parametrize("script", GOLDEN, ids=lambda path: path.stem)
def test_a_migration_that_is_killed_at_any_statement_is_resumed(script: Path, tmp_path: Path, every: int) -> None:
    report = run("tests.robustness.migration_loop", script, tmp_path, every)
    told(
        "G21",
        f"a migration from {script.stem} that is killed at any statement is resumed",
        store="SQLite",
        trials=report["kills"],
        failed=len(report["faults"]),
    )
    assert report["faults"] == []
    assert report["kills"] > 100 // every


async def test_a_migration_runs_in_postgresql_too(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    await opening_loop.fill(postgres_url)
    opening_loop.plant(monkeypatch.setattr)
    store = await open_store(postgres_url)
    assert len((await store.list("ModelFamily", Query())).items) == opening_loop.OBJECTS
    await store.close()
    found = opening_loop.content(postgres_url)
    assert found["schema_version"] == [f"({VERSION + 1},)"]
    assert any("label_length" in index for index in found["indexes"])


@pytest.mark.robustness
@pytest.mark.parametrize("beginning", ["old", "empty"])
def test_an_opening_that_is_cut_off_at_any_statement_is_resumed(postgres: PostgresServer, beginning: str) -> None:
    report = run("tests.robustness.opening_loop", beginning, postgres.url(), 1)
    what = {"old": "a migration with its new indexes", "empty": "the making of tables"}[beginning]
    told(
        "G21",
        f"{what}, cut off at any statement, is resumed",
        store="PostgreSQL",
        trials=report["cuts"],
        failed=len(report["faults"]),
        figures=f"{report['statements']} statements; the program or PostgreSQL's process killed in turns",
    )
    assert report["faults"] == []
    assert report["cuts"] > 40


def run(module: str, *arguments: object) -> Any:
    """Return what a program of these tests found."""
    ran = subprocess.run(
        [sys.executable, "-m", module, *map(str, arguments)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=1800,
        check=False,
    )
    assert ran.stdout, ran.stderr[-2000:]
    return json.loads(ran.stdout)


def test_a_store_of_a_newer_release_is_refused_and_stays_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    golden(GOLDEN[-1], path)
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.execute("UPDATE schema_version SET version = ?", (VERSION + 1,))
        db.commit()
        before = list(db.iterdump())
    with pytest.raises(FailedPrecondition, match="newer release") as refused:
        SqliteStore(path)
    assert refused.value.reason == "STORE_TOO_NEW"
    with contextlib.closing(sqlite3.connect(path)) as db:
        assert list(db.iterdump()) == before
