"""One task of an ended run is done again, with all that follows it, in the same DAG run and as another attempt."""

from typing import Any

import pytest

from api.controllers.attempts import attempt_of, condition_of
from api.controllers.retries import Retries
from api.errors import FailedPrecondition, InvalidArgument, Unavailable
from api.gen.michelangelo.api import conditions_pb2
from api.gen.michelangelo.api.v2 import pipeline_run_pb2 as wire
from api.store.base import Key, Query
from tests.api.controllers.test_kills import kill, killed
from tests.api.controllers.test_pipeline_run import FAILED, KILLED, PENDING, RUNNING, SUCCEEDED, begun
from tests.robustness.fakes.airflow import FakeRun, FakeTask

TRUE, FALSE = conditions_pb2.CONDITION_STATUS_TRUE, conditions_pb2.CONDITION_STATUS_FALSE


async def failed(world: Any, *, fail: str = "second") -> FakeRun:
    await world.ready()
    dag_run = await begun(world)
    world.airflow.finish(dag_run, fail=fail, verdict={"kind": "system", "message": "disk full"})
    await world.until("PipelineRun", "one", lambda found: found.status.state == FAILED)
    return dag_run


async def wish(world: Any, step: str = "second", **more: str) -> None:
    def change(run: Any) -> None:
        given = {"workflow_id": run.status.workflow_id, "workflow_run_id": run.status.workflow_run_id, **more}
        run.spec.retry_info.CopyFrom(wire.RetryInfo(activity_id=step, **given))

    await world.change("PipelineRun", "one", change)


async def test_a_retried_task_is_done_again_as_another_attempt_of_the_same_dag_run(world: Any) -> None:
    dag_run = await failed(world)
    before = {name: task.try_number for (name, _), task in dag_run.tasks.items()}
    await wish(world, reason="there is room again")
    run = await world.until("PipelineRun", "one", lambda found: attempt_of(found) == 2 and dag_run.state == "queued")
    assert dag_run.tasks["first", -1].state == "success", "what came before stays"
    assert not run.status.HasField("end_time")
    assert run.status.error_message == ""
    world.airflow.advance(dag_run)
    await world.until("PipelineRun", "one", lambda found: found.status.state == RUNNING)
    world.airflow.finish(dag_run)
    run = await world.until("PipelineRun", "one", lambda found: found.status.state == SUCCEEDED)
    assert attempt_of(run) == 2
    assert condition_of(run, "Retried").status == TRUE
    assert condition_of(run, "Attempt").message == "attempt 2: second and what follows it: there is room again"
    assert {name: task.try_number for (name, _), task in dag_run.tasks.items()} == {
        "first": before["first"],
        "second": before["second"] + 1,
    }
    assert world.airflow.posts == [("flights.train", dag_run.run_id)], "there is one DAG run"
    assert not run.spec.HasField("retry_info"), "the wish is carried out"


async def test_every_try_of_a_step_is_kept_with_its_end_and_its_log(world: Any) -> None:
    dag_run = await failed(world)
    await wish(world)
    await world.until("PipelineRun", "one", lambda found: dag_run.state == "queued")
    run = await world.until("PipelineRun", "one", lambda found: len(found.status.steps[1].attempt_details) == 1)
    assert run.status.steps[1].state == wire.PIPELINE_RUN_STEP_STATE_PENDING
    assert list(run.status.steps[1].attempt_ids) == ["1"]
    world.airflow.finish(dag_run)
    run = await world.until("PipelineRun", "one", lambda found: found.status.state == SUCCEEDED)
    first, second = run.status.steps
    assert (list(first.attempt_ids), len(first.attempt_details)) == (["1"], 0)
    assert list(second.attempt_ids) == ["1", "2"]
    (detail,) = second.attempt_details
    assert detail.attempt_id == "1"
    assert detail.step_info.state == wire.PIPELINE_RUN_STEP_STATE_FAILED
    assert detail.step_info.message == "disk full"
    assert detail.step_info.end_time.seconds > 0
    assert detail.step_info.log_url.endswith("try_number=1")
    assert second.log_url.endswith("try_number=2")
    assert second.message == ""


async def test_what_follows_a_retried_task_is_done_again_too(world: Any) -> None:
    dag_run = await failed(world)
    await wish(world, "first")
    await world.until("PipelineRun", "one", lambda found: dag_run.state == "queued")
    world.airflow.finish(dag_run)
    await world.until("PipelineRun", "one", lambda found: found.status.state == SUCCEEDED)
    assert [task.try_number for task in dag_run.tasks.values()] == [2, 2]


async def test_a_task_may_be_retried_again_and_again(world: Any) -> None:
    dag_run = await failed(world)
    for attempt in (2, 3):
        await wish(world)
        await world.until(
            "PipelineRun",
            "one",
            lambda found, attempt=attempt: attempt_of(found) == attempt and dag_run.state != "failed",
        )
        world.airflow.finish(dag_run, fail="second")
        await world.until("PipelineRun", "one", lambda found: found.status.state == FAILED)
    run = await world.resources.get("PipelineRun", "flights", "one")
    assert [detail.attempt_id for detail in run.status.steps[1].attempt_details] == ["1", "2"]


@pytest.mark.parametrize(
    ("step", "more", "told"),
    [
        ("third", {}, "the run's steps: first, second"),
        ("second", {"workflow_run_id": "ma__other__1"}, "spec.retry_info.workflow_run_id is 'ma__other__1'"),
        ("second", {"workflow_id": "flights.other"}, "spec.retry_info.workflow_id is 'flights.other'"),
    ],
)
async def test_a_wish_with_a_wrong_name_is_void_and_says_why(world: Any, step: str, more: Any, told: str) -> None:
    dag_run = await failed(world)
    await wish(world, step, **more)
    run = await world.until("PipelineRun", "one", lambda found: not found.spec.HasField("retry_info"))
    condition = condition_of(run, "Retried")
    assert (condition.status, condition.reason) == (FALSE, "RetryVoid")
    assert told in condition.message
    assert run.status.state == FAILED
    assert attempt_of(run) == 1
    assert dag_run.state == "failed"
    assert [task.try_number for task in dag_run.tasks.values()] == [1, 1]


async def test_a_run_that_goes_on_is_not_retried(world: Any) -> None:
    await world.ready()
    dag_run = await begun(world)
    world.airflow.advance(dag_run)
    with pytest.raises(FailedPrecondition) as refused:
        await wish(world, "first")
    assert refused.value.reason == "STILL_RUNNING"
    run = await world.resources.get("PipelineRun", "flights", "one")
    assert not run.spec.HasField("retry_info")


async def test_a_retry_names_a_step_and_is_for_a_run_that_is_there(world: Any) -> None:
    await failed(world)
    with pytest.raises(InvalidArgument, match="activity_id"):
        await wish(world, "")
    new = await world.resources.get("PipelineRun", "flights", "one")
    new.metadata.Clear()
    new.metadata.namespace, new.metadata.name = "flights", "two"
    new.spec.retry_info.activity_id = "first"
    with pytest.raises(InvalidArgument, match="is for a run that has ended"):
        await world.resources.create(new)


async def test_a_killed_run_goes_on_when_it_is_retried_and_can_be_killed_again(world: Any) -> None:
    _, dag_run = await killed(world)
    await wish(world, "first")
    run = await world.until("PipelineRun", "one", lambda found: dag_run.state == "queued")
    assert not run.spec.kill
    await kill(world, "one")
    run = await world.until("PipelineRun", "one", lambda found: found.status.state == KILLED)
    assert attempt_of(run) == 2
    assert dag_run.state == "failed"


async def test_one_instance_of_a_mapped_task_is_retried_alone(world: Any) -> None:
    await world.ready()
    dag_run = await begun(world)
    dag_run.tasks = {("shard", n): FakeTask("shard", n) for n in range(3)}
    world.airflow.advance(dag_run)
    for task in dag_run.tasks.values():
        task.try_number, task.state = 1, "failed" if task.map_index == 1 else "success"
    world.airflow.finish(dag_run)
    await world.until("PipelineRun", "one", lambda found: found.status.state == FAILED)
    await wish(world, "shard[1]")
    await world.until("PipelineRun", "one", lambda found: dag_run.state == "queued")
    world.airflow.finish(dag_run)
    await world.until("PipelineRun", "one", lambda found: found.status.state == SUCCEEDED)
    assert [task.try_number for task in dag_run.tasks.values()] == [1, 2, 1]


@pytest.mark.parametrize("arrives", [True, False], ids=["it was done", "it was not done"])
async def test_a_leader_that_dies_while_it_retries_leaves_the_task_cleared_once(
    world: Any, arrives: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    dag_run = await failed(world)
    clear, asked = world.client.clear, []

    async def dies(*about: Any) -> None:
        asked.append(about)
        if arrives:
            await clear(*about)
        raise Unavailable("the answer is lost")

    monkeypatch.setattr(world.client, "clear", dies)
    await wish(world)
    await world.until("PipelineRun", "one", lambda found: len(asked) > 0)
    monkeypatch.setattr(world.client, "clear", clear)
    await world.until("PipelineRun", "one", lambda found: condition_of(found, "Retried").status == TRUE)
    world.airflow.finish(dag_run)
    run = await world.until("PipelineRun", "one", lambda found: found.status.state == SUCCEEDED)
    assert dag_run.tasks["second", -1].try_number == 2
    assert attempt_of(run) == 2


async def test_a_new_leader_finds_a_wish_that_nobody_has_looked_at(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    await failed(world)
    controller = world.adopter._runs

    async def nothing(self: Any, run: Any) -> Any:
        raise Unavailable("not now")

    monkeypatch.setattr(Retries, "accept", nothing)
    await wish(world)
    found = (await world.resources.list("PipelineRun", Query(where=controller.unsettled))).items
    assert [run.metadata.name for run in found] == ["one"]
    assert not controller.settled(found[0])
    monkeypatch.undo()
    world.manager.wake(Key("PipelineRun", "flights", "one"))
    await world.until("PipelineRun", "one", lambda run: attempt_of(run) == 2)
    assert PENDING == wire.PIPELINE_RUN_STATE_PENDING


async def test_a_run_that_airflow_forgot_is_not_retried_and_says_what_can_be_done(world: Any) -> None:
    dag_run = await failed(world)
    world.airflow._watchers.clear()
    world.airflow.lose(dag_run)
    await wish(world)
    run = await world.until("PipelineRun", "one", lambda found: condition_of(found, "Retried") is not None)
    assert condition_of(run, "Retried").message == "Airflow has the run no longer: resume from it with another"
    assert run.status.state == FAILED
