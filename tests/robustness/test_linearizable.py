"""Each object is a linearizable register and revisions follow real time, through two servers (guarantee G3)."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from api.store.open import open_store
from tests.robustness.clients import Client, shop
from tests.robustness.faults.killer import Killer
from tests.robustness.history.recorder import Outcome, Recorder
from tests.robustness.history.watch_rules import Event
from tests.robustness.history.wgl import not_linearizable, revision_faults
from tests.robustness.killed_server import KilledServer
from tests.robustness.model.store_model import Held, Past, replayed
from tests.robustness.results import told
from tests.robustness.stores import Place, held, log

CLIENTS = 8
NAMES = 100
OPERATIONS = 10_000
# `make test` plays a whole history on SQLite, and a short one elsewhere.
SHORT = 3_000
BETWEEN_KILLS_S = (1.5, 2.5)


@contextmanager
def two_servers(folder: Path, url: str) -> Iterator[list[KilledServer]]:
    """Run two servers on one store."""
    environ = {"MA_STORE_URL": url}
    with ExitStack() as stack:
        yield [stack.enter_context(KilledServer(folder, called=f"api-{n}", environ=environ)) for n in range(2)]


def play(folder: Path, url: str, seed: int, operations: int) -> tuple[Recorder, int]:
    """Let clients work through both servers while one after the other is killed."""
    recorder = Recorder()
    with two_servers(folder, url) as servers:
        connection = servers[0].connect()
        shop(connection)
        connection.close()
        pick = random.Random(seed)
        clients = [
            Client(number, lambda: pick.choice(servers).connect(), recorder, NAMES, seed) for number in range(CLIENTS)
        ]
        threads = [threading.Thread(target=one.run, args=(operations // CLIENTS,)) for one in clients]

        def strike(chosen: random.Random) -> None:
            server = chosen.choice(servers)
            server.kill()
            server.start()

        killer = Killer(strike, between_s=BETWEEN_KILLS_S, seed=seed)
        with killer.about():
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
    for client in clients:
        if client.failed is not None:
            raise client.failed
    assert len(recorder.operations) + len(recorder.listings) >= operations * 0.97
    return recorder, killer.strikes


async def stored(url: str) -> tuple[list[Event], dict[str, Held]]:
    store = await open_store(url)
    try:
        return await log(store), await held(store)
    finally:
        await store.close()


def faults_of(recorder: Recorder, changes: list[Event], found: dict[str, Held]) -> list[str]:
    """Return what two judges say: the search for an order, and the change log."""
    faults = [f"{name} is not linearizable" for name in not_linearizable(recorder.named())]
    faults += revision_faults(recorder.operations)
    if replayed(changes) != found:
        faults.append("the change log does not lead to the final list")
    past = Past(changes)
    for listing in recorder.listings:
        stood = {name: (one.token, one.revision) for name, one in past.at(listing.revision).items()}
        if listing.seen != stood:
            faults.append(f"a list of revision {listing.revision} does not show that revision")
    return faults


@pytest.mark.parametrize("history", [0, *(pytest.param(n, marks=pytest.mark.robustness) for n in range(1, 11))])
def test_every_object_is_linearizable_through_two_servers_that_die(
    busy_place: Place, tmp_path: Path, history: int
) -> None:
    operations = OPERATIONS if history or busy_place.name == "SQLite" else SHORT
    began = time.monotonic()
    recorder, kills = play(tmp_path, busy_place.url, history, operations)
    changes, found = asyncio.run(stored(busy_place.url))
    faults = faults_of(recorder, changes, found)
    unknown = sum(one.outcome is Outcome.UNKNOWN for one in recorder.operations)
    told(
        "G3",
        "objects are linearizable through two servers, lists show one revision",
        store=busy_place.name,
        trials=len(recorder.operations) + len(recorder.listings),
        failed=len(faults),
        figures=f"{kills} server kills, {unknown} outcomes unknown, {time.monotonic() - began:.0f} s",
    )
    assert faults == []
    assert kills
