"""`ma demo` ends well, also after it was killed in the middle; every attempt is one DAG run."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from api.cli.platform import sessions
from api.client import Client
from tests.e2e.conftest import ROOT, Ma, free_configuration
from tests.e2e.flights_platform import PROJECT, Flights

SHOWN = ("AUC", "rate by carrier and hour", "probability:", "carrier_delay_7d", "PRESENT", "Airflow", "predictions")


@pytest.fixture
def ma(tmp_path: Path) -> Iterator[Ma]:
    """The command on a home of its own, in which nothing runs."""
    made = Ma(free_configuration(tmp_path / "home"))
    yield made
    made("down", timeout_s=180)
    sessions.stop_all(made.config.home, (), grace_s=2)


def killed_at(ma: Ma, text: str, *, timeout_s: float = 600) -> str:
    """Start a demo, kill it and its platform with -9 as soon as it says `text`; return what it said."""
    process = subprocess.Popen(
        [sys.executable, "-u", "-m", "api.cli.main", "demo", "--exit"],
        cwd=ROOT,
        env=ma.environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    said, deadline = "", time.monotonic() + timeout_s
    for line in process.stdout:
        said += line
        assert time.monotonic() < deadline, said
        if text in line:
            break
    assert text in said
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()
    for one in sessions.marked(ma.config.home):
        one.kill()
    return said


def test_a_demo_that_was_killed_goes_on_where_it_was(ma: Ma) -> None:
    killed_at(ma, "train                    RUNNING")
    ended = ma("demo", "--exit", timeout_s=600)
    assert ended.code == 0, f"{ended.out}{ended.err}"
    assert "of an earlier demo is not finished: waiting for it" in ended.out
    for text in SHOWN:
        assert text in ended.out
    assert sessions.marked(ma.config.home) == []

    assert ma("up", "--detach", timeout_s=300).code == 0
    with Client.of(ma.config) as api:
        flights = Flights(ma, ma.config, api)
        runs_of_it = api.list("PipelineRun", PROJECT)
        assert len(runs_of_it) == 1, [
            (one.metadata.name, one.metadata.labels, one.spec, one.status) for one in runs_of_it
        ]
        (run,) = runs_of_it
        with flights.airflow() as http:
            runs = http.get(f"/api/v2/dags/{PROJECT}.train/dagRuns").json()["dag_runs"]
        assert [item["dag_run_id"] for item in runs] == [f"ma__{run.metadata.uid}__1"]
        assert [model.metadata.name for model in api.list("Model", PROJECT)] == ["late-1"]
