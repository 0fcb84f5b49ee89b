"""A server that dies around its call to a real Airflow: one DAG run for each PipelineRun (guarantee G7)."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from api import failpoints
from api.airflow import Airflow, DagRun
from api.cli import airflow_env, keys
from api.cli.platform import components, database, preflight, sessions
from api.config import Config
from api.gen.michelangelo.api.v2 import pipeline_pb2
from api.gen.michelangelo.api.v2 import pipeline_run_pb2 as wire
from api.workflows import STEPS_TYPE, typed
from tests.robustness.killed_server import Connection, KilledServer
from tests.robustness.mortal import Mortal
from tests.robustness.platforms import LEASE_S, PROJECT, create_pipeline
from tests.robustness.results import told

START_S = 180.0
END_S = 600.0
CRASHES = 50
POINTS = sorted(failpoints.KNOWN - {"finalizer.before_removal"})
STEP = {"name": "nothing", "operator": "deploy_model", "with": {"deployment": "", "model": "none"}}


@contextmanager
def airflow_beside(config: Config) -> Iterator[None]:
    """Run the platform's Airflow, and nothing else of it."""
    preflight.prepare(config)
    environ = {**airflow_env.environment(config, keys.ensure(config)), sessions.MARK: str(config.home)}
    asyncio.run(database.migrate(config, environ))
    started = []
    try:
        for part in components.all_of(config):
            if part.needs_database:
                with (config.logs_path / f"{part.name}.log").open("wb") as log:
                    started.append(
                        subprocess.Popen(
                            part.argv, env=environ, cwd=config.home, stdout=log, stderr=log, start_new_session=True
                        )
                    )
        yield
    finally:
        for process in started:
            # The API server of Airflow overwrites the mark by which the others are found.
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        sessions.stop_all(config.home, (), grace_s=0)


def steps() -> pipeline_pb2.PipelineManifest:
    """Return a pipeline of one task that does nothing."""
    manifest = pipeline_pb2.PipelineManifest(type=pipeline_pb2.PipelineManifest.PIPELINE_MANIFEST_TYPE_YAML)
    manifest.content.Pack(typed(STEPS_TYPE, {"steps": [STEP]}))
    return manifest


def status_of(connection: Connection, name: str) -> wire.PipelineRunStatus:
    found: wire.PipelineRunStatus = connection.call(
        "PipelineRun", "Get", namespace=PROJECT, name=name
    ).pipeline_run.status
    return found


async def dag_runs(config: Config) -> list[DagRun]:
    """Return every DAG run that Airflow has."""
    airflow = Airflow(config.airflow_url)
    try:
        return await airflow.recent_runs(datetime.now(UTC) - timedelta(days=1))
    finally:
        await airflow.close()


@pytest.mark.robustness
def test_a_server_that_dies_begins_each_run_of_a_real_airflow_once(tmp_path: Path) -> None:
    began = time.monotonic()
    with KilledServer(tmp_path, environ={"MA_LEASE_TTL_S": str(LEASE_S)}) as server, airflow_beside(server.config):
        connection = server.connect()
        create_pipeline(connection, steps(), ready_s=START_S)
        connection.close()
        mortal, uids = Mortal(server), dict[str, str]()
        for life in range(CRASHES):
            mortal.begin(POINTS[life % len(POINTS)])
            uids[f"run-{life}"] = mortal.submit(f"run-{life}")
            mortal.die()
        connection = server.connect()
        deadline = time.monotonic() + END_S
        ended = {wire.PIPELINE_RUN_STATE_SUCCEEDED, wire.PIPELINE_RUN_STATE_FAILED}
        while waiting := [name for name in uids if status_of(connection, name).state not in ended]:
            assert time.monotonic() < deadline, [(name, status_of(connection, name)) for name in waiting[:2]]
            time.sleep(0.5)
        states = Counter(wire.PipelineRunState.Name(status_of(connection, name).state) for name in uids)
        connection.close()
        counted = Counter(run.conf.get("ma", {}).get("owner_uid") for run in asyncio.run(dag_runs(server.config)))
    told(
        "G7",
        "a server that dies around the call begins each run of a real Airflow once",
        store="SQLite",
        trials=CRASHES,
        failed=sum(counted[uid] != 1 for uid in uids.values()),
        figures=f"{len(POINTS)} places, {sum(counted.values())} DAG runs, {time.monotonic() - began:.0f} s",
    )
    assert counted == dict.fromkeys(uids.values(), 1)
    assert states == {"PIPELINE_RUN_STATE_SUCCEEDED": CRASHES}
