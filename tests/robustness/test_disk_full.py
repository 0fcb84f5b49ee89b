"""A full disk: writes say so, reads and deletes go on, nothing breaks, and space is all it takes (guarantee G20)."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from api.errors import ResourceExhausted
from api.store.base import Key, Preconditions, Write
from api.store.sqlite import BALLAST_BYTES, SqliteStore, ballast_path
from tests.robustness.faults.fulldisk import Filler, mountable, small_volume
from tests.robustness.lanes import lanes
from tests.robustness.model.store_model import Held, replayed
from tests.robustness.results import told
from tests.robustness.stores import KIND, PROJECT, family, held, log

VOLUME_KIB = (BALLAST_BYTES >> 10) + 8_192
MOST_LEFT = 400_000
OBJECT_BYTES = 20_000
WRITES = 60


@pytest.fixture
def volume(tmp_path: Path) -> Iterator[Path]:
    with small_volume(tmp_path / "volume", VOLUME_KIB) as folder:
        yield folder


async def fill(folder: Path, number: int, leave: int) -> list[str]:
    """Write until the disk is full, then do what must still work, then free it; returns what went wrong."""
    faults: list[str] = []
    path, filler = folder / f"store-{number}.db", Filler(folder)
    store = SqliteStore(path)
    acknowledged: dict[str, Held] = {}
    refusals = 0
    try:
        filler.fill(leave)
        for count in range(WRITES):
            try:
                made = await store.create(Write(family(f"n{count}", f"t{count}", size=OBJECT_BYTES)))
                acknowledged[f"n{count}"] = Held(f"t{count}", int(made.metadata.resourceVersion))
            except ResourceExhausted as error:
                refusals += 1
                if error.reason != "DISK_FULL" or "volume" not in error.message:
                    faults.append(f"the refusal says {error.reason}: {error.message}")
                # The ballast was given back: take that too, so that the disk stays full.
                if refusals == 1:
                    name = next(iter(acknowledged), "")
                    if name:
                        await store.delete(Key(KIND, PROJECT, name), Preconditions())
                        del acknowledged[name]
                    if await store.acquire("lease", "me", 1.0) is None:
                        faults.append("the lease cannot be taken")
                    filler.fill()
        if not refusals:
            faults.append("the disk was never full")
        if await held(store) != acknowledged:
            faults.append("what can be read is not what was acknowledged")
        filler.free()
        made = await store.create(Write(family("afterwards", "x", size=OBJECT_BYTES)))
        acknowledged["afterwards"] = Held("x", int(made.metadata.resourceVersion))
        await store.close()
        store = SqliteStore(path)
        if await held(store) != acknowledged or replayed(await log(store)) != acknowledged:
            faults.append("after a restart it is not what was acknowledged")
    finally:
        await store.close()
        filler.free()
        for left in path, ballast_path(path), path.with_name(path.name + "-wal"), path.with_name(path.name + "-shm"):
            left.unlink(missing_ok=True)
    return [f"{leave} bytes left: {fault}" for fault in faults]


@pytest.mark.skipif(not mountable(), reason="a small volume needs the right to mount one")
@pytest.mark.parametrize("points", lanes(p=20, c=100))
def test_a_full_disk_refuses_writes_and_nothing_else(volume: Path, points: int) -> None:
    began, pick = time.monotonic(), random.Random(points)
    faults = [
        fault
        for number in range(points)
        for fault in asyncio.run(fill(volume, number, pick.randrange(4_096, MOST_LEFT)))
    ]
    told(
        "G20",
        "a full disk refuses writes by name; reads, a delete and the lease go on",
        store="SQLite",
        trials=points,
        failed=len(faults),
        figures=f"{time.monotonic() - began:.0f} s",
    )
    assert faults == []
