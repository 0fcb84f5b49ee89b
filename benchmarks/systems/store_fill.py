"""A store with many objects, written before a server opens it: each label value finds the same few of them."""

from __future__ import annotations

import asyncio
import itertools
from pathlib import Path

import uvloop

from api.kinds import kinds
from api.resources import Resources
from api.store.sqlite import SqliteStore

HITS = 50
BUCKETS_ASKED = 100
IN_FLIGHT = 256


def fill(home: Path, project: str, count: int) -> None:
    """Write a project and `count` model families; `bucket=b0`, `b1` ... find `HITS` of them each."""
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    uvloop.run(_fill(home / "store.db", project, count))


async def _fill(path: Path, project: str, count: int) -> None:
    store = SqliteStore(path)
    resources = Resources(store)
    await resources.create(kinds()["Project"].new(project, project))
    numbers = iter(range(count))

    async def some() -> None:
        for number in numbers:
            family = kinds()["ModelFamily"].new(project, f"family-{number:07}")
            family.metadata.labels["bucket"] = f"b{number % max(1, count // HITS)}"
            family.spec.description = "x" * 200
            await resources.create(family)

    await asyncio.gather(*itertools.starmap(some, itertools.repeat((), IN_FLIGHT)))
    await store.close()
