"""A server that dies between an event and its run begins one run, with one DAG run, and forgets none (guarantee G7)."""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from api.client import Client
from api.errors import ApiError
from api.subscriptions.values import EVENT
from tests.api.event_world import subscription
from tests.robustness.fakes.airflow import FakeAirflow
from tests.robustness.killed_server import KilledServer
from tests.robustness.mortal import PASSES
from tests.robustness.platforms import PROJECT, READY_S, begun, cluster, prepare
from tests.robustness.results import told

POINTS = ("event.after_publish", "event.before_run", "event.after_run", "event.before_position", "trigger.before_post")
SHORT = ("event.before_run", "event.after_run")
LIVES = 10
KILLS = 40


@pytest.fixture
def place(tmp_path: Path) -> Iterator[tuple[KilledServer, FakeAirflow]]:
    with cluster(tmp_path, f"sqlite:///{tmp_path}/store.db", 1) as ((server,), airflow):
        connection = server.connect()
        prepare(connection)
        for name, events in (("one", ("loaded",)), ("both", ("loaded", "priced"))):
            made = subscription(PROJECT, name, *events, **({"within": "3600s"} if len(events) > 1 else {}))
            connection.call("Subscription", "Create", subscription=made)
        connection.close()
        yield server, airflow


def publish(server: KilledServer, name: str, key: str, deadline: float) -> None:
    """Publish again and again until it is answered; a dead server is started again."""
    while True:
        try:
            with Client(server.config.api_address, timeout_s=2) as api:
                api.publish(name, {"n": key}, namespace=PROJECT, key=key)
                return
        except ApiError:
            assert time.monotonic() < deadline
            revive(server)


def revive(server: KilledServer) -> None:
    """Start a server that died."""
    if server.wait_for_death(0.01) is not None:
        server.kill()
        server.start()


def judged(server: KilledServer, airflow: FakeAirflow, published: int) -> tuple[int, int]:
    """Wait for all runs; return how many there are, and how many DAG runs were begun.  Each event is in one of each."""
    wanted, deadline = 2 * published, time.monotonic() + READY_S
    with Client(server.config.api_address) as api:
        while True:
            revive(server)
            runs = [run for run in api.list("PipelineRun", PROJECT) if EVENT in run.metadata.annotations]
            if len(runs) >= wanted and sum(begun(airflow).values()) >= wanted:
                break
            assert time.monotonic() < deadline, f"{len(runs)} of {wanted} runs"
            time.sleep(0.1)
        # What comes too often comes late.
        time.sleep(1)
        runs = api.list("PipelineRun", PROJECT)
    events = [run.metadata.annotations[EVENT] for run in runs]
    assert len(set(events)) == len(events) == wanted
    assert set(begun(airflow).values()) == {1}
    return len(runs), sum(begun(airflow).values())


@pytest.mark.parametrize(
    ("point", "lives"),
    [
        *(pytest.param(point, 2, id=f"{point}-P") for point in SHORT),
        *(pytest.param(point, LIVES, id=f"{point}-C", marks=pytest.mark.robustness) for point in POINTS),
    ],
)
def test_a_server_that_dies_there_begins_each_run_once(
    place: tuple[KilledServer, FakeAirflow], point: str, lives: int
) -> None:
    server, airflow = place
    for life in range(lives):
        server.kill()
        server.start(f"{point}=kill@{PASSES.get(point, 1)}")
        doomed = server.pid
        for name in ("loaded", "priced"):
            publish(server, name, str(life), time.monotonic() + READY_S)
        if server.pid == doomed:
            assert server.wait_for_death(READY_S) == -signal.SIGKILL
            revive(server)
    runs, dag_runs = judged(server, airflow, lives)
    told(
        "G7",
        f"a server that dies at {point} begins each run once",
        trials=lives,
        figures=f"{runs} runs, {dag_runs} DAG runs",
    )


@pytest.mark.robustness
def test_a_server_killed_at_any_moment_begins_each_run_once(place: tuple[KilledServer, FakeAirflow]) -> None:
    server, airflow = place
    rng = random.Random(11)
    for number in range(KILLS):
        for name in ("loaded", "priced"):
            publish(server, name, str(number), time.monotonic() + READY_S)
        time.sleep(rng.uniform(0, 0.3))
        server.kill()
        server.start()
    runs, dag_runs = judged(server, airflow, KILLS)
    told(
        "G7",
        "events of a server that is killed begin each run once",
        trials=KILLS,
        figures=f"{runs} runs, {dag_runs} DAG runs",
    )
