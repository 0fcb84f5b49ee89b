"""A page costs what it holds: SQLite and PostgreSQL do the same work for it in a store ten times as large."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest

from api.kinds import kinds
from api.store import conditions, pages, records
from api.store.base import ChangeType, Criterion, Group, LabelRequirement, Operator, Query
from api.store.database import Database, Dialect
from api.store.sqlite import SqliteDatabase
from api.store.values import UPDATED_LABEL
from tests.ports.stores import Place

KIND = "Model"
SMALL, LARGE, HITS = 400, 4000, 25
# A tree of ten times as many entries may be one level deeper.
DEEPER = 1.7
FEW = LabelRequirement("few", "in", ("1",))
HALF = LabelRequirement("half", "in", ("1",))

QUERIES: Mapping[str, Query] = {
    "all": Query(),
    "one namespace": Query("p-1"),
    "some namespaces": Query(namespaces=frozenset({"p-1", "p-3"})),
    "a label that few have": Query(labels=(FEW,)),
    "a label that few have, among some": Query(labels=(LabelRequirement("few", "in", ("1", "2")),)),
    "a label key that few have": Query(labels=(LabelRequirement("rare", "exists"),)),
    "a label that half have": Query(labels=(HALF,)),
    "a label that half have, in some namespaces": Query(labels=(HALF,), namespaces=frozenset({"p-1", "p-2"})),
    "both": Query(labels=(HALF, FEW)),
    "what few have not": Query(labels=(HALF, LabelRequirement("few", "notin", ("1",)))),
    "a text": Query(where=Criterion("algorithm", Operator.EQUAL, ("a-1",))),
    "a long text": Query(where=Criterion("description", Operator.EQUAL, ("x" * 300,))),
    "some texts": Query(where=Criterion("algorithm", Operator.IN, ("a-1", "a-2"))),
    "the beginning of a text": Query(where=Criterion("description", Operator.LIKE, ("x%",))),
    "a name": Query(where=Criterion("metadata.name", Operator.EQUAL, ("m-00007",))),
    "a number": Query(where=Criterion("revision_id", Operator.EQUAL, (1,))),
    "large numbers": Query(where=Criterion("metadata.creation_timestamp", Operator.LESS_THAN, (HITS * 1_000_000,))),
    "a field that few have": Query(where=Criterion("owner", Operator.IS_NOT_NULL)),
    "a field and a label": Query(
        labels=(HALF,), where=Group((Group((Criterion("algorithm", Operator.EQUAL, ("a-1",)),)),))
    ),
    "all, newest first": Query(order=(("metadata.creation_timestamp", True),)),
    "half, oldest first": Query(labels=(HALF,), order=(("metadata.creation_timestamp", False),)),
    "a namespace, last updated first": Query("p-1", order=(("metadata.update_timestamp", True),)),
    "a namespace, newest first": Query("p-2", order=(("metadata.creation_timestamp", True),)),
    "a small namespace, oldest first": Query("q", order=(("metadata.creation_timestamp", False),)),
    "a filled namespace, newest first": Query("r", order=(("metadata.creation_timestamp", True),)),
    "few, newest first": Query(labels=(FEW,), order=(("metadata.creation_timestamp", True),)),
}


async def fill(store: Any, first: int, last: int) -> None:
    """Store objects, of which HITS meet each condition that few meet."""

    def work(db: Database, following: Callable[[], int]) -> None:
        for number in range(first, last):
            # Of r, all objects are older than those of the other namespaces.
            namespace = "q" if number < HITS else "r" if number < 6 * HITS else f"p-{number % 4}"
            made = kinds()[KIND].new(namespace, f"m-{number:05d}")
            made.metadata.uid = f"uid-{number}"
            made.metadata.creationTimestamp.seconds = number
            group = str(number // HITS)
            made.metadata.labels.update({"half": str(number % 2), "few": group, UPDATED_LABEL: str(number)})
            made.spec.algorithm, made.spec.revision_id = f"a-{group}", number // HITS
            if number < HITS:
                made.metadata.labels["rare"] = "yes"
                made.spec.owner.name, made.spec.description = "ada", "x" * 300
            records.put(db, made, following(), ChangeType.ADDED, None)

    await store._write(work)


class Steps:
    """SQLite, which tells how many instructions it carried out."""

    def __init__(self, db: SqliteDatabase) -> None:
        self._db, self.cost = db, 0

    @property
    def dialect(self) -> Dialect:
        return self._db.dialect

    def execute(self, statement: str, values: Sequence[Any] = ()) -> Any:
        def count() -> int:
            self.cost += 1
            return 0

        self._db.driver.set_progress_handler(count, 1)
        rows = Read(self._db.execute(statement, values).fetchall())
        self._db.driver.set_progress_handler(None, 0)
        return rows


class Read:
    """Rows that were all read."""

    def __init__(self, rows: list[Any]) -> None:
        self._rows = rows

    def fetchall(self) -> list[Any]:
        return self._rows

    def fetchone(self) -> Any:
        return self._rows[0] if self._rows else None


class Buffers:
    """PostgreSQL, which tells how many pages it looked at."""

    def __init__(self, db: Database) -> None:
        self._db, self.cost = db, 0

    @property
    def dialect(self) -> Dialect:
        return self._db.dialect

    def execute(self, statement: str, values: Sequence[Any] = ()) -> Any:
        if "FROM counter" in statement:
            # One row, and what a large transaction left of it.
            return self._db.execute(statement, values)
        explain = f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {statement}"
        (told,) = self._db.execute(explain, values).fetchone()
        plan = (json.loads(told) if isinstance(told, str) else told)[0]["Plan"]
        self.cost += plan["Shared Hit Blocks"] + plan["Shared Read Blocks"]
        assert "Seq Scan" not in json.dumps(plan), f"{statement}: {json.dumps(plan)}"
        return self._db.execute(statement, values)


async def cost(store: Any, query: Query) -> tuple[int, int]:
    """Return what a page and the one after it cost, and how many objects they have."""

    def read(db: Any) -> tuple[int, int]:
        counting: Any = Steps(db) if isinstance(db, SqliteDatabase) else Buffers(db)
        page = pages.select(counting, KIND, query, records.parse)
        found = len(page.items)
        if page.next:
            found += len(pages.select(counting, KIND, replace(query, start=page.next), records.parse).items)
        return counting.cost, found

    result: tuple[int, int] = await store._read(read)
    return result


@pytest.mark.parametrize("place", ["sqlite", "postgres"], indirect=True)
async def test_a_page_costs_the_same_in_a_larger_store(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    # What is counted behind a page is bounded; both stores have more.
    monkeypatch.setattr(pages, "COUNTED", 5)
    monkeypatch.setattr(conditions, "FEW", 4 * HITS)
    store = await place.open()
    costs = []
    for first, last in ((0, SMALL), (SMALL, LARGE)):
        await fill(store, first, last)
        costs.append({name: await cost(store, replace(query, limit=10)) for name, query in QUERIES.items()})
    small, large = costs
    assert all(found >= 1 for _, found in small.values())
    grown = {name: (small[name], large[name]) for name in QUERIES if large[name][0] > DEEPER * small[name][0]}
    assert not grown
