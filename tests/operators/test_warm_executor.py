"""The executor of the embedded Airflow: warm before it forks, woken when there is work, and whole after a crash."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
from sqlalchemy import func
from sqlalchemy.dialects import sqlite

from operators import wake
from operators.warm_executor import LEAST_WAIT_S, MOST_WAIT_S, PRELOADED, WarmExecutor, wait_s
from tests.dags.conftest import airflow_environ
from tests.patience import soon

ASLEEP_S = 600.0

LOADED = """
import json, sys, threading
from operators.warm_executor import PRELOADED, preload
preload()
heavy = [name for name in ("grpc", "pandas", "numpy", "pyarrow", "ray", "feast", "mlflow") if name in sys.modules]
print(json.dumps([[name for name in PRELOADED if name not in sys.modules], heavy, threading.active_count()]))
"""
SCHEDULER = """
import json, time
from operators.warm_executor import WarmExecutor
made = WarmExecutor(parallelism=3)
made.start()
print(json.dumps([worker.process.pid for worker in made._workers]), flush=True)
time.sleep(600)
"""


@pytest.fixture
def executor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """An executor with two workers, as a scheduler starts it."""
    monkeypatch.setenv("MA_HOME", str(tmp_path))
    monkeypatch.setenv("AIRFLOW__API_AUTH__JWT_SECRET", "x" * 64)
    made = WarmExecutor(parallelism=2)
    made.start()
    yield made
    made.end()


def test_a_scheduler_with_it_sees_runs_in_the_second_in_which_they_are_made(executor: Any) -> None:
    assert "%f" in str(func.now().compile(dialect=sqlite.dialect()))


def work(key: str) -> Any:
    """Something to do that Airflow does not know: what comes of it is that it failed."""
    return SimpleNamespace(
        key=key, display_name=key, running_state=None, success_state="success", failure_state="failed"
    )


def hand(executor: Any, key: str) -> None:
    """Hand it out, and let the executor wait at its next look."""
    executor.running.add(key)
    executor._process_workloads([work(key)])
    executor._sent = False


def rung_after(delay_s: float) -> threading.Thread:
    thread = threading.Timer(delay_s, wake.ring, [wake.place()])
    thread.start()
    return thread


def test_all_that_is_to_be_loaded_is_there_and_nothing_that_does_not_survive_a_fork(tmp_path: Path) -> None:
    environ = airflow_environ(tmp_path)
    ended = subprocess.run(
        [sys.executable, "-c", LOADED], env=environ, capture_output=True, text=True, timeout=300, check=False
    )
    assert ended.returncode == 0, ended.stderr
    missing, heavy, threads = json.loads(ended.stdout.splitlines()[-1])
    assert not missing
    assert not heavy
    assert threads == 1
    assert "cannot be imported" not in ended.stdout + ended.stderr


def test_what_cannot_be_imported_keeps_no_scheduler_from_starting(caplog: pytest.LogCaptureFixture) -> None:
    from operators.warm_executor import preload

    preload(["operators.no_such_module", PRELOADED[0]])
    assert "operators.no_such_module" in caplog.text


@pytest.mark.parametrize(
    ("idle_s", "wanted"), [(0, LEAST_WAIT_S), (10, LEAST_WAIT_S), (50, 0.5), (100, MOST_WAIT_S), (1e6, MOST_WAIT_S)]
)
def test_a_scheduler_that_had_nothing_to_do_for_long_looks_less_often(idle_s: float, wanted: float) -> None:
    assert wait_s(idle_s) == pytest.approx(wanted)


def test_a_ring_ends_the_wait(executor: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("operators.warm_executor.MOST_WAIT_S", ASLEEP_S)
    monkeypatch.setattr("operators.warm_executor.LEAST_WAIT_S", ASLEEP_S)
    thread = rung_after(0.05)
    began = time.monotonic()
    executor.sync()
    assert time.monotonic() - began < ASLEEP_S / 2
    thread.join()


def test_what_a_worker_did_ends_the_wait(executor: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("operators.warm_executor.MOST_WAIT_S", ASLEEP_S)
    monkeypatch.setattr("operators.warm_executor.LEAST_WAIT_S", ASLEEP_S)
    hand(executor, "unknown")
    executor.sync()
    state, told = executor.event_buffer.pop("unknown")
    assert state == "failed"
    assert "Unknown workload" in told
    assert not executor.running


def test_what_was_just_sent_is_not_waited_for(executor: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The scheduler has more to send at once."""
    monkeypatch.setattr("operators.warm_executor.LEAST_WAIT_S", ASLEEP_S)
    began = time.monotonic()
    executor._process_workloads([])
    executor.sync()
    assert time.monotonic() - began < ASLEEP_S / 2


def test_more_than_there_are_workers_waits_for_its_turn(executor: Any) -> None:
    keys = [f"unknown-{number}" for number in range(20)]
    for key in keys:
        executor.running.add(key)
        executor.queued_tasks[key] = work(key)
    executor._process_workloads(list(executor.queued_tasks.values()))
    while executor.running:
        executor.sync()
    assert {state for state, _ in executor.event_buffer.values()} == {"failed"}
    assert set(executor.event_buffer) == set(keys)
    assert not executor.queued_tasks


def test_workers_that_are_killed_are_replaced_when_there_is_work(executor: Any) -> None:
    """Even the one that waits for work, whichever that is."""
    before = {worker.process.pid for worker in executor._workers}
    for pid in before:
        os.kill(pid, signal.SIGKILL)
    while executor._workers:
        executor.sync()
    hand(executor, "unknown")
    while executor.running:
        executor.sync()
    assert executor.event_buffer["unknown"][0] == "failed"
    assert not before & {worker.process.pid for worker in executor._workers}


def test_what_a_killed_worker_had_in_hand_has_failed(executor: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("operators.warm_executor.LEAST_WAIT_S", ASLEEP_S)
    monkeypatch.setattr("operators.warm_executor.MOST_WAIT_S", ASLEEP_S)
    frozen = executor._workers[0]
    os.kill(frozen.process.pid, signal.SIGSTOP)
    hand(executor, "lost")
    assert frozen.work.key == "lost"
    os.kill(frozen.process.pid, signal.SIGKILL)
    executor.sync()
    state, told = executor.event_buffer["lost"]
    assert state == "failed"
    assert "ended with -9" in told
    assert not executor.running


def test_workers_do_not_outlive_a_scheduler_that_is_killed(tmp_path: Path) -> None:
    environ = airflow_environ(tmp_path, AIRFLOW__API_AUTH__JWT_SECRET="x" * 64)
    with subprocess.Popen([sys.executable, "-c", SCHEDULER], env=environ, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        workers = [psutil.Process(pid) for pid in json.loads(process.stdout.readline())]
        process.kill()
    assert len(workers) == 3
    assert not psutil.wait_procs(workers, timeout=soon(10))[1]


def test_nothing_is_left_of_an_executor_that_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MA_HOME", str(tmp_path))
    monkeypatch.setenv("AIRFLOW__API_AUTH__JWT_SECRET", "x" * 64)
    own = psutil.Process()
    children = set(own.children(recursive=True))
    counted = []
    for _ in range(3):
        made = WarmExecutor(parallelism=2)
        made.start()
        made.sync()
        made.end()
        del made
        counted.append(own.num_fds())
    assert set(own.children(recursive=True)) == children
    assert counted[-1] == counted[0]
    assert not wake.ring(wake.place())
