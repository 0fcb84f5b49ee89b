"""A task's process that closes everything before it ends, waited for by Airflow's own supervisor."""

from __future__ import annotations

import os
import signal
import time
import uuid
from typing import Any

import httpx
import psutil
import pytest
import structlog

import tests.operators.airflow_here  # noqa: F401  # before anything else imports Airflow
from operators.task_exit import TaskCoordinator
from tests.patience import soon

# Airflow's supervisor leaves its end of a task's stdin to the garbage collection.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
ASLEEP_S = 600


AT = "2026-11-01T00:00:00Z"
CONTEXT = {
    "dag_run": {
        "dag_id": "d",
        "run_id": "r",
        "run_after": AT,
        "run_type": "manual",
        "state": "running",
        "consumed_asset_events": [],
        **dict.fromkeys(("data_interval_start", "data_interval_end", "end_date", "partition_key", "logical_date")),
        "start_date": AT,
    },
    "max_tries": 0,
    "should_retry": False,
}


def answers(request: httpx.Request) -> httpx.Response:
    """Answer as Airflow's API server does that lets every task begin and end."""
    return httpx.Response(200, json=CONTEXT) if request.url.path.endswith("/run") else httpx.Response(204)


def run(target: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Run `target` as a task whose supervisor, left alone, would look at it every ten minutes."""
    from airflow.sdk.api.client import Client
    from airflow.sdk.api.datamodels._generated import TaskInstance
    from airflow.sdk.execution_time import supervisor

    monkeypatch.setattr(supervisor, "MIN_HEARTBEAT_INTERVAL", ASLEEP_S)
    monkeypatch.setattr(supervisor, "HEARTBEAT_TIMEOUT", 2 * ASLEEP_S)
    instance = TaskInstance(
        id=uuid.uuid4(),
        task_id="t",
        dag_id="d",
        run_id="r",
        try_number=1,
        dag_version_id=uuid.uuid4(),
        queue="default",
    )
    return TaskCoordinator().execute_task(
        what=instance,
        dag_rel_path="d.py",
        bundle_info=None,
        client=Client(base_url="http://airflow", token="", transport=httpx.MockTransport(answers)),
        target=target,
        logger=structlog.get_logger(),
        subprocess_logs_to_stdout=False,
    )


def closes_all_and_lingers() -> None:
    os.closerange(0, 256)
    time.sleep(0.3)
    os._exit(0)


def ends() -> None:
    return None


def fails() -> None:
    raise SystemExit(3)


def is_killed() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def test_an_end_after_the_sockets_closed_is_seen_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Airflow alone would wait for a whole interval of heartbeats."""
    began = time.monotonic()
    assert run(closes_all_and_lingers, monkeypatch).exit_code == 0
    assert time.monotonic() - began < ASLEEP_S / 2


@pytest.mark.parametrize(("target", "code"), [(ends, 0), (fails, 3), (is_killed, -signal.SIGKILL)])
def test_how_a_process_ended_is_what_airflow_says(target: Any, code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    own = psutil.Process()
    run(target, monkeypatch)
    before = own.num_fds(), own.children()
    found = run(target, monkeypatch)
    assert found.exit_code == code
    assert found.final_state == ("success" if code == 0 else "failed")
    assert (own.num_fds(), own.children()) == before


def test_a_task_does_not_outlive_a_worker_that_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    told, tells = os.pipe()

    def tells_its_pid_and_hangs() -> None:
        os.write(tells, f"{os.getpid()}\n".encode())
        time.sleep(ASLEEP_S)

    if not (worker := os.fork()):
        run(tells_its_pid_and_hangs, monkeypatch)
        os._exit(0)
    task = psutil.Process(int(os.read(told, 32)))
    os.kill(worker, signal.SIGKILL)
    os.waitpid(worker, 0)
    assert not psutil.wait_procs([task], timeout=soon(10))[1]
    os.close(told)
    os.close(tells)
