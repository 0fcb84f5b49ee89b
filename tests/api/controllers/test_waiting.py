"""A run that waits says for what, and which place it has; so do the steps of one that goes on."""

from datetime import UTC, datetime, timedelta
from typing import Any

from api.controllers.attempts import condition_of
from api.gen.michelangelo.api import conditions_pb2
from api.gen.michelangelo.api.v2 import pipeline_run_pb2 as wire
from api.store.base import Key
from tests.api.controllers.test_pipeline_run import PENDING, RUNNING, SUCCEEDED, begun

TRUE = conditions_pb2.CONDITION_STATUS_TRUE


def waits(reason: str) -> Any:
    """Whether a run is said to wait for a reason."""

    def holds(run: Any) -> bool:
        found = condition_of(run, "Pending")
        return found is not None and (found.status, found.reason) == (TRUE, reason)

    return holds


async def told(world: Any, name: str, reason: str) -> Any:
    """Return a run once it is said to wait for a reason, long after it began to."""
    world.ahead = timedelta(seconds=5)
    world.manager.wake(Key("PipelineRun", "flights", name))
    return await world.until("PipelineRun", name, waits(reason))


async def test_a_run_waits_for_a_pipeline_that_is_not_ready(world: Any) -> None:
    await world.project()
    world.airflow.parses = False
    await world.pipeline()
    await world.run("one")
    run = await told(world, "one", "PipelineNotReady")
    assert run.status.state == PENDING
    assert condition_of(run, "Pending").message == "waits until pipeline train is ready"
    world.airflow.parses = True
    dag = await world.until("PipelineRun", "one", lambda found: found.status.workflow_run_id != "")
    world.airflow.finish(world.airflow.runs["flights.train", dag.status.workflow_run_id])
    run = await world.until("PipelineRun", "one", lambda found: found.status.state == SUCCEEDED)
    assert condition_of(run, "Pending").status != TRUE


async def test_runs_beyond_what_the_dag_has_at_a_time_know_their_places(world: Any) -> None:
    await world.ready()
    world.airflow.dags["flights.train"].max_active_runs = 1
    first = await begun(world, "first")
    world.airflow.advance(first)
    for name in ("second", "third"):
        await begun(world, name)
    second, third = [await told(world, name, "Concurrency") for name in ("second", "third")]
    assert condition_of(second, "Pending").message == (
        "number 1 of 2 runs that wait: flights.train has one run at a time"
    )
    assert condition_of(third, "Pending").message.startswith("number 2 of 2 runs")
    assert third.status.state == PENDING


async def test_a_run_of_a_dag_that_is_paused_in_airflow_says_so(world: Any) -> None:
    await world.ready()
    await begun(world)
    world.airflow.dags["flights.train"].is_paused = True
    run = await told(world, "one", "Paused")
    assert "paused in Airflow" in condition_of(run, "Pending").message


async def test_a_run_whose_first_task_waits_for_a_pool_is_pending_with_its_place(world: Any) -> None:
    await world.ready()
    world.airflow.pools["gpu"] = 1
    other = await begun(world, "other")
    world.airflow.advance(other)
    other.tasks["first", -1].pool, other.tasks["first", -1].state = "gpu", "running"
    dag_run = await begun(world)
    task = dag_run.tasks["first", -1]
    task.pool, task.state, task.scheduled = "gpu", "scheduled", datetime.now(UTC)
    dag_run.state, dag_run.start = "running", datetime.now(UTC)
    run = await told(world, "one", "Pool")
    assert run.status.state == PENDING
    assert run.status.steps[0].message == "number 1 of 1 tasks that wait: its one place is taken in pool gpu"
    assert condition_of(run, "Pending").message == run.status.steps[0].message
    assert run.status.steps[1].message == "comes after first"
    world.airflow.advance(dag_run)
    run = await world.until("PipelineRun", "one", lambda found: found.status.state == RUNNING)
    assert condition_of(run, "Pending").status != TRUE
    assert run.status.steps[0].message == ""


async def test_a_task_that_waits_for_a_worker_says_so(world: Any) -> None:
    await world.ready()
    dag_run = await begun(world)
    dag_run.tasks["first", -1].state = "queued"
    dag_run.state, dag_run.start = "running", datetime.now(UTC)
    run = await told(world, "one", "Resources")
    assert run.status.steps[0].message == "waits for a worker of Airflow: all are busy"


async def test_a_step_says_what_it_comes_after_and_that_it_will_be_tried_again(world: Any) -> None:
    await world.ready()
    dag_run = await begun(world)
    world.airflow.advance(dag_run)
    world.airflow.advance(dag_run)
    world.airflow.retry(dag_run, "first")
    run = await world.until("PipelineRun", "one", lambda found: found.status.steps and found.status.steps[0].message)
    assert run.status.steps[0].message == "try 1 failed: the next one begins in a moment"
    assert run.status.steps[1].message == "comes after first"
    assert run.status.steps[0].state == wire.PIPELINE_RUN_STEP_STATE_RUNNING
    assert [detail.attempt_id for detail in run.status.steps[0].attempt_details] == ["1"]


async def test_a_run_that_waits_for_airflow_says_so(world: Any) -> None:
    await world.ready()
    dag = world.airflow.dags.pop("flights.train")
    await world.run("one")
    run = await world.until("PipelineRun", "one", waits("EngineNotReady"))
    assert "does not know DAG flights.train yet" in condition_of(run, "Pending").message
    world.airflow.dags["flights.train"] = dag
    await world.until("PipelineRun", "one", lambda found: found.status.workflow_run_id != "")


async def test_a_run_goes_on_where_its_waiting_cannot_be_explained(world: Any) -> None:
    await world.ready()
    dag_run = await begun(world)
    task = dag_run.tasks["first", -1]
    task.pool, task.state, task.scheduled = "no-such-pool", "scheduled", datetime.now(UTC)
    dag_run.state, dag_run.start = "running", datetime.now(UTC)
    world.ahead = timedelta(seconds=5)
    world.manager.wake(Key("PipelineRun", "flights", "one"))
    await world.until("PipelineRun", "one", lambda found: found.status.state == RUNNING)
