"""A run that Airflow lost: it has failed, or is begun again by the policy of it, its pipeline or its project."""

from typing import Any

import pytest

from api.controllers.attempts import attempt_of, condition_of, dag_run_of
from api.errors import InvalidArgument
from api.gen.michelangelo.api.v2 import pipeline_run_pb2 as wire
from api.kinds import kinds
from api.lost_runs import ATTEMPTS, parsed
from tests.api.controllers.test_pipeline_run import FAILED, SUCCEEDED

PENDING = wire.PIPELINE_RUN_STATE_PENDING


async def labelled(world: Any, kind: str, name: str, times: str) -> None:
    await world.change(kind, name, lambda found: found.metadata.labels.update({ATTEMPTS: times}))


async def begun_in(world: Any, name: str, number: int) -> Any:
    """Return the DAG run of an attempt, once the status tells of it."""

    def tells(run: Any) -> bool:
        return bool(run.status.workflow_run_id == f"ma__{run.metadata.uid}__{number}")

    run = await world.until("PipelineRun", name, tells)
    return world.airflow.runs[run.status.workflow_id, run.status.workflow_run_id]


async def test_without_a_policy_a_lost_run_has_failed(world: Any) -> None:
    await world.ready()
    await world.run("one")
    world.airflow.lose(await begun_in(world, "one", 1))
    run = await world.until("PipelineRun", "one", lambda found: found.status.state == FAILED)
    assert condition_of(run, "Succeeded").reason == "EngineRunLost"
    assert len(world.airflow.posts) == 1


@pytest.mark.parametrize("kind", ["PipelineRun", "Pipeline", "Project"])
async def test_a_policy_begins_a_lost_run_again_under_the_next_number(world: Any, kind: str) -> None:
    await world.ready()
    name = {"PipelineRun": "one", "Pipeline": "train", "Project": "flights"}[kind]
    if kind == "PipelineRun":
        new = kinds()["PipelineRun"].new("flights", "one")
        new.spec.pipeline.namespace, new.spec.pipeline.name = "flights", "train"
        new.metadata.labels[ATTEMPTS] = "2"
        new.spec.input.update({"kw_args": {"rows": 4}})
        await world.resources.create(new)
    else:
        await labelled(world, kind, name, "2")
        await world.run("one", rows=4)
    first = await begun_in(world, "one", 1)
    world.airflow.advance(first)
    world.airflow.advance(first)
    world.airflow.lose(first)
    second = await begun_in(world, "one", 2)
    assert second.conf == first.conf
    run = await world.resources.get("PipelineRun", "flights", "one")
    assert (attempt_of(run), dag_run_of(run)) == (2, 2)
    assert "attempt 2" in condition_of(run, "Attempt").message
    assert condition_of(run, "ExternallyChanged").message == "the DAG run was deleted in Airflow"
    world.airflow.lose(second)
    run = await world.until("PipelineRun", "one", lambda found: found.status.state == FAILED)
    assert run.status.error_message == "the DAG run was deleted in Airflow, 2 of 2 times"
    assert [post[1].rpartition("__")[2] for post in world.airflow.posts] == ["1", "2"]


async def test_the_label_of_the_run_counts_more_than_that_of_its_project(world: Any) -> None:
    await world.ready()
    await labelled(world, "Project", "flights", "5")
    await labelled(world, "Pipeline", "train", "1")
    await world.run("one")
    world.airflow.lose(await begun_in(world, "one", 1))
    await world.until("PipelineRun", "one", lambda found: found.status.state == FAILED)
    assert len(world.airflow.posts) == 1


async def test_a_later_attempt_is_followed_retried_and_killed_as_the_first(world: Any) -> None:
    await world.ready()
    await labelled(world, "Pipeline", "train", "3")
    await world.run("one")
    world.airflow.lose(await begun_in(world, "one", 1))
    second = await begun_in(world, "one", 2)
    world.airflow.finish(second, fail="second")
    failed = await world.until("PipelineRun", "one", lambda found: found.status.state == FAILED)
    assert attempt_of(failed) == 2

    def again(run: Any) -> None:
        run.spec.retry_info.activity_id = "second"

    await world.change("PipelineRun", "one", again)
    run = await world.until("PipelineRun", "one", lambda found: found.status.state == PENDING)
    assert (attempt_of(run), dag_run_of(run)) == (3, 2), "another attempt of the same DAG run"
    await world.until("PipelineRun", "one", lambda _: second.state == "queued")
    world.airflow.finish(second)
    await world.until("PipelineRun", "one", lambda found: found.status.state == SUCCEEDED)


async def test_who_kills_a_run_does_not_have_it_begun_again(world: Any) -> None:
    await world.ready()
    await labelled(world, "Pipeline", "train", "3")
    await world.run("one")
    dag_run = await begun_in(world, "one", 1)
    world.airflow.advance(dag_run)
    await world.until("PipelineRun", "one", lambda found: found.status.state == wire.PIPELINE_RUN_STATE_RUNNING)
    del world.airflow.runs[dag_run.dag_id, dag_run.run_id]
    await world.change("PipelineRun", "one", lambda run: setattr(run.spec, "kill", True))
    run = await world.until("PipelineRun", "one", lambda found: found.status.HasField("end_time"))
    assert run.status.state == wire.PIPELINE_RUN_STATE_KILLED
    assert len(world.airflow.posts) == 1


async def test_a_run_that_began_in_airflow_is_not_begun_again(world: Any) -> None:
    await world.ready()
    await labelled(world, "Pipeline", "train", "3")
    found = world.airflow.begin("flights.train", "by-hand")
    await world.adopter.seen(found.dag_id, found.run_id)
    (made,) = (await world.resources.list("PipelineRun")).items
    await world.until("PipelineRun", made.metadata.name, lambda run: run.status.workflow_run_id == "by-hand")
    world.airflow.lose(found)
    run = await world.until("PipelineRun", made.metadata.name, lambda run: run.status.state == FAILED)
    assert condition_of(run, "Succeeded").reason == "EngineRunLost"


NO_NUMBERS = ["0", "11", "-1", "1.5", "many", "", "01x", "1e1", "٣", "99999999999999999999"]


@pytest.mark.parametrize("kind", ["PipelineRun", "Pipeline", "Project"])
async def test_a_policy_that_is_none_is_refused(world: Any, kind: str) -> None:
    await world.project()
    new = kinds()[kind].new("flights", "new") if kind != "Project" else kinds()[kind].new("other", "other")
    if kind == "Pipeline":
        new.spec.manifest.file_path = "train"
    if kind == "PipelineRun":
        await world.pipeline()
        new.spec.pipeline.namespace, new.spec.pipeline.name = "flights", "train"
    for text in NO_NUMBERS:
        new.metadata.labels[ATTEMPTS] = text
        with pytest.raises(InvalidArgument) as refusal:
            await world.resources.create(new)
        assert f"metadata.labels[{ATTEMPTS}]" in {violation.field for violation in refusal.value.violations}, text


def test_a_number_from_one_to_ten_is_a_policy() -> None:
    assert [number for number in range(100) if parsed(str(number)) == number] == list(range(11))
