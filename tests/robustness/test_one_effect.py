"""A call that is repeated under its own name has one effect and one answer, whatever was cut (guarantee G2)."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections import Counter
from pathlib import Path

import pytest

from api.store.open import open_store
from tests.robustness.callers import Caller, at_work
from tests.robustness.clients import shop
from tests.robustness.faults.killer import Killer
from tests.robustness.faults.proxy import Fault, Proxy
from tests.robustness.history.watch_rules import DELETED, Event
from tests.robustness.killed_server import KilledServer
from tests.robustness.lanes import lanes
from tests.robustness.results import told
from tests.robustness.stores import Place, log

CLIENTS = 8
MOST_ANSWER_BYTES = 700


def faults_of(callers: list[Caller], changes: list[Event]) -> list[str]:
    """Return the calls that had no effect, more than one, or another than they were told."""
    happened = Counter(f"{DELETED} {one.key}" if one.type == DELETED else one.token for one in changes)
    revisions = {one.token: one.revision for one in changes if one.type != DELETED}
    faults = []
    for caller in callers:
        for token, value in caller.effects.items():
            due = value if token.startswith(DELETED) else 1
            if happened.pop(token, 0) != due:
                faults.append(f"{token} should have happened {due} times")
            elif due == 1 and token in revisions and revisions[token] != value:
                faults.append(f"{token} was told revision {value}, not {revisions[token]}")
    return faults + [f"{token} happened, but nobody was told" for token in happened]


@pytest.mark.parametrize(("calls", "cut", "killed"), lanes(p=(500, 1, 1), c=(5_000, 1_000, 200)))
def test_a_repeated_call_has_one_effect(busy_place: Place, tmp_path: Path, calls: int, cut: int, killed: int) -> None:
    began, pick, lock = time.monotonic(), random.Random(calls), threading.Lock()

    def choose() -> Fault:
        with lock:
            return Fault(
                cut_after=pick.choice((0, pick.randrange(MOST_ANSWER_BYTES), 5_000)), reset=pick.random() < 0.5
            )

    environ = {"MA_STORE_URL": busy_place.url}
    with KilledServer(tmp_path, environ=environ) as server, Proxy(server.config.api_port, choose, seed=calls) as proxy:
        connection = server.connect()
        shop(connection)
        connection.close()
        callers = [Caller(number, proxy.address, server.config.token) for number in range(CLIENTS)]

        def strike(_: random.Random) -> None:
            server.kill()
            server.start()

        killer = Killer(strike, between_s=(0.1, 0.6), seed=calls)
        with (
            killer.about(),
            at_work(callers, calls // CLIENTS, lambda: proxy.cuts >= cut and killer.struck(killed)),
        ):
            pass
        cuts = proxy.cuts
    faults = faults_of(callers, asyncio.run(changes_of(busy_place.url)))
    told(
        "G2",
        "a repeated call has one effect and the same answer",
        store=busy_place.name,
        trials=sum(one.made for one in callers),
        failed=len(faults),
        figures=f"{cuts:,} connections cut, {killer.strikes} server kills, "
        f"{sum(one.again for one in callers):,} repeats, {time.monotonic() - began:.0f} s",
    )
    assert faults == []
    assert cuts >= cut
    assert killer.strikes >= killed


async def changes_of(url: str) -> list[Event]:
    store = await open_store(url)
    try:
        return await log(store)
    finally:
        await store.close()
