"""A killed run on a real Airflow: how long its last process lives."""

import contextlib
import time
from typing import Any

import psutil
import pytest

from api.gen.michelangelo.api.v2 import pipeline_run_pb2 as wire
from operators.engines.processes import MARK
from tests.e2e.flights_platform import PROJECT, Flights, eventually
from tests.patience import soon

KILL_S = 3.0


def jobs_of(flights: Flights) -> list[int]:
    """Return the processes of all jobs on this platform, in whatever session they are."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            mark = process.environ().get(MARK, "")
            if mark.startswith(str(flights.config.home)) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process.pid)
    return found


def started(flights: Flights, name: str, *settings: str) -> Any:
    """Start a run and wait until a job of it works."""
    given = [part for setting in settings for part in ("--set", setting)]
    ended = flights.ma("pipeline", "run", "train", "-n", PROJECT, "--name", name, *given)
    assert ended.code == 0, ended.err
    eventually(lambda: jobs_of(flights), "a job", timeout_s=soon(30))
    return eventually(
        lambda: run if (run := flights.run(name)).status.state == wire.PIPELINE_RUN_STATE_RUNNING else None, "the run"
    )


@pytest.mark.robustness
@pytest.mark.parametrize("engine", ["local", "ray"])
def test_a_killed_run_leaves_no_process_behind(flights: Flights, engine: str) -> None:
    name = f"killed-{engine}"
    started(flights, name, f"engine={engine}")
    time.sleep(1.0 if engine == "local" else 6.0)
    assert jobs_of(flights)
    run = flights.run(name)
    run.spec.kill = True
    began = time.monotonic()
    flights.api.update(run)
    while jobs_of(flights):
        assert time.monotonic() - began < soon(KILL_S), "its job works on"
        time.sleep(0.01)
    print(f"\n{engine}: the last process of the job was gone {time.monotonic() - began:.2f} s after the call")
    assert flights.until_ended(name).status.state == wire.PIPELINE_RUN_STATE_KILLED
    assert flights.ma("pipeline-run", "kill", name, "-n", PROJECT).code == 0, "once more is no error"
