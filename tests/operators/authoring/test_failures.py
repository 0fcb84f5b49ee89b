"""Runs in this process that go wrong: repetition, time limits, what a failure ends and what it shows."""

import signal
import threading
import time
import traceback
from pathlib import Path
from typing import Any

import pytest

from operators import foreach, pipeline, task
from operators.authoring.local_run import Report, run_here
from operators.authoring.timeouts import TaskTimeout
from operators.errors import UserError
from operators.values import ValueRefused
from tests.operators.authoring.small_tasks import add, double, numbers, states


def test_a_step_is_repeated_as_often_as_it_says() -> None:
    tries: list[int] = []

    @task(retries=2)
    def flaky(good: int) -> int:
        tries.append(1)
        if len(tries) < good:
            raise OSError("not yet")
        return len(tries)

    @pipeline
    def flow(good: int) -> Any:
        return flaky(good)

    assert flow.run(good=3) == 3
    tries.clear()
    report = run_here(flow, {"good": 4})
    assert isinstance(report.error, OSError)
    assert [(event.state, event.attempt) for event in report.events] == [
        ("RUNNING", 1),
        ("RETRYING", 1),
        ("RUNNING", 2),
        ("RETRYING", 2),
        ("RUNNING", 3),
        ("FAILED", 3),
    ]


def test_what_cannot_get_better_is_not_repeated() -> None:
    @task(retries=5)
    def hopeless() -> None:
        raise UserError("the label is constant")

    @task(retries=5)
    def unstorable() -> Any:
        return {1, 2}

    @pipeline
    def flow() -> Any:
        hopeless()
        unstorable()

    report = run_here(flow, {})
    assert [event.attempt for event in report.events if event.state == "FAILED"] == [1, 1]


def test_an_output_that_cannot_be_stored_names_its_step() -> None:
    @task
    def unstorable() -> Any:
        return [{1, 2}]

    @pipeline
    def flow() -> Any:
        return unstorable()

    with pytest.raises(ValueRefused, match=r"step 'unstorable' returned .* a set at \[0\] .* sorted\(value\)"):
        flow.run()


def test_a_failure_ends_what_needs_it_and_nothing_else() -> None:
    @task
    def fail_at(x: int) -> int:
        return 1 // (x - 1)

    @pipeline
    def flow() -> Any:
        mapped = foreach(fail_at, numbers(3))
        return [add(mapped), foreach(double, mapped), double(1)]

    report = run_here(flow, {})
    assert isinstance(report.error, ZeroDivisionError)
    assert states(report) == {
        "numbers": "SUCCEEDED",
        "fail_at[0]": "SUCCEEDED",
        "fail_at[1]": "FAILED",
        "fail_at[2]": "SUCCEEDED",
        "add": "UPSTREAM_FAILED",
        "double": "UPSTREAM_FAILED",
        "double-2": "SUCCEEDED",
    }


class OwnError(Exception):
    """An error of the user's."""


@task
def broken() -> None:
    raise OwnError("of the user")


def test_a_failure_is_the_users_own_error_with_the_users_own_lines() -> None:
    @pipeline
    def flow() -> Any:
        return broken()

    with pytest.raises(OwnError, match="of the user") as raised:
        flow.run()
    assert raised.value.__cause__ is None
    assert raised.value.__context__ is None
    report = run_here(flow, {})
    frames = traceback.extract_tb(report.error.__traceback__ if report.error else None)
    assert [(Path(frame.filename).name, frame.name) for frame in frames] == [(Path(__file__).name, "broken")]


def test_a_step_that_takes_too_long_is_ended() -> None:
    @task(timeout=0.2)
    def slow() -> None:
        time.sleep(120)

    @pipeline
    def flow() -> Any:
        return slow()

    before = signal.getsignal(signal.SIGALRM)
    with pytest.raises(TaskTimeout, match=r"'slow' took longer than its timeout of 0\.2 s"):
        flow.run()
    assert signal.getsignal(signal.SIGALRM) is before
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


def test_a_step_that_takes_too_long_is_ended_in_another_thread_too() -> None:
    @task(timeout=0.2)
    def slow() -> None:
        for _ in range(12_000):
            time.sleep(0.01)

    @pipeline
    def flow() -> Any:
        return slow()

    found: list[Report] = []
    thread = threading.Thread(target=lambda: found.append(run_here(flow, {})))
    thread.start()
    thread.join(60)
    assert isinstance(found[0].error, TaskTimeout)
    assert "0.2 s" in str(found[0].error)


def test_who_debugs_has_all_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    import bdb

    class Waiting(bdb.Bdb):
        def wait(self) -> None:
            time.sleep(0.5)

    @task(timeout=0.1)
    def debugged() -> str:
        Waiting().wait()
        return "seen"

    @pipeline
    def flow() -> Any:
        return debugged()

    assert flow.run() == "seen"


def test_breakpoints_stop_in_the_task(monkeypatch: pytest.MonkeyPatch) -> None:
    stopped: list[int] = []
    monkeypatch.setattr("sys.breakpointhook", lambda: stopped.append(threading.get_ident()))

    @task
    def stops() -> int:
        breakpoint()
        return 1

    @pipeline
    def flow() -> Any:
        return stops()

    assert flow.run() == 1
    assert stopped == [threading.get_ident()]
