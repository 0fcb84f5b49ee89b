"""`ma pipeline-run retry` and `resume`, and how `ma` shows what a run waits for."""

import uuid
from collections.abc import Callable
from typing import Any

import pytest

from api.cli import again, present, runs
from api.cli.exits import Failure
from api.client import Client
from api.config import Config
from api.controllers import pending
from api.gen.michelangelo.api.v2 import pipeline_run_pb2 as wire
from api.kinds import kinds

Ma = Callable[..., Any]
FAILED = wire.PIPELINE_RUN_STEP_STATE_FAILED


def waiting(name: str, reason: str, message: str) -> Any:
    run = kinds()["PipelineRun"].new("flights", name)
    run.spec.pipeline.name = "train"
    run.status.state = wire.PIPELINE_RUN_STATE_PENDING
    if reason:
        pending.waits(run, reason, message)
    return run


def test_a_list_says_why_runs_wait_and_at_which_place_in_80_columns(capsys: pytest.CaptureFixture[str]) -> None:
    items = [
        waiting("train-20261121-170000-ab12", "Concurrency", "number 12 of 40 runs that wait: one at a time"),
        waiting("train-20261121-170000-cd34", "DependencyUnavailable", "Airflow does not answer"),
        waiting("train-20261121-170000-ef56", "", ""),
    ]
    present.show(kinds()["PipelineRun"], items, "table", single=False, all_namespaces=False)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].endswith("WAITS FOR")
    assert lines[1].endswith("Concurrency 12/40")
    assert lines[2].endswith("DependencyUnavailable")
    assert max(len(line) for line in lines) <= 80


def test_nothing_is_said_of_runs_that_do_not_wait(capsys: pytest.CaptureFixture[str]) -> None:
    run = waiting("one", "Pool", "number 1 of 1 tasks")
    run.status.state = wire.PIPELINE_RUN_STATE_RUNNING
    present.show(kinds()["PipelineRun"], [run], "table", single=False, all_namespaces=False)
    assert "WAITS FOR" not in capsys.readouterr().out


def test_who_follows_a_run_is_told_once_what_it_waits_for() -> None:
    said: list[str] = []
    progress = runs.Progress(said.append)
    for _ in range(2):
        progress.update(waiting("one", "Pool", "number 1 of 2 tasks that wait"))
    progress.update(waiting("one", "", ""))
    assert said == ["  waits: number 1 of 2 tasks that wait"]


def test_without_a_name_the_innermost_step_that_failed_is_retried() -> None:
    run = kinds()["PipelineRun"].new("flights", "one")
    run.status.steps.add(name="load")
    group = run.status.steps.add(name="fit", state=FAILED)
    group.sub_steps.add(name="fit.a")
    group.sub_steps.add(name="fit.b", state=FAILED)
    assert again._failed_step(run) == "fit.b"
    del run.status.steps[1]
    with pytest.raises(Failure, match="say with --step"):
        again._failed_step(run)


@pytest.fixture
def begun(api: Config, ma: Ma) -> str:
    """A project with a run that has not ended."""
    name = f"shop-{uuid.uuid4().hex[:8]}"
    with Client.of(api) as client:
        client.create(kinds()["Project"].new(name, name))
        pipeline = kinds()["Pipeline"].new(name, "train")
        pipeline.spec.manifest.file_path = "train"
        client.create(pipeline)
        run = kinds()["PipelineRun"].new(name, "one")
        run.spec.pipeline.name = "train"
        client.create(run)
    return name


def test_a_run_that_has_not_ended_is_neither_retried_nor_gone_on_from(begun: str, ma: Ma) -> None:
    for arguments in (("retry", "one", "--step", "first"), ("resume", "one")):
        ended = ma("pipeline-run", *arguments, "-n", begun)
        assert ended.code == 1
        assert "has not ended: wait until it has, or kill it" in ended.err


def test_a_run_that_is_not_there_is_not_gone_on_from(begun: str, ma: Ma) -> None:
    ended = ma("pipeline-run", "resume", "nobody", "-n", begun)
    assert ended.code == 1
    assert "nobody" in ended.err
    assert ma("pipeline-run", "resume", "one").code == 2, "which project?"
