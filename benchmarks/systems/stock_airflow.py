"""Airflow as it comes: four components, default settings, a home of its own.  Knows nothing of our platform.

Set are only where it lives and its ports, a secret that its components share, and that it shows no examples; it gets
as many DAGs as an empty platform of ours has.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import psutil

from api.cli.airflow_env import process, without_airflow
from api.cli.platform import sessions
from api.cli.platform.probes import fetch
from benchmarks.systems.processes import DidNotStart, free_ports, started, wait_until

COMPONENTS = ("api-server", "scheduler", "dag-processor", "triggerer")
PARTS = ("metadatabase", "scheduler", "dag_processor", "triggerer")
DAGS = 3
MIGRATE_S = 300.0
DAG_OF_SIX_TASKS = '''"""A DAG of six empty tasks."""

from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG, chain

with DAG("{dag_id}", schedule=None) as dag:
    chain(*(EmptyOperator(task_id=f"task_{{number}}") for number in range(6)))
'''


def environment(home: Path) -> dict[str, str]:
    """Return the environment of every component."""
    port, worker_logs, trigger_logs = free_ports(3)
    return {
        **without_airflow(os.environ),
        **process(),
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__API__HOST": "127.0.0.1",
        "AIRFLOW__API__PORT": str(port),
        "AIRFLOW__API__BASE_URL": f"http://127.0.0.1:{port}",
        "AIRFLOW__API_AUTH__JWT_SECRET": secrets.token_urlsafe(64),
        "AIRFLOW__LOGGING__WORKER_LOG_SERVER_PORT": str(worker_logs),
        "AIRFLOW__LOGGING__TRIGGER_LOG_SERVER_PORT": str(trigger_logs),
    }


@contextlib.contextmanager
def running(
    home: Path, *, environ: Mapping[str, str] | None = None, dags: Mapping[str, str] | None = None
) -> Iterator[Mapping[str, int]]:
    """Start Airflow on an empty folder; return the sessions of its components when all of them are healthy.

    environ: from `environment`, where its port is needed; dags: text of further files by name.
    """
    (home / "dags").mkdir(parents=True)
    for number in range(DAGS):
        (home / "dags" / f"plain_{number}.py").write_text(DAG_OF_SIX_TASKS.format(dag_id=f"plain_{number}"))
    for name, text in (dags or {}).items():
        (home / "dags" / name).write_text(text)
    environ = environ or environment(home)
    _migrate(environ, home)
    with contextlib.ExitStack() as stack:
        found = {}
        for name in COMPONENTS:
            argv, log = [sys.executable, "-m", "airflow", name], home / f"{name}.log"
            leader = stack.enter_context(started(argv, environ=environ, log=log, cwd=home))
            found[name] = leader.pid
        wait_until(lambda: _healthy(environ), process=leader, log=log)
        yield found


def processes(leaders: Mapping[str, int]) -> Mapping[str, list[psutil.Process]]:
    """Return the processes of a running Airflow by component."""
    return {name: sessions.members([pid]) for name, pid in leaders.items()}


def why(home: Path) -> str:
    """Return what a home's scheduler ended of, where it is the database; as the end of a sentence.

    At its defaults Airflow's record is in SQLite without a write-ahead log: many tasks at once can lock it out.
    """
    locked = "OperationalError: database is locked" in (home / "scheduler.log").read_text()
    return "; its scheduler ended with 'database is locked'" if locked else ""


def _migrate(environ: Mapping[str, str], home: Path) -> None:
    argv = [sys.executable, "-m", "airflow", "db", "migrate"]
    ended = subprocess.run(
        argv, env=dict(environ), cwd=home, capture_output=True, text=True, timeout=MIGRATE_S, check=False
    )
    if ended.returncode:
        raise DidNotStart(f"airflow db migrate ended with {ended.returncode}\n{ended.stdout}{ended.stderr}")


def _healthy(environ: Mapping[str, str]) -> bool:
    status, text = fetch(int(environ["AIRFLOW__API__PORT"]), "/api/v2/monitor/health")
    if status != 200:
        return False
    report = json.loads(text)
    return all((report.get(part) or {}).get("status") == "healthy" for part in PARTS)
