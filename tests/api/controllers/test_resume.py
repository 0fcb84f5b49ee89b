"""A run goes on from an earlier one: it takes over what that one did, and does the rest."""

import asyncio
from typing import Any

import pytest

from api.controllers.attempts import condition_of
from api.controllers.resumes import taken_over
from api.errors import ApiError, FailedPrecondition, InvalidArgument, NotFound
from api.gen.michelangelo.api.v2 import pipeline_run_pb2 as wire
from api.kinds import kinds
from api.reuse import REUSED, message_of, not_asked_for, reached, reuse_of, stops_before
from tests.api.controllers.test_pipeline_run import FAILED, SUCCEEDED, begun
from tests.robustness.fakes.airflow import FakeRun

CHAIN = {"a": ("b",), "b": ("c",), "c": ("d",), "d": ()}
DIAMOND = {"a": ("b", "c"), "b": ("d",), "c": ("d",), "d": (), "e": ()}
STATES = {
    "S": wire.PIPELINE_RUN_STEP_STATE_SUCCEEDED,
    "F": wire.PIPELINE_RUN_STEP_STATE_FAILED,
    "K": wire.PIPELINE_RUN_STEP_STATE_KILLED,
    "-": wire.PIPELINE_RUN_STEP_STATE_SKIPPED,
}


def earlier(**states: str) -> Any:
    run = kinds()["PipelineRun"].new("flights", "earlier")
    for name, letter in states.items():
        step = run.status.steps.add(name=name, activity_id=name, state=STATES[letter])
        if letter == "S":
            step.output.update({"uri": f"file:///{name}"})
    return run


@pytest.mark.parametrize(
    ("follows", "states", "again", "kept"),
    [
        (CHAIN, {"a": "S", "b": "S", "c": "F", "d": "-"}, [], "ab"),
        (CHAIN, {"a": "S", "b": "S", "c": "K", "d": "-"}, [], "ab"),
        (CHAIN, {"a": "S", "b": "S", "c": "S", "d": "S"}, [], "abcd"),
        (CHAIN, {"a": "S", "b": "S", "c": "S", "d": "S"}, ["c"], "ab"),
        (CHAIN, {"a": "S", "b": "S", "c": "F", "d": "-"}, ["a"], ""),
        # What another branch did stays; what joins them is done again.
        (DIAMOND, {"a": "S", "b": "F", "c": "S", "d": "-", "e": "S"}, [], "ace"),
        (DIAMOND, {"a": "S", "b": "S", "c": "S", "d": "S", "e": "S"}, ["b"], "ace"),
        # It succeeded whatever became of what is before it, which is done again now.
        (DIAMOND, {"a": "S", "b": "F", "c": "S", "d": "S", "e": "S"}, [], "ace"),
        # A task that the pipeline has by now has no result.
        (CHAIN, {"a": "S", "c": "S", "d": "S"}, [], "a"),
    ],
)
def test_what_has_a_result_is_taken_over_unless_something_before_it_is_done_again(
    follows: Any, states: Any, again: list[str], kept: str
) -> None:
    found = taken_over(earlier(**states), again, follows)
    assert set(found) == set(kept)
    for name, entry in found.items():
        assert entry == {"outputs": {"uri": f"file:///{name}"}, "from": "earlier"}


def test_of_a_mapped_task_the_instances_that_failed_are_done_again() -> None:
    run = earlier(a="S", b="F", c="-")
    del run.status.steps[1]
    parent = run.status.steps.add(name="b", activity_id="b")
    for index, letter in enumerate("SFS"):
        step = parent.sub_steps.add(name=f"b[{index}]", activity_id="b", state=STATES[letter])
        step.output.update({"uri": str(index)})
    assert set(taken_over(run, [], CHAIN)) == {"a", "b[0]", "b[2]"}
    assert set(taken_over(run, ["b"], CHAIN)) == {"a"}
    assert set(taken_over(run, ["b[0]"], CHAIN)) == {"a", "b[2]"}


def test_a_run_that_goes_up_to_a_step_asks_for_nothing_that_it_does_not_need() -> None:
    assert not_asked_for(["b"], CHAIN) == {"c", "d"}
    assert not_asked_for(["b"], DIAMOND) == {"c", "d", "e"}
    assert not_asked_for(["b", "e"], DIAMOND) == {"c", "d"}
    assert not_asked_for([], DIAMOND) == set()
    assert reached(["b"], CHAIN) == {"b", "c", "d"}


def test_a_conf_of_any_shape_is_read() -> None:
    for conf in ({}, {"ma": None}, {"ma": {"reuse": {"a": "x"}}}, {"ma": {"reuse": {"a": {"from": "b"}}}}):
        assert reuse_of(conf, "a", 1) is None
        assert not stops_before(conf, "a")


# Through the control plane.


async def failed(world: Any, *, fail: str = "second") -> FakeRun:
    await world.ready()
    dag_run = await begun(world, rows=7)
    world.airflow.finish(dag_run, fail=fail)
    await world.until("PipelineRun", "one", lambda found: found.status.state in (FAILED, SUCCEEDED))
    return dag_run


async def resumed(world: Any, source: str = "one", **wanted: Any) -> Any:
    new = kinds()["PipelineRun"].new("flights", "two")
    new.spec.pipeline.namespace, new.spec.pipeline.name = "flights", "train"
    if rows := wanted.pop("rows", None):
        new.spec.input.update({"kw_args": {"rows": rows}})
    new.spec.resume.CopyFrom(wire.Resume(**wanted))
    new.spec.resume.pipeline_run.name = source
    return await world.resources.create(new)


async def its_dag_run(world: Any) -> FakeRun:
    run = await world.until("PipelineRun", "two", lambda found: found.status.workflow_run_id != "")
    found: FakeRun = world.airflow.runs["flights.train", run.status.workflow_run_id]
    return found


def obey(dag_run: FakeRun) -> None:
    """Do what the operators do at their beginning."""
    for task in dag_run.tasks.values():
        entry = reuse_of(dag_run.conf, task.task_id, 1)
        if stops_before(dag_run.conf, task.task_id):
            task.state = "skipped"
        elif entry is not None:
            task.xcoms[REUSED] = {"from": entry["from"], "message": message_of(entry)}
            task.xcoms["return_value"] = entry["outputs"]


async def test_a_resumed_run_takes_over_what_succeeded_and_says_from_where(world: Any) -> None:
    await failed(world)
    await resumed(world)
    dag_run = await its_dag_run(world)
    assert dag_run.conf["ma"]["reuse"] == {"first": {"outputs": {"done": "first"}, "from": "one"}}
    assert dag_run.conf["rows"] == 7, "it goes on with the same parameters"
    obey(dag_run)
    world.airflow.finish(dag_run)
    run = await world.until("PipelineRun", "two", lambda found: found.status.state == SUCCEEDED)
    first, second = run.status.steps
    assert first.state == wire.PIPELINE_RUN_STEP_STATE_SKIPPED
    assert first.message == "taken over from one: it succeeded there, and nothing before it is done again"
    assert first.output["done"] == "first"
    assert second.state == wire.PIPELINE_RUN_STEP_STATE_SUCCEEDED


async def test_a_run_that_had_nothing_to_do_is_skipped(world: Any) -> None:
    await failed(world, fail="")
    await resumed(world)
    dag_run = await its_dag_run(world)
    obey(dag_run)
    world.airflow.finish(dag_run)
    run = await world.until("PipelineRun", "two", lambda found: found.status.HasField("end_time"))
    assert run.status.state == wire.PIPELINE_RUN_STATE_SKIPPED
    assert condition_of(run, "Succeeded").reason == "NotNecessary"
    assert run.status.error_message == ""
    await asyncio.sleep(0.1)
    await world.adopter.seen("flights.train", dag_run.run_id)
    again = await world.resources.get("PipelineRun", "flights", "two")
    assert again.status.state == run.status.state, "Airflow calls it success, which is the same"
    assert condition_of(again, "ExternallyChanged") is None


async def test_a_run_goes_up_to_a_step(world: Any) -> None:
    await failed(world)
    await resumed(world, resume_from=["first"], resume_up_to=["first"])
    dag_run = await its_dag_run(world)
    assert dag_run.conf["ma"]["reuse"] == {}
    assert dag_run.conf["ma"]["skip"] == ["second"]
    obey(dag_run)
    world.airflow.finish(dag_run)
    run = await world.until("PipelineRun", "two", lambda found: found.status.state == SUCCEEDED)
    second = run.status.steps[1]
    assert (second.name, second.state) == ("second", wire.PIPELINE_RUN_STEP_STATE_SKIPPED)
    assert second.message == "not asked for: the run stops before it"


@pytest.mark.parametrize(
    ("wanted", "error", "reason"),
    [
        ({"source": "nobody"}, NotFound, "UNKNOWN_RUN"),
        ({"resume_from": ["frist"]}, NotFound, "UNKNOWN_STEP"),
        ({"resume_up_to": ["third"]}, NotFound, "UNKNOWN_STEP"),
        ({"rows": 8}, FailedPrecondition, "INPUT_CHANGED"),
    ],
)
async def test_a_resume_that_cannot_be_is_refused(world: Any, wanted: Any, error: type[ApiError], reason: str) -> None:
    await failed(world)
    with pytest.raises(error) as refused:
        await resumed(world, **wanted)
    assert refused.value.reason == reason
    assert "frist" not in refused.value.message or "did you mean 'first'?" in refused.value.message


async def test_a_resume_after_the_pipeline_changed_is_for_those_who_insist(world: Any) -> None:
    await failed(world)
    changed = await world.resources.get("Pipeline", "flights", "train")
    changed.spec.description = "what is said of it is not what runs"
    await world.resources.update(changed)
    await resumed(world)
    await world.resources.delete("PipelineRun", "flights", "two")
    await world.until_gone("PipelineRun", "two")
    changed = await world.resources.get("Pipeline", "flights", "train")
    changed.spec.manifest.uniflow_function = "other"
    await world.resources.update(changed)
    with pytest.raises(FailedPrecondition) as refused:
        await resumed(world)
    assert refused.value.reason == "PIPELINE_CHANGED"
    await resumed(world, force_resume=True)
    await its_dag_run(world)


async def test_nobody_goes_on_from_a_run_that_goes_on_or_ran_something_else(world: Any) -> None:
    await world.ready()
    await begun(world)
    with pytest.raises(FailedPrecondition) as refused:
        await resumed(world)
    assert refused.value.reason == "STILL_RUNNING"
    await world.pipeline("other")
    new = kinds()["PipelineRun"].new("flights", "two")
    new.spec.pipeline.name = "other"
    new.spec.resume.pipeline_run.name = "one"
    await world.change("PipelineRun", "one", lambda run: setattr(run.spec, "kill", True))
    await world.until("PipelineRun", "one", lambda found: found.status.HasField("end_time"))
    with pytest.raises(InvalidArgument, match="ran pipeline 'train', not 'other'"):
        await world.resources.create(new)


async def test_what_is_taken_over_never_changes(world: Any) -> None:
    await failed(world)
    await resumed(world)
    with pytest.raises(InvalidArgument, match=r"spec\.resume of a run never changes"):
        await world.change("PipelineRun", "two", lambda run: run.spec.resume.resume_from.append("first"))


async def test_a_run_whose_source_is_gone_before_it_began_fails_with_the_reason(world: Any) -> None:
    await failed(world)
    dag = world.airflow.dags.pop("flights.train")
    await resumed(world)
    await world.until("PipelineRun", "two", lambda found: condition_of(found, "Triggered") is not None)
    await world.resources.delete("PipelineRun", "flights", "one")
    await world.until_gone("PipelineRun", "one")
    world.airflow.dags["flights.train"] = dag
    run = await world.until("PipelineRun", "two", lambda found: found.status.state == FAILED)
    assert condition_of(run, "Succeeded").reason == "ResumeSourceGone"
