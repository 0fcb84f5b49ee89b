"""The platform's Airflow and nothing else of the platform, on SQLite or PostgreSQL, with parts that can be killed."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from types import MappingProxyType

from api.airflow import Airflow, DagRun
from api.cli import airflow_env, keys
from api.cli.platform import components, database, preflight, probes, sessions
from api.config import Config
from api.gen.michelangelo.api.v2 import pipeline_pb2
from api.workflows import HIDDEN_PARAM, STEPS_TYPE, typed

MIGRATION_S = 600.0
STEP = {"name": "nothing", "operator": "deploy_model", "with": {"deployment": "", "model": "none"}}


@dataclass
class RealAirflow:
    """Its processes by name: `airflow-api`, `scheduler`, `dag-processor`, `triggerer`."""

    config: Config
    environ: Mapping[str, str]
    running: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def start(self, name: str) -> None:
        """Start a part, or start it again."""
        part = next(part for part in components.all_of(self.config) if part.name == name)
        with (self.config.logs_path / f"{name}.log").open("ab") as log:
            self.running[name] = subprocess.Popen(
                part.argv, env=self.environ, cwd=self.config.home, stdout=log, stderr=log, start_new_session=True
            )

    def wait(self, patience_s: float) -> None:
        """Return when its API server answers."""
        deadline = time.monotonic() + patience_s
        while probes.fetch(self.config.airflow_port, "/api/v2/monitor/health")[0] != 200:
            assert time.monotonic() < deadline, "Airflow's API server does not answer"
            time.sleep(0.1)

    def kill(self, name: str) -> None:
        """Kill -9 a part with all its processes: Airflow's API server overwrites the mark by which they are found."""
        process = self.running.pop(name)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@contextmanager
def airflow_beside(
    config: Config, database_url: str = "", more: Mapping[str, str] = MappingProxyType({})
) -> Iterator[RealAirflow]:
    """Run it.  `database_url`: an empty PostgreSQL database, by default SQLite; `more`: further variables."""
    preflight.prepare(config)
    environ = {**airflow_env.environment(config, keys.ensure(config)), sessions.MARK: str(config.home), **more}
    if database_url:
        environ |= on_postgres(database_url)
        migrate = [sys.executable, "-P", "-m", "airflow", "db", "migrate"]
        subprocess.run(migrate, env=environ, cwd=config.home, check=True, capture_output=True, timeout=MIGRATION_S)
    else:
        asyncio.run(database.migrate(config, environ))
    made = RealAirflow(config, environ)
    try:
        for part in components.all_of(config):
            if part.needs_database:
                made.start(part.name)
        yield made
    finally:
        for name in list(made.running):
            made.kill(name)
        sessions.stop_all(config.home, (), grace_s=0)


def on_postgres(url: str) -> dict[str, str]:
    """Return what lets Airflow keep its books in PostgreSQL.  One driver does both kinds of connections."""
    rest = url.removeprefix("postgresql:")
    return {
        database.CONNECTION: f"postgresql+psycopg:{rest}",
        f"{database.CONNECTION}_ASYNC": f"postgresql+psycopg_async:{rest}",
    }


def steps() -> pipeline_pb2.PipelineManifest:
    """Return a pipeline of one task that does nothing."""
    manifest = pipeline_pb2.PipelineManifest(type=pipeline_pb2.PipelineManifest.PIPELINE_MANIFEST_TYPE_YAML)
    manifest.content.Pack(typed(STEPS_TYPE, {"steps": [STEP]}))
    return manifest


def dag_runs(config: Config) -> list[DagRun]:
    """Return every DAG run that Airflow has."""

    async def asked() -> list[DagRun]:
        airflow = Airflow(config.airflow_url)
        try:
            return await airflow.recent_runs(datetime.now(UTC) - timedelta(days=1))
        finally:
            await airflow.close()

    return asyncio.run(asked())


def owners(found: list[DagRun]) -> Counter[str]:
    """Return how many DAG runs were begun for each PipelineRun, by uid."""
    return Counter(str(run.conf.get(HIDDEN_PARAM, {}).get("owner_uid")) for run in found)
