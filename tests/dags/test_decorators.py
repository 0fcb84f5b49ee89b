"""A plain DAG file with `@task.local` and `@task.ray`: as Airflow reads it, and as it runs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from api.config import Config
from api.engine_settings import unconfigured
from operators.jobs import python_function
from operators.task_process import TaskProcess
from operators.values.references import Reference
from operators.values.store import values_at
from tests.dags.conftest import airflow_environ, read_by_airflow
from tests.patience import soon

FILE = """
from airflow.sdk import dag, task


@task.local(cpu=1, memory="1Gi", timeout="1m", retries=1)
def rows(count):
    return [{"number": number} for number in range(count)]


@task.local
def total(found):
    return sum(row["number"] for row in found)


@task.ray(cpu=1)
def on_ray(found):
    return len(found)


@dag(schedule=None)
def plain():
    total(rows(4))


@dag(schedule=None)
def with_ray():
    on_ray(rows(2))


plain()
with_ray()
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the DAG file."""
    made = tmp_path / "files"
    made.mkdir()
    (made / "plain.py").write_text(FILE)
    return made


def test_airflow_reads_the_decorators(tmp_path: Path, folder: Path) -> None:
    found = read_by_airflow(tmp_path, folder)
    assert found["errors"] == {}
    assert found["dags"]["plain"]["tasks"]["rows"]["downstream"] == ["total"]
    assert found["dags"]["plain"]["tasks"]["rows"]["retries"] == 1
    assert found["dags"]["with_ray"]["tasks"]["on_ray"]["type"] == "_OnRay"


@pytest.mark.parametrize(
    ("decorator", "told"),
    [
        ("@task.kubernetes_job", "needs a Kubernetes cluster: set MA_KUBERNETES"),
        ('@task.spark(memory="512Mi")', "@task.spark needs pyspark" if unconfigured("spark") else "too little"),
        ('@task.local(memory="4gb")', "memory"),
        ('@task.local(timeout="0s")', "timeout"),
        ("@task.ray(cache=True)", "cache is for tasks of a @pipeline"),
    ],
)
def test_what_cannot_be_carried_out_is_an_import_error_with_a_way_out(
    tmp_path: Path, decorator: str, told: str
) -> None:
    (tmp_path / "bad").mkdir()
    text = f"from airflow.sdk import dag, task\n\n@dag(schedule=None)\ndef bad():\n    {decorator}\n"
    (tmp_path / "bad" / "bad.py").write_text(f"{text}    def work():\n        return 1\n    work()\n\nbad()\n")
    (error,) = read_by_airflow(tmp_path, tmp_path / "bad")["errors"].values()
    assert told in error


def test_a_plain_dag_runs_and_its_xcoms_are_references(tmp_path: Path, folder: Path) -> None:
    environ = airflow_environ(tmp_path, AIRFLOW__CORE__DAGS_FOLDER=str(folder))
    migrate = [sys.executable, "-m", "airflow", "db", "migrate"]
    subprocess.run(migrate, env=environ, check=True, capture_output=True, timeout=180)
    done = subprocess.run(
        [
            sys.executable,
            str(Path(__file__).with_name("run_dags.py")),
            str(folder),
            json.dumps([{"dag_id": "plain", "manual": True}]),
        ],
        env=environ,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert "\nENDED " in done.stdout, done.stdout[-8000:] + done.stderr[-8000:]
    (run,) = json.loads(done.stdout.rpartition("\nENDED ")[2])
    assert run["state"] == "success"
    found = {x["task_id"]: x["value"] for x in run["xcoms"] if x["key"] == "return_value"}
    values = values_at(str(Config(home=tmp_path, projects_root=tmp_path).artifacts_path / "values"))
    assert {name: list(value) for name, value in found.items()} == {"rows": ["$ref"], "total": ["$ref"]}
    assert values.get(Reference.from_json(found["total"]["$ref"])) == 6


def test_a_function_that_was_sent_is_called_with_stored_values(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MA_HOME", str(tmp_path))
    values = values_at(str(Config(home=tmp_path, projects_root=tmp_path).artifacts_path / "values"))
    stored = {"$ref": values.put([1, 2, 3]).to_json()}
    source = "def longest(found, more):\n    return len(found) + more\n"
    given: dict[str, Any] = {"source": source, "function": "longest", "args": [stored], "kwargs": {"more": 4}}
    assert values.get(Reference.from_json(python_function.run(given))) == 7


def test_a_killed_task_ends_with_all_that_its_code_started(tmp_path: Path) -> None:
    """The code ignores signals, and so does what it started."""
    program = """
import signal, subprocess, sys, time
from operators.task_process import TaskProcess
process = TaskProcess()
signal.signal(signal.SIGTERM, lambda *_: process.end())
ignores = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); open('up', 'w'); time.sleep(600)"
with process.working():
    subprocess.Popen([sys.executable, "-c", ignores], start_new_session=True)
    while True:
        time.sleep(0.01)
"""
    environ = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    started = subprocess.Popen([sys.executable, "-c", program], env=environ, cwd=tmp_path)
    deadline = time.monotonic() + soon(12)
    while not (tmp_path / "up").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    children = psutil.Process(started.pid).children(recursive=True)
    assert children
    started.terminate()
    assert started.wait(soon(3)) == 143
    assert psutil.wait_procs(children, timeout=soon(1))[1] == []


def test_what_a_users_code_must_not_see_is_away_while_it_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MA_TOKEN", "secret")
    monkeypatch.setenv("AIRFLOW__CORE__FERNET_KEY", "secret")
    with TaskProcess().working():
        assert "secret" not in os.environ.values()
    assert os.environ["MA_TOKEN"] == os.environ["AIRFLOW__CORE__FERNET_KEY"] == "secret"
