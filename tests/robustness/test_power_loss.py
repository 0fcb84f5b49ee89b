"""No acknowledged write is lost when power fails: what was not synced may be gone, sector by sector (guarantee G1)."""

from __future__ import annotations

import asyncio
import random
import shutil
import time
from pathlib import Path

import pytest

from api.store.base import Key, Preconditions, Write
from api.store.sqlite import SqliteStore
from tests.robustness.crash_loop import GONE, Known, compare, left
from tests.robustness.faults.powerloss_vfs import Disk, mounted
from tests.robustness.lanes import lanes
from tests.robustness.results import told
from tests.robustness.stores import KIND, PROJECT, family

LOSSES_A_STORE = 25
WRITERS = 3
NAMES = 5
WRITES = 40


class Losses:
    """Takes images of the disk at random calls, with what had been told until then."""

    def __init__(self, disk: Disk, folder: Path, pick: random.Random) -> None:
        self._disk, self._folder, self._pick = disk, folder, pick
        self.known: dict[str, Known] = {}
        self.images: list[tuple[Path, dict[str, Known]]] = []
        self._next = 0
        disk.before_call = self._call

    def _call(self, number: int) -> None:
        if not self.known or number < self._next or len(self.images) == LOSSES_A_STORE:
            return
        self._next = number + self._pick.randint(1, 30)
        target = self._folder / f"image-{len(self.images)}"
        target.mkdir()
        # The store's own thread is here: what the loop has told until now is what a client knows.
        told_so_far = {name: Known(one.token, one.revision, one.pending) for name, one in self.known.items()}
        self._disk.image(target, self._pick)
        self.images.append((target, told_so_far))


async def write(store: SqliteStore, losses: Losses, number: int, seed: int) -> None:
    pick = random.Random(f"{seed}-{number}")
    for count in range(WRITES):
        name = f"n{number}-{pick.randrange(NAMES)}"
        one = losses.known.setdefault(name, Known())
        if one.token and pick.random() < 0.15:
            one.pending = GONE
            gone = await store.delete(Key(KIND, PROJECT, name), Preconditions())
            one.token, one.revision, one.pending = GONE, int(gone.metadata.resourceVersion), None
            continue
        token = f"{number}.{count}"
        one.pending = token
        item = family(name, token, size=pick.randrange(3_000))
        expect = str(one.revision) if one.token else ""
        made = await (store.update(Write(item, expect)) if one.token else store.create(Write(item)))
        one.token, one.revision, one.pending = token, int(made.metadata.resourceVersion), None


async def lose_power(folder: Path, seed: int) -> list[tuple[Path, dict[str, Known]]]:
    """Write on a disk and return images of it with what was acknowledged before each."""
    with mounted(folder) as disk:
        store = SqliteStore(folder / "store.db")
        losses = Losses(disk, folder, random.Random(seed))
        await asyncio.gather(*(write(store, losses, number, seed) for number in range(WRITERS)))
        await store.close()
    return losses.images


@pytest.mark.parametrize("power_offs", lanes(p=300, c=5_000))
async def test_every_acknowledged_write_is_there_after_a_power_loss(tmp_path: Path, power_offs: int) -> None:
    count, effects, acknowledged, began = 0, 0, 0, time.monotonic()
    faults: list[str] = []
    while count < power_offs:
        folder = tmp_path / f"disk-{count}"
        folder.mkdir()
        for image, known in await lose_power(folder, seed=count):
            acknowledged += sum(1 for one in known.values() if one.revision)
            found, contradictions = await left(f"sqlite:///{image}/store.db")
            lost, some = compare(known, found)
            faults += [f"{image.name} of {folder.name}: {fault}" for fault in contradictions + lost]
            effects += some
            count += 1
        shutil.rmtree(folder)
    told(
        "G1",
        "acknowledged writes survive power loss",
        store="SQLite",
        trials=count,
        failed=len(faults),
        figures=f"{acknowledged:,} names compared, {effects} open with effect, {time.monotonic() - began:.0f} s",
    )
    assert faults == []
