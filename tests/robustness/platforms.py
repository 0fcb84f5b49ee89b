"""Servers with controllers, an Airflow that they share, and a pipeline that is ready to run."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from api.config import Config
from api.gen.michelangelo.api.v2 import pipeline_pb2
from api.kinds import kinds
from api.workflows import TEMPLATE_TYPE, typed
from tests.free_ports import free_ports
from tests.robustness.fakes.airflow import FakeAirflow
from tests.robustness.fakes.served_airflow import listening
from tests.robustness.killed_server import Connection, KilledServer

LEASE_S = 1.5
PROJECT = "flights"
READY_S = 60.0


@contextmanager
def cluster(folder: Path, url: str, servers: int) -> Iterator[tuple[list[KilledServer], FakeAirflow]]:
    """Run the servers and an Airflow that they share."""
    (airflow_port,) = free_ports(1)
    config = Config(folder, folder)
    airflow = FakeAirflow(config.dags_path, config.manifests_path)
    airflow.template("train", rows={"type": "integer", "default": 10})
    environ = {"MA_STORE_URL": url, "MA_AIRFLOW_PORT": str(airflow_port), "MA_LEASE_TTL_S": str(LEASE_S)}
    with ExitStack() as stack:
        stack.enter_context(listening(airflow, airflow_port))
        made = [KilledServer(folder, called=f"api-{number}", environ=environ) for number in range(servers)]
        yield [stack.enter_context(server) for server in made], airflow


def prepare(connection: Connection) -> None:
    """Create a project and a pipeline of the fake Airflow's template, and wait until it is ready."""
    manifest = pipeline_pb2.PipelineManifest(type=pipeline_pb2.PipelineManifest.PIPELINE_MANIFEST_TYPE_YAML)
    manifest.file_path = "train"
    manifest.content.Pack(typed(TEMPLATE_TYPE, {}))
    create_pipeline(connection, manifest)


def create_pipeline(
    connection: Connection, manifest: pipeline_pb2.PipelineManifest, *, ready_s: float = READY_S
) -> None:
    """Create a project and the pipeline `train`, and wait until it is ready."""
    connection.call("Project", "Create", project=kinds()["Project"].new(PROJECT, PROJECT))
    pipeline = kinds()["Pipeline"].new(PROJECT, "train")
    pipeline.spec.manifest.CopyFrom(manifest)
    connection.call("Pipeline", "Create", pipeline=pipeline)
    deadline = time.monotonic() + ready_s
    while True:
        found = connection.call("Pipeline", "Get", namespace=PROJECT, name="train").pipeline
        if found.status.state == pipeline_pb2.PIPELINE_STATE_READY:
            return
        assert time.monotonic() < deadline, found
        time.sleep(0.05)


def begun(airflow: FakeAirflow) -> Counter[str]:
    """Return how many DAG runs were begun for each PipelineRun, whatever their ids."""
    owners = [run.conf.get("ma", {}).get("owner_uid", run.run_id) for run in list(airflow.runs.values())]
    return Counter(owners)
