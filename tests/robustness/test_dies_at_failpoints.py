"""A server that dies at a named place begins no second DAG run, and forgets none (guarantee G7)."""

from __future__ import annotations

import signal
import time
import uuid
from pathlib import Path
from typing import Any

import grpc
import pytest

from api import failpoints
from api.kinds import kinds
from tests.robustness.clients import LOST
from tests.robustness.fakes.airflow import FakeAirflow
from tests.robustness.killed_server import KilledServer
from tests.robustness.platforms import PROJECT, READY_S, begun, cluster, prepare
from tests.robustness.results import told

SHORT = ("store.after_commit", "trigger.after_post")
LIVES = 5
POINTS = sorted(failpoints.KNOWN - {"finalizer.before_removal"})


# Passed by the leader's renewals too, from the start on.
PASSES = {"store.before_commit": 12, "store.after_commit": 12}


class Mortal:
    """A server that dies at a place once and is then started again."""

    def __init__(self, server: KilledServer) -> None:
        self._server = server
        self._waits = False

    def begin(self, point: str) -> None:
        """Start a life that ends at `point`."""
        self._server.kill()
        self._server.start(f"{point}=kill@{PASSES.get(point, 1)}")
        self._waits = True

    def die(self) -> None:
        """Wait for the death, if it has not been, and start a life without one."""
        if self._waits:
            assert self._server.wait_for_death(READY_S) == -signal.SIGKILL
            self._server.start()
            self._waits = False

    def submit(self, name: str) -> str:
        """Create a run, again until it is answered; return its uid."""
        run = kinds()["PipelineRun"].new(PROJECT, name)
        run.spec.pipeline.namespace, run.spec.pipeline.name = PROJECT, "train"
        named = str(uuid.uuid4())
        while True:
            connection = self._server.connect()
            try:
                made = connection.call("PipelineRun", "Create", request_id=named, pipeline_run=run)
                return str(made.pipeline_run.metadata.uid)
            except grpc.RpcError as error:
                lost: Any = error
                if lost.code() not in LOST:
                    raise
                self.die()
            finally:
                connection.close()


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
