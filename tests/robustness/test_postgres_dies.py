"""No acknowledged write is lost when all of PostgreSQL is killed, and the store comes back by itself (guarantee G1)."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import Iterator

import pytest

from api.errors import Conflict, NotFound, Unavailable
from api.store.base import Key, Preconditions, Store, Write
from api.store.open import open_store
from tests.robustness.crash_loop import GONE, Known, compare
from tests.robustness.lanes import lanes
from tests.robustness.model.store_model import replayed
from tests.robustness.results import told
from tests.robustness.stores import KIND, PROJECT, family, held, log
from tests.servers import PostgresServer, postgres_server

WRITERS = 8
NAMES = 4
PAUSE_S = 0.02


@pytest.fixture
def postgres_to_kill() -> Iterator[PostgresServer]:
    with postgres_server() as server:
        yield server


class Writing:
    """Writers on one store.  `quiet` waits until none of them is in the middle of a call."""

    def __init__(self, store: Store, seed: int) -> None:
        self._store = store
        self._seed = seed
        self.known: dict[str, Known] = {}
        self.acknowledged = 0
        self.stop = asyncio.Event()

    async def run(self) -> None:
        """Write until stopped; what is not answered stays open, and its name is left alone."""
        await asyncio.gather(*(self._writer(number) for number in range(WRITERS)))

    async def _writer(self, number: int) -> None:
        pick = random.Random(f"{self._seed}-{number}")
        count = 0
        while not self.stop.is_set():
            count += 1
            name = f"n{number}-{pick.randrange(NAMES)}"
            one = self.known.setdefault(name, Known())
            if one.pending is not None:
                await asyncio.sleep(PAUSE_S)
                continue
            try:
                await self._one(name, one, f"{self._seed}.{number}.{count}", pick)
                self.acknowledged += 1
            except Unavailable:
                await asyncio.sleep(PAUSE_S)

    async def _one(self, name: str, one: Known, token: str, pick: random.Random) -> None:
        if one.token and pick.random() < 0.15:
            one.pending = GONE
            gone = await self._store.delete(Key(KIND, PROJECT, name), Preconditions())
            one.token, one.revision = GONE, int(gone.metadata.resourceVersion)
        else:
            one.pending = token
            item = family(name, token)
            write = Write(item, str(one.revision) if one.token else "")
            made = await (self._store.update(write) if one.token else self._store.create(write))
            one.token, one.revision = token, int(made.metadata.resourceVersion)
        one.pending = None


async def kill_under_load(server: PostgresServer, url: str, kills: int) -> tuple[list[str], int, int, list[float]]:
    """Return faults, acknowledged writes, open writes that had their effect, and seconds until a write went through."""
    pick, faults, effects, back_s = random.Random(kills), list[str](), 0, list[float]()
    store = await open_store(url)
    acknowledged, known = 0, dict[str, Known]()
    try:
        for number in range(kills):
            writing = Writing(store, number)
            writing.known = known
            running = asyncio.create_task(writing.run())
            await asyncio.sleep(pick.uniform(0.05, 0.3))
            server.kill()
            writing.stop.set()
            # Nothing else than Unavailable may come out of it, a conflict with oneself least of all.
            with contextlib.suppress(Unavailable):
                await running
            acknowledged += writing.acknowledged
            began = time.monotonic()
            await asyncio.to_thread(server.start)
            while True:
                try:
                    found = await held(store)
                    break
                except Unavailable:
                    await asyncio.sleep(PAUSE_S)
            back_s.append(time.monotonic() - began)
            lost, some = compare(known, found)
            effects += some
            faults += [f"kill {number}: {fault}" for fault in lost]
        if replayed(await log(store)) != await held(store):
            faults.append("the change log does not lead to what is stored")
    except (Conflict, NotFound) as error:
        faults.append(f"a write was refused for what it had done itself: {error.message}")
    finally:
        await store.close()
    return faults, acknowledged, effects, back_s


@pytest.mark.parametrize("kills", lanes(p=3, c=300))
async def test_every_acknowledged_write_survives_kill_9_of_postgresql(
    postgres_to_kill: PostgresServer, kills: int
) -> None:
    url = postgres_to_kill.url(postgres_to_kill.database(), tcp=True)
    began = time.monotonic()
    faults, acknowledged, effects, back_s = await kill_under_load(postgres_to_kill, url, kills)
    back_s.sort()
    told(
        "G1",
        "acknowledged writes survive kill -9 of the whole database",
        store="PostgreSQL",
        trials=kills,
        failed=len(faults),
        figures=f"{acknowledged:,} acknowledged, {effects} open with effect, answering again after "
        f"{back_s[len(back_s) // 2]:.2f} s (median), {back_s[-1]:.2f} s (longest), {time.monotonic() - began:.0f} s",
    )
    assert faults == []
    assert acknowledged > kills
