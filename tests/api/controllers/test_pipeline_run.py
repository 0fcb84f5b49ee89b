"""A PipelineRun is one DAG run an attempt, and says what Airflow says."""

import asyncio
import json
import time
from typing import Any

import pytest
from starlette.responses import PlainTextResponse

from api.controllers.pipeline_run import note_of
from api.errors import InvalidArgument
from api.gen.michelangelo.api import conditions_pb2
from api.gen.michelangelo.api.v2 import pipeline_run_pb2 as wire
from api.store.base import Key, Query
from tests.api.controllers.test_runtime import until
from tests.patience import soon
from tests.robustness.fakes.airflow import FakeRun, FakeTask

PENDING, RUNNING, SUCCEEDED, KILLED, FAILED = (
    wire.PIPELINE_RUN_STATE_PENDING,
    wire.PIPELINE_RUN_STATE_RUNNING,
    wire.PIPELINE_RUN_STATE_SUCCEEDED,
    wire.PIPELINE_RUN_STATE_KILLED,
    wire.PIPELINE_RUN_STATE_FAILED,
)


async def begun(world: Any, name: str = "one", **params: Any) -> FakeRun:
    """Return the DAG run of a new PipelineRun."""
    await world.run(name, **params)
    run = await world.until("PipelineRun", name, lambda found: found.status.workflow_run_id != "")
    found: FakeRun = world.airflow.runs["flights.train", run.status.workflow_run_id]
    return found


def condition(run: Any, name: str) -> Any:
    return next(item for item in run.status.conditions if item.type == name)


async def test_a_run_is_one_dag_run_and_follows_it_to_success(world: Any) -> None:
    await world.ready()
    dag_run = await begun(world, rows=7)
    run = await world.resources.get("PipelineRun", "flights", "one")
    assert dag_run.run_id == f"ma__{run.metadata.uid}__1"
    assert note_of(run) == "PipelineRun flights/one"
    assert dag_run.conf["rows"] == 7
    assert dag_run.conf["ma"]["owner_uid"] == run.metadata.uid
    assert run.status.state == PENDING
    assert run.status.workflow_id == "flights.train"
    assert dag_run.run_id in run.status.log_url
    assert run.status.source_pipeline.pipeline.metadata.name == "train"
    world.airflow.advance(dag_run)
    await world.until("PipelineRun", "one", lambda found: found.status.state == RUNNING)
    world.airflow.finish(dag_run)
    run = await world.until("PipelineRun", "one", lambda found: found.status.state == SUCCEEDED)
    assert [step.name for step in run.status.steps] == ["first", "second"]
    step = run.status.steps[0]
    assert step.state == wire.PIPELINE_RUN_STEP_STATE_SUCCEEDED
    assert step.input["task"] == "first"
    assert step.output["done"] == "first"
    assert list(step.attempt_ids) == ["1"]
    assert step.start_time.seconds > 0
    assert step.end_time.seconds > 0
    assert "/tasks/first" in step.log_url
    assert run.status.end_time.seconds > 0
    assert condition(run, "Succeeded").status == conditions_pb2.CONDITION_STATUS_TRUE
    assert world.airflow.posts == [("flights.train", dag_run.run_id)]


async def test_a_failed_task_explains_the_failed_run(world: Any) -> None:
    await world.ready()
    dag_run = await begun(world)
    world.airflow.finish(dag_run, fail="first", verdict={"kind": "user", "message": "no rows after the split"})
    run = await world.until("PipelineRun", "one", lambda found: found.status.state == FAILED)
    assert run.status.error_message == "first: no rows after the split"
    assert run.status.exception_type == wire.PIPELINE_RUN_EXCEPTION_TYPE_USER
    assert run.status.steps[1].state == wire.PIPELINE_RUN_STEP_STATE_SKIPPED


async def test_a_run_is_pending_before_airflow_is_asked_for_it(world: Any) -> None:
    await world.ready()
    world.airflow.dags.pop("flights.train")
    made = await world.run("one")
    run = await world.until("PipelineRun", "one", lambda found: found.status.state == PENDING)
    assert run.status.source_pipeline.pipeline.metadata.name == "train"
    assert not run.status.workflow_run_id
    assert condition(run, "SourcePipeline").observed_generation == made.metadata.generation
    assert world.airflow.posts == []


async def test_a_task_that_airflow_skipped_is_a_skipped_step(world: Any) -> None:
    await world.ready()
    dag_run = await begun(world)
    dag_run.tasks["second", -1].state = "skipped"
    dag_run.tasks["third", -1] = FakeTask("third", state="upstream_failed")
    world.airflow.finish(dag_run)
    run = await world.until("PipelineRun", "one", lambda found: found.status.state == SUCCEEDED)
    assert {step.name: step.state for step in run.status.steps} == {
        "first": wire.PIPELINE_RUN_STEP_STATE_SUCCEEDED,
        "second": wire.PIPELINE_RUN_STEP_STATE_SKIPPED,
        "third": wire.PIPELINE_RUN_STEP_STATE_SKIPPED,
    }


@pytest.mark.parametrize(
    ("verdict", "blamed"),
    [
        ({"kind": "user", "message": "no rows"}, wire.PIPELINE_RUN_EXCEPTION_TYPE_USER),
        ({"kind": "system", "message": "disk full"}, wire.PIPELINE_RUN_EXCEPTION_TYPE_SYSTEM),
        # A worker that was killed could say nothing.
        (None, wire.PIPELINE_RUN_EXCEPTION_TYPE_SYSTEM),
    ],
)
async def test_a_failed_task_says_who_can_mend_it(world: Any, verdict: Any, blamed: int) -> None:
    await world.ready()
    dag_run = await begun(world)
    world.airflow.finish(dag_run, fail="second", verdict=verdict)
    run = await world.until("PipelineRun", "one", lambda found: found.status.state == FAILED)
    assert run.status.exception_type == blamed


async def test_whoever_can_mend_a_run_that_failed_without_a_task_is_told(world: Any) -> None:
    await world.ready()
    world.airflow.lose(await begun(world, "lost"))
    world.airflow.mark(await begun(world, "marked"), "failed")
    world.airflow.dags["flights.train"].schemas["rows"] = {"type": "integer", "maximum": 5}
    await world.run("refused", rows=7)
    blamed = {}
    for name in ("lost", "marked", "refused"):
        run = await world.until("PipelineRun", name, lambda found: found.status.state == FAILED)
        blamed[name] = run.status.exception_type
    assert blamed == {
        "lost": wire.PIPELINE_RUN_EXCEPTION_TYPE_SYSTEM,
        # By whoever marked it: nobody knows why.
        "marked": wire.PIPELINE_RUN_EXCEPTION_TYPE_INVALID,
        "refused": wire.PIPELINE_RUN_EXCEPTION_TYPE_USER,
    }


async def test_a_dag_run_that_began_after_its_pipeline_run_was_deleted_is_stopped(world: Any) -> None:
    await world.ready()
    dag_run = await begun(world)
    world.airflow.runs.clear()
    await world.resources.delete("PipelineRun", "flights", "one")
    await world.until_gone("PipelineRun", "one")
    # The request of a frozen leader, or of a slow network.
    late = world.airflow.begin("flights.train", dag_run.run_id, dag_run.conf)
    await until_failed(late)


async def until_failed(dag_run: FakeRun) -> None:
    await until(lambda: dag_run.state == "failed")


async def test_a_new_leader_finds_its_work_without_reading_what_is_over(world: Any) -> None:
    await world.ready()
    for name in ("over", "going"):
        dag_run = await begun(world, name)
        if name == "over":
            world.airflow.finish(dag_run)
            await world.until("PipelineRun", name, lambda found: found.status.state == SUCCEEDED)
    controller = world.adopter._runs
    found = (await world.resources.list("PipelineRun", Query(where=controller.unsettled))).items
    assert [run.metadata.name for run in found] == ["going"]
    assert set(controller._keys.values()) == {Key("PipelineRun", "flights", "going")}, "it holds what goes on alone"


async def test_instances_of_a_mapped_task_are_sub_steps(world: Any) -> None:
    await world.ready()
    dag_run = await begun(world)
    dag_run.tasks = {("shard", n): FakeTask("shard", n) for n in range(3)}
    world.airflow.finish(dag_run)
    run = await world.until("PipelineRun", "one", lambda found: found.status.state == SUCCEEDED)
    (step,) = run.status.steps
    assert [below.name for below in step.sub_steps] == ["shard[0]", "shard[1]", "shard[2]"]
    assert step.state == wire.PIPELINE_RUN_STEP_STATE_SUCCEEDED


async def test_a_deleted_running_run_is_cancelled_first(world: Any) -> None:
    await world.ready()
    dag_run = await begun(world)
    world.airflow.advance(dag_run)
    await world.resources.delete("PipelineRun", "flights", "one")
    await world.until_gone("PipelineRun", "one")
    assert dag_run.state == "failed"


async def test_a_foreign_run_under_our_id_is_a_terminal_collision(world: Any) -> None:
    await world.ready()
    world.airflow.broken = PlainTextResponse("down", status_code=503)
    run = await world.run("one")
    taken = f"ma__{run.metadata.uid}__1"
    world.airflow.begin("flights.train", taken, {"ma": {"owner_uid": "somebody"}})
    world.airflow.broken = None
    run = await world.until("PipelineRun", "one", lambda found: found.status.state == FAILED)
    assert condition(run, "Succeeded").reason == "RunIdCollision"
    assert world.airflow.posts == []
    assert world.airflow.runs["flights.train", taken].state == "queued"


async def test_a_run_that_was_posted_but_not_recorded_is_adopted(world: Any) -> None:
    await world.ready()
    first = await begun(world)
    run = await world.resources.get("PipelineRun", "flights", "one")
    run.status.Clear()
    await world.resources.update_status(run)
    run = await world.until("PipelineRun", "one", lambda found: found.status.workflow_run_id != "")
    assert run.status.workflow_run_id == first.run_id
    assert len(world.airflow.posts) == 1


async def test_a_run_waits_while_airflow_is_down(world: Any) -> None:
    await world.ready()
    world.airflow.broken = PlainTextResponse("database is locked", status_code=500)
    await world.run("one")
    run = await world.until("PipelineRun", "one", lambda found: len(found.status.conditions) > 0)
    told = condition(run, "Triggered")
    assert told.reason == "DependencyUnavailable"
    assert "database is locked" in told.message
    world.airflow.broken = None
    await world.until("PipelineRun", "one", lambda found: found.status.workflow_run_id != "")


async def test_a_run_waits_for_a_dag_that_airflow_does_not_show(world: Any) -> None:
    await world.ready()
    dag = world.airflow.dags.pop("flights.train")
    await world.run("one")
    run = await world.until("PipelineRun", "one", lambda found: len(found.status.conditions) > 1)
    assert condition(run, "Triggered").reason == "EngineNotReady"
    world.airflow.dags["flights.train"] = dag
    run = await world.until("PipelineRun", "one", lambda found: found.status.workflow_run_id != "")
    assert condition(run, "Triggered").status == conditions_pb2.CONDITION_STATUS_TRUE


async def test_a_run_deleted_in_airflow_is_lost_and_not_begun_again(world: Any) -> None:
    await world.ready()
    dag_run = await begun(world)
    world.airflow.lose(dag_run)
    run = await world.until("PipelineRun", "one", lambda found: found.status.state == FAILED)
    assert condition(run, "Succeeded").reason == "EngineRunLost"
    assert len(world.airflow.posts) == 1


async def test_a_run_cleared_in_airflow_is_followed(world: Any) -> None:
    await world.ready()
    dag_run = await begun(world)
    world.airflow.finish(dag_run, fail="first")
    await world.until("PipelineRun", "one", lambda found: found.status.state == FAILED)
    world.airflow.clear(dag_run)
    run = await world.until("PipelineRun", "one", lambda found: found.status.state == PENDING)
    assert condition(run, "ExternallyChanged").status == conditions_pb2.CONDITION_STATUS_TRUE
    assert not run.status.HasField("end_time")
    world.airflow.finish(dag_run)
    run = await world.until("PipelineRun", "one", lambda found: found.status.state == SUCCEEDED)
    assert run.status.error_message == ""


async def test_a_run_marked_in_airflow_is_followed(world: Any) -> None:
    await world.ready()
    dag_run = await begun(world)
    world.airflow.finish(dag_run)
    await world.until("PipelineRun", "one", lambda found: found.status.state == SUCCEEDED)
    world.airflow.mark(dag_run, "failed")
    run = await world.until("PipelineRun", "one", lambda found: found.status.state == FAILED)
    assert condition(run, "ExternallyChanged").message == "it is failed in Airflow after it had ended"


async def test_an_end_that_is_told_before_airflow_shows_it_is_seen_soon(world: Any) -> None:
    await world.ready()
    dag_run = await begun(world)
    world.airflow._watchers.clear()
    await world.adopter.seen("flights.train", dag_run.run_id, ended=True)
    await asyncio.sleep(0.05)
    began = time.monotonic()
    world.airflow.finish(dag_run)
    await world.until("PipelineRun", "one", lambda found: found.status.state == SUCCEEDED)
    assert time.monotonic() - began < soon(2)


async def test_a_run_started_in_airflow_becomes_a_pipeline_run_once(world: Any) -> None:
    await world.ready()
    dag_run = world.airflow.begin("flights.train", "manual__2026-11-21T04:00:00+00:00", {"rows": 3})
    await world.adopter.seen("flights.train", dag_run.run_id)
    (run,) = (await world.resources.list("PipelineRun")).items
    world.airflow.finish(dag_run)
    name = run.metadata.name
    run = await world.until("PipelineRun", name, lambda found: found.status.state == SUCCEEDED)
    assert run.status.workflow_run_id == dag_run.run_id
    assert run.spec.input["kw_args"]["rows"] == 3
    assert run.spec.actor.name == "Anonymous"
    assert len((await world.resources.list("PipelineRun")).items) == 1
    assert world.airflow.posts == []


async def test_an_adopted_run_has_one_name_before_and_after_it_starts(world: Any) -> None:
    await world.ready()
    dag_run = world.airflow.begin("flights.train", "manual__a")
    before = world.adopter._resource("flights", "train", await world.client.run("flights.train", "manual__a"))
    world.airflow.advance(dag_run)
    after = world.adopter._resource("flights", "train", await world.client.run("flights.train", "manual__a"))
    assert before.metadata.name == after.metadata.name


async def test_a_deleted_adopted_run_does_not_come_back(world: Any) -> None:
    await world.ready()
    dag_run = world.airflow.begin("flights.train", "manual__b")
    world.airflow.finish(dag_run)
    await world.adopter.seen("flights.train", "manual__b")
    (run,) = (await world.resources.list("PipelineRun")).items
    await world.until("PipelineRun", run.metadata.name, lambda found: found.status.state == SUCCEEDED)
    await world.resources.delete("PipelineRun", "flights", run.metadata.name)
    await world.until_gone("PipelineRun", run.metadata.name)
    await world.adopter.seen("flights.train", "manual__b")
    assert not (await world.resources.list("PipelineRun")).items


async def test_nobody_adopts_the_run_of_another_pipeline_run(world: Any) -> None:
    await world.ready()
    dag_run = await begun(world)
    other = await world.resources.get("PipelineRun", "flights", "one")
    other.metadata.name = "thief"
    other.metadata.ClearField("uid")
    other.metadata.annotations["michelangelo.airflow/adopted-run"] = dag_run.run_id
    with pytest.raises(InvalidArgument, match="belongs to another"):
        await world.resources.create(other)


async def test_every_wrong_parameter_is_told_with_its_field(world: Any) -> None:
    await world.ready()
    with pytest.raises(InvalidArgument) as refused:
        await world.run("one", rows="many", colour="red")
    assert {fault.field for fault in refused.value.violations} == {
        "spec.input.kw_args.rows",
        "spec.input.kw_args.colour",
    }
    with pytest.raises(InvalidArgument, match="rows"):
        await world.run("one", rows=0)


@pytest.mark.parametrize("value", ["{{ 7*7 }}", "$(id)", "%(x)s", "a\nb", "é"])
async def test_a_value_reaches_airflow_as_it_was_written(world: Any, value: str) -> None:
    world.airflow.template("train", note={"type": "string", "default": ""})
    await world.ready()
    dag_run = await begun(world, note=value)
    assert dag_run.conf["note"] == value
    assert json.dumps(dag_run.conf)


async def test_a_run_begun_right_after_an_apply_uses_what_was_applied(world: Any) -> None:
    await world.ready()
    changed = await world.resources.get("Pipeline", "flights", "train")
    changed.spec.description = "second"
    await world.resources.update(changed)
    dag_run = await begun(world)
    pipeline = await world.resources.get("Pipeline", "flights", "train")
    assert dag_run.conf["ma"]["revision"] == pipeline.status.latest_revision.name
    run = await world.resources.get("PipelineRun", "flights", "one")
    assert run.status.source_pipeline.pipeline.spec.description == "second"
