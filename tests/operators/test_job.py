"""A stage's task: submits or adopts its job, waits outside of a worker, and says why it failed."""

import asyncio
import json
import os
import signal
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk import DAG
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException, TaskDeferred

from operators.engines import engine
from operators.engines.base import JobSpec, JobState
from operators.job import JobFailed, JobOperator, job_id, run_of
from operators.triggers import JobTrigger
from tests.operators.airflow_here import Run
from tests.patience import PATIENCE_S
from tests.processes import lives


class EchoOperator(JobOperator):
    """Runs a program of the tests."""

    template_fields = ("text", "engine")

    def __init__(self, *, text: Any, program: str = "echo", more: Mapping[str, Any] | None = None, **kwargs: Any):
        super().__init__(**kwargs)
        self.text = text
        self.program = program
        self.more = dict(more or {})

    def job(self, context: Any) -> JobSpec:
        """Return the job of this stage."""
        return JobSpec(job_id(context), self.program, {"run": run_of(context), "text": self.text, **self.more})


def chain(home: Path, program: str = "echo", engine_name: str = "local", **more: Any) -> Run:
    """A run of two stages; the second gets what the first returned."""
    places = {name: str(home / name) for name in ("ran", "pids", "until")}

    def build() -> DAG:
        with DAG("flights.late", schedule=None, params={"text": "{{ 7*7 }}\n$(id)"}) as dag:
            first: Any = EchoOperator(
                task_id="first",
                text=dag.param("text"),
                program=program,
                more={**places, **more},
                engine=engine_name,
            )
            EchoOperator(task_id="second", text=first.output["args"], more=places)
        return dag

    return Run(build)


def deferred(run: Run, task_id: str = "first", *, try_number: int = 1) -> TaskDeferred:
    with pytest.raises(TaskDeferred) as found:
        run.execute(task_id, try_number=try_number)
    return found.value


async def fired(waiting: TaskDeferred) -> Any:
    """What the trigger of a deferred task says, once it has gone through the database as Airflow sends it."""
    path, arguments = waiting.trigger.serialize()
    assert path == "operators.triggers.JobTrigger"
    trigger = JobTrigger(**json.loads(json.dumps(arguments)))
    return (await asyncio.wait_for(anext(aiter(trigger.run())), PATIENCE_S)).payload


def ran(home: Path) -> int:
    path = home / "ran"
    return len(path.read_text().splitlines()) if path.exists() else 0


def appears(path: Path) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not path.exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)


async def through(run: Run, task_id: str = "first", *, try_number: int = 1) -> Any:
    """One whole try of a task."""
    waiting = deferred(run, task_id, try_number=try_number)
    return run.resume(task_id, waiting, await fired(waiting), try_number=try_number)


async def test_what_a_stage_returns_reaches_the_next_one_unchanged(home: Path) -> None:
    run = chain(home)
    outputs = await through(run)
    assert json.loads(outputs["args"])["text"] == "{{ 7*7 }}\n$(id)"
    task, context = run.task("second")
    assert task.job(context).args["text"] == outputs["args"]


async def test_the_inputs_of_a_stage_are_shown_without_those_of_the_platform(home: Path) -> None:
    run = chain(home)
    await through(run)
    shown = run.xcoms["first", "inputs"]
    assert shown["text"] == "{{ 7*7 }}\n$(id)"
    assert "run" not in shown


async def test_a_waiting_stage_holds_names_alone(home: Path) -> None:
    run = chain(home)
    waiting = deferred(run)
    assert waiting.trigger.serialize()[1] == {"engine": "local", "job_id": job_id(run.task("first")[1])}
    assert waiting.method_name == "resume"
    assert await fired(waiting) == {"job_id": job_id(run.task("first")[1]), "state": "SUCCEEDED"}


async def test_a_wrong_input_fails_the_task_for_good(home: Path) -> None:
    run = chain(home, error="user")
    waiting = deferred(run)
    with pytest.raises(AirflowFailException, match="column 'x' is not there"):
        run.resume("first", waiting, await fired(waiting))
    told = run.xcoms["first", "verdict"]
    assert (told["kind"], told["message"]) == ("user", "column 'x' is not there")
    assert told["evidence"]["exception"]["at"]["text"] == "raise UserError(\"column 'x' is not there\")"


async def test_a_fault_of_the_system_fails_one_try_and_the_next_runs_again(home: Path) -> None:
    run = chain(home, error="system")
    for tried in (1, 2):
        waiting = deferred(run, try_number=tried)
        with pytest.raises(JobFailed, match="the disk is full") as failed:
            run.resume("first", waiting, await fired(waiting), try_number=tried)
        assert not isinstance(failed.value, AirflowFailException)
        assert ran(home) == tried
    assert run.xcoms["first", "verdict"]["kind"] == "system"


async def test_a_killed_job_fails_one_try_and_says_that_it_is_lost(home: Path) -> None:
    run = chain(home, "family")
    waiting = deferred(run)
    appears(home / "pids")
    os.kill(int((home / "pids").read_text()), signal.SIGKILL)
    with pytest.raises(JobFailed, match=r"LOST: its process was killed by SIGKILL"):
        run.resume("first", waiting, await fired(waiting))
    told = run.xcoms["first", "verdict"]
    assert (told["kind"], told["message"]) == ("system", "its process was killed by SIGKILL")
    assert told["evidence"]["ended"]["signal"] == "SIGKILL"


async def test_a_retry_adopts_the_job_of_an_earlier_try(home: Path) -> None:
    run = chain(home, "family")
    deferred(run, try_number=1)
    waiting = deferred(run, try_number=2)
    (home / "until").touch()
    outputs = run.resume("first", waiting, await fired(waiting), try_number=2)
    assert outputs["pid"] == (home / "pids").read_text()
    assert ran(home) == 1


async def test_a_retry_takes_the_result_that_an_earlier_try_did_not_live_to_take(home: Path) -> None:
    run = chain(home)
    await fired(deferred(run, try_number=1))
    outputs = run.execute("first", try_number=2)
    assert json.loads(outputs["args"])["text"] == "{{ 7*7 }}\n$(id)"
    assert ran(home) == 1


async def test_a_task_that_is_cleared_runs_its_job_again(home: Path) -> None:
    run = chain(home)
    await through(run, try_number=1)
    await through(run, try_number=2)
    assert ran(home) == 2


async def test_the_jobs_log_is_shown_in_the_tasks_log(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    await through(chain(home, print="progress 1 of 2\nprogress %s {} 2 of 2"))
    assert "progress %s {} 2 of 2" in capsys.readouterr().out


async def test_a_killed_task_cancels_its_job(home: Path) -> None:
    run = chain(home, "family", children=3)
    task, context = run.task("first")
    with pytest.raises(TaskDeferred):
        run.call(task, context, task.execute)
    appears(home / "pids")
    run.call(task, context, lambda _: task.on_kill() or {})
    name = job_id(context)
    assert engine("local").result(name).state is JobState.LOST
    assert not [pid for pid in (home / "pids").read_text().split() if lives(int(pid))]


def test_a_task_that_was_killed_before_it_submitted_starts_no_job(home: Path) -> None:
    """SIGTERM runs on_kill between two lines of execute, and execute goes on."""
    run = chain(home, "family")
    task, context = run.task("first")
    push = context["ti"].xcom_push

    def killed(key: str, value: Any) -> None:
        push(key, value)
        task.on_kill()

    context["ti"].xcom_push = killed
    with pytest.raises(AirflowFailException, match="killed"):
        run.call(task, context, task.execute)
    assert engine("local").result(job_id(context)).state is JobState.LOST


def test_an_engine_that_does_not_exist_fails_the_task_for_good(home: Path) -> None:
    with pytest.raises(AirflowFailException, match=r"'flink': use .*local, ray, spark"):
        chain(home, engine_name="flink").execute("first")


RESUMED = {"ma": {"reuse": {"first": {"outputs": {"args": "as before"}, "from": "run-1"}}, "skip": ["second"]}}


def test_a_stage_that_an_earlier_run_did_takes_its_outputs_over_and_starts_nothing(home: Path) -> None:
    run = chain(home)
    run.conf = RESUMED
    assert run.execute("first") == {"args": "as before"}
    assert run.xcoms["first", "reused"]["from"] == "run-1"
    assert "taken over from run-1" in run.xcoms["first", "reused"]["message"]
    assert run.xcoms["first", "args"] == "as before", "later stages find it as if it had been done"
    assert ran(home) == 0


async def test_a_stage_that_is_tried_again_does_its_work_whatever_an_earlier_run_did(home: Path) -> None:
    run = chain(home)
    run.conf = RESUMED
    outputs = await through(run, try_number=2)
    assert outputs["args"] != "as before"
    assert ran(home) == 1


def test_a_stage_that_is_not_asked_for_is_skipped(home: Path) -> None:
    run = chain(home)
    run.conf = RESUMED
    with pytest.raises(AirflowSkipException, match="not asked for"):
        run.execute("second")
    assert ran(home) == 0
