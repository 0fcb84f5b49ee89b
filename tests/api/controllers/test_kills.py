"""A PipelineRun whose spec says so is stopped in Airflow, and stays so."""

from typing import Any

import pytest

from api.errors import FailedPrecondition
from api.gen.michelangelo.api.v2 import pipeline_run_pb2 as wire
from tests.api.controllers.test_pipeline_run import KILLED, begun, until_failed
from tests.robustness.fakes.airflow import FakeRun


async def killed(world: Any) -> tuple[Any, FakeRun]:
    """Return a run that was killed in its first task, and its DAG run."""
    await world.ready()
    dag_run = await begun(world)
    world.airflow.advance(dag_run)
    world.airflow.advance(dag_run)
    await kill(world, "one")
    return await world.until("PipelineRun", "one", lambda found: found.status.state == KILLED), dag_run


async def test_a_killed_run_is_stopped_in_airflow(world: Any) -> None:
    run, dag_run = await killed(world)
    assert dag_run.state == "failed"
    assert [step.state for step in run.status.steps] == [
        wire.PIPELINE_RUN_STEP_STATE_KILLED,
        wire.PIPELINE_RUN_STEP_STATE_SKIPPED,
    ]
    await kill(world, "one")
    with pytest.raises(FailedPrecondition) as refused:
        await unkill_and_kill(world, "one")
    assert refused.value.reason == "ALREADY_FINISHED"


@pytest.mark.parametrize("seen", [False, True], ids=["at the same moment", "after it was seen"])
async def test_a_kill_that_airflows_scheduler_writes_over_is_a_kill(
    world: Any, monkeypatch: pytest.MonkeyPatch, seen: bool
) -> None:
    """A task ends while its run is stopped: all others were skipped, and the scheduler makes a success of that."""
    await world.ready()
    dag_run, mark, marked = await begun(world), world.airflow.mark, list[str]()

    def overtaken(run: Any, state: str) -> None:
        mark(run, state)
        marked.append(state)
        if len(marked) == 1 and not seen:
            run.state = "success"

    monkeypatch.setattr(world.airflow, "mark", overtaken)
    await kill(world, "one")
    await world.until("PipelineRun", "one", lambda found: found.status.state == KILLED)
    if seen:
        dag_run.state = "success"
        world.airflow._changed(dag_run)
    await until_failed(dag_run)
    assert marked == ["failed", "failed"]
    assert (await world.resources.get("PipelineRun", "flights", "one")).status.state == KILLED


async def kill(world: Any, name: str) -> None:
    await world.change("PipelineRun", name, lambda run: setattr(run.spec, "kill", True))


async def unkill_and_kill(world: Any, name: str) -> None:
    await world.change("PipelineRun", name, lambda run: setattr(run.spec, "kill", False))
    await kill(world, name)
