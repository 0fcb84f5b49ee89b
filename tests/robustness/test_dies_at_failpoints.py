"""A server that dies at a named place begins no second DAG run, and forgets none (guarantee G7)."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from api import failpoints
from tests.robustness.fakes.airflow import FakeAirflow
from tests.robustness.killed_server import KilledServer
from tests.robustness.mortal import Mortal
from tests.robustness.platforms import PROJECT, READY_S, begun, cluster, prepare
from tests.robustness.results import told

SHORT = ("store.after_commit", "trigger.after_post")
LIVES = 5
POINTS = sorted(
    name
    for name in failpoints.KNOWN - {"finalizer.before_removal", "notify.before_send", "notify.after_send"}
    if not name.startswith("event.")
)


def until_begun(airflow: FakeAirflow, uid: str, server: KilledServer, name: str) -> None:
    """Wait until the run has its DAG run and its status says so."""
    deadline = time.monotonic() + READY_S
    connection = server.connect()
    while True:
        status = connection.call("PipelineRun", "Get", namespace=PROJECT, name=name).pipeline_run.status
        if begun(airflow)[uid] and status.workflow_run_id:
            connection.close()
            return
        assert time.monotonic() < deadline, status
        time.sleep(0.05)


@pytest.mark.parametrize(
    ("point", "lives"),
    [
        *(pytest.param(point, 1, id=f"{point}-P") for point in SHORT),
        *(pytest.param(point, LIVES, id=f"{point}-C", marks=pytest.mark.robustness) for point in POINTS),
    ],
)
def test_a_server_that_dies_there_begins_each_run_once(tmp_path: Path, point: str, lives: int) -> None:
    with cluster(tmp_path, f"sqlite:///{tmp_path}/store.db", 1) as ((server,), airflow):
        connection = server.connect()
        prepare(connection)
        connection.close()
        mortal, uids = Mortal(server), list[str]()
        for life in range(lives):
            mortal.begin(point)
            uids.append(mortal.submit(f"run-{life}"))
            mortal.die()
            until_begun(airflow, uids[-1], server, f"run-{life}")
        counted = begun(airflow)
    told(
        "G7",
        f"a server that dies at {point} begins each run once",
        store="SQLite",
        trials=lives,
        failed=sum(count != 1 for count in counted.values()),
        figures=f"{len(uids)} runs",
    )
    assert counted == dict.fromkeys(uids, 1)
