"""A copy is what was written or is refused; a restore that is killed leaves one store whole (guarantee G22)."""

from __future__ import annotations

import asyncio
import json
import random
import subprocess
import sys
from pathlib import Path

import pytest

from api.errors import DataLoss, FailedPrecondition
from api.store.backup import backup, restore
from api.store.backup_file import SEAL_BYTES
from api.store.base import Query, Write
from api.store.open import open_store
from api.store.schema import VERSION
from api.store.sqlite import SqliteDatabase
from tests.robustness.lanes import lanes
from tests.robustness.migration_loop import golden
from tests.robustness.restore_loop import BY
from tests.robustness.results import told
from tests.robustness.stores import KIND, Place, family

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = sorted(Path(__file__).with_name("golden").glob("v*.sql"))


async def made(folder: Path, objects: int = 20) -> Path:
    """Return a copy of a store with some objects."""
    url = f"sqlite:///{folder}/made.db"
    store = await open_store(url)
    for number in range(objects):
        await store.create(Write(family(f"n{number}", "x", size=100)))
    await store.close()
    backup(url, folder / "copy.db")
    return folder / "copy.db"


@pytest.mark.parametrize("flips", lanes(p=50, c=2_000))
async def test_a_copy_with_one_bit_that_is_another_is_refused(tmp_path: Path, flips: int) -> None:
    whole = (await made(tmp_path)).read_bytes()
    pick, damaged, restored = random.Random(flips), tmp_path / "damaged.db", f"sqlite:///{tmp_path}/restored.db"
    # Places where it matters most come first: the file's head, the seal, the end of what is sealed.
    end = len(whole)
    places = [0, 18, 60, end - 1, end - SEAL_BYTES, end - SEAL_BYTES - 1, end - 70]
    places += [pick.randrange(end) for _ in range(flips - len(places))]
    taken = []
    for place in places:
        flipped = bytearray(whole)
        flipped[place] ^= 1 << pick.randrange(8)
        damaged.write_bytes(flipped)
        try:
            restore(damaged, restored, BY)
        except DataLoss:
            continue
        taken.append(place)
    told("G22", "a copy with one flipped bit is refused", store="", trials=flips, failed=len(taken))
    assert taken == []
    assert not (tmp_path / "restored.db").exists()
    damaged.write_bytes(whole)
    assert restore(damaged, restored, BY).objects == 20


@pytest.mark.parametrize("cut", [1, SEAL_BYTES - 1, SEAL_BYTES, SEAL_BYTES + 1, 5_000, 100_000])
async def test_a_copy_without_its_end_is_refused(tmp_path: Path, cut: int) -> None:
    copy = await made(tmp_path)
    copy.write_bytes(copy.read_bytes()[:-cut])
    with pytest.raises(DataLoss):
        restore(copy, f"sqlite:///{tmp_path}/restored.db", BY)
    assert not (tmp_path / "restored.db").exists()


@pytest.mark.parametrize("script", GOLDEN, ids=lambda path: path.stem)
async def test_a_copy_of_an_older_release_is_migrated(script: Path, place: Place, tmp_path: Path) -> None:
    golden(script, tmp_path / "old.db")
    backup(f"sqlite:///{tmp_path}/old.db", tmp_path / "copy.db")
    for number, copy in enumerate((tmp_path / "copy.db", tmp_path / "old.db")):
        restored = restore(copy, place.url, BY, replace=bool(number))
        store = await open_store(place.url)
        found = await store.list(KIND, Query())
        await store.close()
        assert found.items
        assert restored.objects >= len(found.items)


async def test_a_copy_of_a_newer_release_is_refused_by_name(place: Place, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/made.db"
    store = await open_store(url)
    await store.create(Write(family("a", "x")))
    await store.close()
    backup(url, tmp_path / "copy.db", newer)
    with pytest.raises(FailedPrecondition, match=f"schema {VERSION + 1} of a newer release") as refused:
        restore(tmp_path / "copy.db", place.url, BY)
    assert refused.value.reason == "STORE_TOO_NEW"
    store = await open_store(place.url)
    assert await store.revision() == 0
    await store.close()


def newer(db: SqliteDatabase) -> None:
    """Make a copy one of the next release."""
    db.execute("UPDATE schema_version SET version = ?", (VERSION + 1,))


@pytest.mark.parametrize("every", lanes(p=40, c=1))
def test_a_restore_that_is_killed_at_any_step_leaves_one_store_whole(place: Place, tmp_path: Path, every: int) -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "tests.robustness.restore_loop", place.url, str(tmp_path), str(every)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=1800,
        check=False,
    )
    assert ran.stdout, ran.stderr[-2000:]
    report = json.loads(ran.stdout)
    kills = sum(report["kills"].values())
    told(
        "G22",
        "a restore that is killed at any step leaves the former store or the new one",
        store=place.name,
        trials=kills,
        failed=len(report["faults"]),
        figures=f"{report['kills']['former']} times the former one",
    )
    assert report["faults"] == []
    assert report["kills"]["former"] >= 40 // every


async def test_a_server_that_starts_while_its_database_is_restored_is_refused(
    postgres_url: str, tmp_path: Path
) -> None:
    copy, reasons = await made(tmp_path), list[str]()

    def start(_: object) -> None:
        with pytest.raises(FailedPrecondition) as refused:
            asyncio.run(open_store(postgres_url))
        reasons.append(refused.value.reason)

    await asyncio.to_thread(restore, copy, postgres_url, BY, also=start)
    assert reasons == ["STORE_IS_RESTORED"]
    store = await open_store(postgres_url)
    assert len((await store.list(KIND, Query())).items) == 20
    await store.close()
