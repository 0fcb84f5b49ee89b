"""Three servers on one store, each able to lead: whichever dies, nothing is lost, no run is doubled (G2, G7, G9)."""

from __future__ import annotations

import asyncio
import random
import re
import threading
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import pytest

from api.kinds import kinds
from api.store.base import Query
from api.store.open import open_store
from tests.robustness.clients import LOST
from tests.robustness.fakes.airflow import FakeAirflow
from tests.robustness.faults.freeze import pause
from tests.robustness.killed_server import KilledServer
from tests.robustness.lanes import lanes
from tests.robustness.platforms import LEASE_S, PROJECT, READY_S, begun, cluster, prepare
from tests.robustness.results import told
from tests.servers import PostgresServer

SERVERS = 3
CLIENTS = 4
BETWEEN_RUNS_S = 0.4
# How long a dead leader may stay one: its lease, and a look for it.
FAILOVER_S = LEASE_S + 2.0


@dataclass
class Submitter:
    """Creates runs through any server, each until it is answered.  acknowledged: uid by name."""

    number: int
    servers: list[KilledServer]
    stop: threading.Event
    acknowledged: dict[str, str] = field(default_factory=dict)
    failed: BaseException | None = None

    def work(self) -> None:
        """Submit until told to stop."""
        pick = random.Random(self.number)
        try:
            count = 0
            while not self.stop.is_set():
                count += 1
                name = f"run-{self.number}-{count}"
                self.acknowledged[name] = self._submit(name, pick)
                time.sleep(pick.uniform(0, 2 * BETWEEN_RUNS_S))
        except BaseException as error:
            self.failed = error

    def _submit(self, name: str, pick: random.Random) -> str:
        run = kinds()["PipelineRun"].new(PROJECT, name)
        run.spec.pipeline.namespace, run.spec.pipeline.name = PROJECT, "train"
        named, give_up = str(uuid.uuid4()), time.monotonic() + READY_S
        while True:
            connection = pick.choice(self.servers).connect()
            try:
                made = connection.call("PipelineRun", "Create", request_id=named, pipeline_run=run)
                return str(made.pipeline_run.metadata.uid)
            except grpc.RpcError as error:
                lost: Any = error
                if lost.code() not in LOST or time.monotonic() > give_up:
                    raise
                time.sleep(pick.uniform(0, 0.1))
            finally:
                connection.close()


def settled(airflow: FakeAirflow, due: int) -> Counter[str]:
    """Wait while DAG runs are still begun; return how many each PipelineRun has."""
    counted, moved = begun(airflow), time.monotonic()
    while len(counted) < due and time.monotonic() - moved < READY_S:
        time.sleep(0.2)
        before, counted = counted, begun(airflow)
        moved = time.monotonic() if counted != before else moved
    return counted


@contextmanager
def at_work(airflow: FakeAirflow) -> Iterator[None]:
    """Let the DAG runs end soon after they began, as they do when there is a scheduler."""
    stop = threading.Event()

    def work() -> None:
        while not stop.wait(0.2):
            for run in list(airflow.runs.values()):
                airflow.finish(run)

    thread = threading.Thread(target=work, name="airflow-at-work")
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def leader(servers: list[KilledServer]) -> KilledServer:
    """Return the server that began to lead last."""
    return max(
        servers, key=lambda one: max((int(n) for n in re.findall(r"leading, epoch (\d+)", one.said())), default=0)
    )


def kill_and_measure(servers: list[KilledServer], airflow: FakeAirflow, kills: int, pick: random.Random) -> list[float]:
    """Kill the leader, kill another, freeze the leader beyond its lease, and so on; start again what was killed.

    Returns how long after the end of each leader no DAG run was begun.
    """
    gaps = []
    for number in range(kills):
        time.sleep(pick.uniform(0.3, 0.8))
        led = leader(servers)
        if number % 3 == 2:
            pause(led.pid, 1.5 * LEASE_S)
            continue
        victim = pick.choice([one for one in servers if one is not led]) if number % 3 else led
        victim.kill()
        killed, before = time.monotonic(), len(airflow.posts)
        while len(airflow.posts) <= before and time.monotonic() - killed < READY_S:
            time.sleep(0.01)
        if victim is led:
            gaps.append(time.monotonic() - killed)
        victim.start()
    return gaps


async def stored_runs(url: str) -> dict[str, str]:
    """Return uid by name."""
    store = await open_store(url)
    try:
        return {run.metadata.name: run.metadata.uid for run in (await store.list("PipelineRun", Query())).items}
    finally:
        await store.close()


@pytest.mark.parametrize("kills", lanes(p=3, c=50))
def test_whichever_server_dies_nothing_is_lost_or_doubled(postgres: PostgresServer, tmp_path: Path, kills: int) -> None:
    began, stop = time.monotonic(), threading.Event()
    url = postgres.url(postgres.database(), tcp=True)
    with cluster(tmp_path, url, SERVERS) as (servers, airflow), at_work(airflow):
        connection = servers[0].connect()
        prepare(connection)
        connection.close()
        submitters = [Submitter(number, servers, stop) for number in range(CLIENTS)]
        threads = [threading.Thread(target=one.work) for one in submitters]
        for thread in threads:
            thread.start()
        try:
            gaps = kill_and_measure(servers, airflow, kills, random.Random(kills))
        finally:
            stop.set()
            for thread in threads:
                thread.join()
        for one in submitters:
            if one.failed is not None:
                raise one.failed
        acknowledged = {name: uid for one in submitters for name, uid in one.acknowledged.items()}
        counted = settled(airflow, len(acknowledged))
    stored = asyncio.run(stored_runs(url))
    faults = [f"{name} is lost" for name, uid in acknowledged.items() if stored.get(name) != uid]
    faults += [f"{name} happened, but nobody was told" for name in stored.keys() - acknowledged.keys()]
    faults += [f"{uid} has {count} DAG runs" for uid, count in counted.items() if count != 1]
    faults += [f"{name} has no DAG run" for name, uid in acknowledged.items() if uid not in counted]
    gaps.sort()
    told(
        "G9",
        "kill -9 or a freeze of any of three servers loses no write and doubles no DAG run",
        store="PostgreSQL",
        trials=kills,
        failed=len(faults),
        figures=f"{len(acknowledged):,} runs acknowledged; {kills // 3} leaders frozen, {len(gaps)} killed, the next "
        f"DAG run {gaps[len(gaps) // 2]:.2f} s later (median), {gaps[-1]:.2f} s (longest) at a lease of {LEASE_S} s; "
        f"{time.monotonic() - began:.0f} s",
    )
    assert faults == []
    assert gaps[-1] < FAILOVER_S
