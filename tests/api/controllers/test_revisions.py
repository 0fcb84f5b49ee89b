"""Every apply of a pipeline has a revision, which never changes, and a run that names one runs that."""

import asyncio
import json
import time
from datetime import timedelta
from typing import Any

import pytest
from google.protobuf import any_pb2
from starlette.responses import HTMLResponse

from api.calls import Call, Principal
from api.controllers.run_dags import RunDags
from api.errors import FailedPrecondition, InvalidArgument
from api.gen.michelangelo.api.v2 import pipeline_pb2, revision_pb2
from api.gen.michelangelo.api.v2 import pipeline_run_pb2 as wire
from api.kinds import kinds
from api.pipeline_dags import dag_of, pipeline_of, revision_dag
from api.revisions import content_of, name_of
from api.workflows import STEPS_TYPE, TEMPLATE_TYPE, parse, spec_hash, typed
from tests.patience import soon

READY, ERROR = pipeline_pb2.PIPELINE_STATE_READY, pipeline_pb2.PIPELINE_STATE_ERROR
REVISED = revision_pb2.REVISION_STATE_READY
SUCCEEDED = wire.PIPELINE_RUN_STATE_SUCCEEDED
FAILED = wire.PIPELINE_RUN_STATE_FAILED


async def apply(world: Any, change: Any = None, **params: Any) -> str:
    """Give the pipeline other parameters; return the name of the revision that it has then."""

    def put(found: Any) -> None:
        if params:
            found.spec.manifest.content.Pack(typed(TEMPLATE_TYPE, params))
        if change:
            change(found)

    await world.change("Pipeline", "train", put)
    found = await world.resources.get("Pipeline", "flights", "train")
    return await name_of(world.resources, found)


async def built(world: Any, revision: str) -> Any:
    return await world.until(
        "Pipeline", "train", lambda found: found.status.latest_revision.name == revision and found.status.state == READY
    )


async def pinned(world: Any, name: str, revision: str, **params: Any) -> Any:
    new = kinds()["PipelineRun"].new("flights", name)
    new.spec.pipeline.name, new.spec.revision.name = "train", revision
    if params:
        new.spec.input.update({"kw_args": params})
    return await world.resources.create(new)


async def begun(world: Any, name: str) -> Any:
    run = await world.until("PipelineRun", name, lambda found: found.status.workflow_run_id != "")
    return world.airflow.runs[run.status.workflow_id, run.status.workflow_run_id], run


def hidden(world: Any) -> list[str]:
    return [path.name for path in (world.config.manifests_path / "flights").glob("*.hidden.json")]


async def test_applies_that_follow_each_other_before_airflow_looks_all_have_revisions(world: Any) -> None:
    first = (await world.ready()).status.latest_revision.name
    world.airflow.broken = HTMLResponse("<html>away</html>", status_code=502)
    names = [first] + [await apply(world, rows=rows) for rows in (11, 12, 13)]
    assert len(set(names)) == 4
    for before, name in zip(["", *names], names, strict=False):
        revision = await world.resources.get("Revision", "flights", name)
        assert revision.spec.parent.name == before
    was = content_of(await world.resources.get("Revision", "flights", names[2]))
    assert was is not None
    assert parse(was.spec)[0].params == {"rows": 12}


async def test_the_same_content_makes_no_second_revision(world: Any) -> None:
    first = (await world.ready()).status.latest_revision.name
    second = await apply(world, rows=11)
    await built(world, second)
    again = await apply(world, lambda found: found.spec.manifest.content.Pack(typed(TEMPLATE_TYPE, {})))
    assert again == first
    await built(world, first)
    assert len((await world.resources.list("Revision")).items) == 2
    # What was there before it the first time.
    assert not (await world.resources.get("Revision", "flights", first)).spec.HasField("parent")


def test_a_spec_has_one_digest_in_whatever_order_its_content_is_packed() -> None:
    def packed(*keys: str) -> Any:
        """Return a spec whose content has its parameters in this order of bytes."""
        parts = [typed(TEMPLATE_TYPE, {key: 1}).SerializeToString(deterministic=True) for key in keys]
        spec = pipeline_pb2.PipelineSpec()
        url = f"type.googleapis.com/{typed('', {}).DESCRIPTOR.full_name}"
        spec.manifest.content.CopyFrom(any_pb2.Any(type_url=url, value=b"".join(parts)))
        return spec

    one, two = packed("a", "b"), packed("b", "a")
    assert one.manifest.content.value != two.manifest.content.value
    assert parse(one)[0].params == parse(two)[0].params == {"a": 1, "b": 1}
    assert spec_hash(one) == spec_hash(two)


async def test_two_states_of_one_commit_have_two_revisions(world: Any) -> None:
    await world.ready()

    def commit(found: Any) -> None:
        found.spec.commit.git_ref, found.spec.commit.branch = "0123456789abcdef", "main"

    first = await apply(world, commit, rows=11)
    second = await apply(world, rows=12)
    assert first == "pipeline-train-0123456789ab"
    assert second.startswith(f"{first}-")
    await built(world, second)
    revision = await world.resources.get("Revision", "flights", second)
    assert (revision.spec.parent.name, revision.spec.git_commit.branch) == (first, "main")
    assert await apply(world, rows=11) == first


async def test_a_revision_never_changes(world: Any) -> None:
    name = (await world.ready()).status.latest_revision.name
    found = await world.until("Revision", name, lambda found: found.status.state == REVISED)
    found.spec.content.Pack(pipeline_pb2.Pipeline())
    with pytest.raises(InvalidArgument, match="apply the object again") as refused:
        await world.resources.update(found)
    assert refused.value.reason == "IMMUTABLE_FIELD"
    assert [violation.field for violation in refused.value.violations] == ["spec"]
    labelled = await world.resources.get("Revision", "flights", name)
    labelled.metadata.labels["good"] = "yes"
    assert (await world.resources.update(labelled)).metadata.labels["good"] == "yes"


async def test_a_run_of_an_older_revision_runs_that_whatever_was_applied_since(world: Any) -> None:
    first = (await world.ready()).status.latest_revision.name
    second = await apply(world, rows=11)
    await built(world, second)
    await pinned(world, "old", first, rows=7)
    dag_run, run = await begun(world, "old")
    assert dag_run.dag_id == revision_dag("flights", "train", first) == dag_of(run)
    assert pipeline_of(dag_run.dag_id) == ("flights", "train")
    assert dag_run.conf["rows"] == 7
    assert dag_run.conf["ma"]["revision"] == first
    manifest = json.loads((world.config.manifests_path / "flights" / hidden(world)[0]).read_text())
    assert (manifest["params"], manifest["revision"], manifest["pipeline"]) == ({}, first, "train")
    source = run.status.source_pipeline.pipeline
    assert source.status.latest_revision.name == first
    assert parse(source.spec)[0].params == {}
    # The pipeline's own DAG is the newer one's.
    assert json.loads((world.config.manifests_path / "flights" / "train.json").read_text())["params"] == {"rows": 11}
    await apply(world, rows=12)
    world.airflow.finish(dag_run)
    run = await world.until("PipelineRun", "old", lambda found: found.status.state == SUCCEEDED)
    assert run.status.source_pipeline.pipeline.status.latest_revision.name == first
    assert len(world.airflow.posts) == 1


async def test_a_run_without_a_revision_says_which_was_the_latest_when_it_began(world: Any) -> None:
    first = (await world.ready()).status.latest_revision.name
    await world.run("now")
    dag_run, run = await begun(world, "now")
    assert dag_run.dag_id == "flights.train"
    assert run.status.source_pipeline.pipeline.status.latest_revision.name == first
    await built(world, await apply(world, rows=11))
    world.airflow.finish(dag_run)
    run = await world.until("PipelineRun", "now", lambda found: found.status.state == SUCCEEDED)
    assert run.status.source_pipeline.pipeline.status.latest_revision.name == first
    assert not hidden(world)


async def test_a_broken_pipeline_still_runs_as_it_was(world: Any) -> None:
    first = (await world.ready()).status.latest_revision.name
    await apply(world, lambda found: setattr(found.spec.manifest, "file_path", "gone"))
    await world.until("Pipeline", "train", lambda found: found.status.state == ERROR)
    with pytest.raises(FailedPrecondition, match="cannot run"):
        await world.run("now")
    await pinned(world, "old", first)
    dag_run, _ = await begun(world, "old")
    world.airflow.finish(dag_run)
    await world.until("PipelineRun", "old", lambda found: found.status.state == SUCCEEDED)


async def test_a_revision_of_another_pipeline_is_refused(world: Any) -> None:
    first = (await world.ready()).status.latest_revision.name
    await world.pipeline("other")
    new = kinds()["PipelineRun"].new("flights", "wrong")
    new.spec.pipeline.name, new.spec.revision.name = "other", first
    with pytest.raises(InvalidArgument, match="is no revision of Pipeline 'other'") as refused:
        await world.resources.create(new)
    assert refused.value.reason == "WRONG_REVISION"
    assert [violation.field for violation in refused.value.violations] == ["spec.revision.name"]


async def test_parameters_of_a_run_are_checked_against_its_revision(world: Any) -> None:
    first = (await world.ready()).status.latest_revision.name
    with pytest.raises(InvalidArgument, match="is no parameter"):
        await pinned(world, "wrong", first, rowz=7)


async def test_the_dag_of_a_revision_goes_with_its_last_run_and_its_history_stays(world: Any) -> None:
    first = (await world.ready()).status.latest_revision.name
    dags: RunDags = world.runs.dags
    await pinned(world, "one", first)
    await pinned(world, "two", first)
    one, _ = await begun(world, "one")
    two, _ = await begun(world, "two")
    world.airflow.finish(one)
    await world.until("PipelineRun", "one", lambda found: found.status.state == SUCCEEDED)
    await dags.sweep(0)
    assert len(hidden(world)) == 1, "it has a run that goes on"
    world.airflow.finish(two)
    await world.until("PipelineRun", "two", lambda found: found.status.state == SUCCEEDED)
    await dags.sweep(3600)
    assert len(hidden(world)) == 1, "the next run may come soon"
    await dags.sweep(0)
    assert not hidden(world)
    assert world.airflow.dags[one.dag_id].is_stale
    assert (await world.client.run(one.dag_id, one.run_id)).state == "success"
    assert not world.airflow.dags["flights.train"].is_stale
    # One that is wanted again comes back.
    await pinned(world, "three", first)
    three, _ = await begun(world, "three")
    assert not world.airflow.dags[three.dag_id].is_stale


async def test_a_deleted_pipeline_leaves_no_dag_of_its_revisions(world: Any) -> None:
    first = (await world.ready()).status.latest_revision.name
    await pinned(world, "old", first)
    dag_run, _ = await begun(world, "old")
    world.airflow.finish(dag_run)
    await world.until("PipelineRun", "old", lambda found: found.status.state == SUCCEEDED)
    await world.resources.delete("Pipeline", "flights", "train")
    await world.until_gone("Pipeline", "train")
    assert not hidden(world)
    assert dag_run.dag_id not in world.airflow.dags


async def test_a_run_that_is_cleared_brings_its_dag_back(world: Any) -> None:
    first = (await world.ready()).status.latest_revision.name
    await pinned(world, "one", first)
    one, _ = await begun(world, "one")
    world.airflow.finish(one)
    await world.until("PipelineRun", "one", lambda found: found.status.state == SUCCEEDED)
    await world.runs.dags.sweep(0)
    assert not hidden(world)
    world.airflow.clear(one)
    await world.until("PipelineRun", "one", lambda found: found.status.state != SUCCEEDED and bool(hidden(world)))
    world.airflow.finish(one)
    await world.until("PipelineRun", "one", lambda found: found.status.state == SUCCEEDED)


async def test_a_revision_that_is_gone_fails_its_run_with_the_reason(world: Any) -> None:
    first = (await world.ready()).status.latest_revision.name
    second = await apply(world, rows=11)
    await built(world, second)
    world.airflow.broken = HTMLResponse("<html>away</html>", status_code=502)
    await pinned(world, "late", first)
    await world.resources.delete("Revision", "flights", first)
    world.airflow.broken = None
    run = await world.until("PipelineRun", "late", lambda found: found.status.state == FAILED)
    assert "was deleted" in run.status.error_message
    assert run.status.exception_type == wire.PIPELINE_RUN_EXCEPTION_TYPE_USER


async def test_a_revision_that_is_wanted_is_not_deleted(world: Any) -> None:
    first = (await world.ready()).status.latest_revision.name
    second = await apply(world, rows=11)
    await built(world, second)
    user = world.resources.of(Call(Principal("ann"), force=True))

    async def refused(name: str) -> str:
        with pytest.raises(FailedPrecondition) as refusal:
            await user.delete("Revision", "flights", name)
        assert refusal.value.reason == "IN_USE"
        return str(refusal.value.violations[0].description)

    assert await refused(second) == "is used by Pipeline 'train'"
    await pinned(world, "old", first)
    dag_run, _ = await begun(world, "old")
    assert await refused(first) == "is used by PipelineRun 'old'"
    world.airflow.finish(dag_run)
    await world.until("PipelineRun", "old", lambda found: found.status.state == SUCCEEDED)
    await user.delete("Revision", "flights", first)


async def test_old_revisions_go_but_for_the_current_and_the_last_good_ones(world: Any) -> None:
    names = [(await world.ready()).status.latest_revision.name]
    for rows in range(11, 17):
        names.append(await apply(world, rows=rows))
        await built(world, names[-1])
    # The oldest but one is the current one again.
    await built(world, await apply(world, rows=11))
    for name in names:
        await world.until("Revision", name, lambda found: found.status.state == REVISED)
    world.ahead = timedelta(days=40)
    await world.change("Project", "flights", lambda found: retain(found, 30))
    deadline = time.monotonic() + soon(8)
    while len(left := {item.metadata.name for item in (await world.resources.list("Revision")).items}) > 4:
        assert time.monotonic() < deadline, left
        await asyncio.sleep(0.02)
    assert left == {names[1], *names[-3:]}


def retain(project: Any, days: int) -> None:
    project.spec.retention_config.model_retention.retention_in_days = days


async def test_an_older_graph_of_steps_runs_with_its_own_shape(world: Any) -> None:
    await world.ready()

    def graph(*names: str) -> Any:
        steps = [{"name": name, "operator": "train"} for name in names]
        return lambda found: found.spec.manifest.content.Pack(typed(STEPS_TYPE, {"steps": steps}))

    one = await apply(world, graph("a", "b"))
    await built(world, await apply(world, graph("c")))
    await pinned(world, "old", one)
    dag_run, _ = await begun(world, "old")
    assert [task for task, _ in dag_run.tasks] == ["a", "b"]
