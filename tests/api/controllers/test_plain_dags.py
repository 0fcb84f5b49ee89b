"""Plain DAG files of Airflow's, tagged for the platform: Pipelines that nobody applied, and runs of them."""

from typing import Any

import pytest

from api.calls import Call, Principal
from api.errors import ApiError, InvalidArgument
from api.gen.michelangelo.api.v2 import pipeline_pb2
from api.gen.michelangelo.api.v2 import pipeline_run_pb2 as wire
from api.kinds import kinds
from api.pipeline_dags import dag_of, plain_dag
from api.plain_dags import DAG_ANNOTATION, DAG_TYPE, bounded, place_of, schemas_of
from api.revisions import content_of
from api.store.base import Key
from api.workflows import typed
from tests.api.controllers.test_pipeline_run import FAILED, SUCCEEDED

TAG = "michelangelo:flights/delays"
READY, ERROR = pipeline_pb2.PIPELINE_STATE_READY, pipeline_pb2.PIPELINE_STATE_ERROR
ALICE = Call(principal=Principal("alice"))


async def until_ready(world: Any) -> Any:
    """Have the tagged DAGs looked at, and wait for the Pipeline."""
    await world.runs.plain.look()
    return await world.until("Pipeline", "delays", lambda found: found.status.state == READY)


async def tagged(world: Any, **schemas: Any) -> Any:
    """A project, and a DAG with its tag."""
    await world.project()
    world.airflow.plain("late_flights", TAG, "mine", **schemas)
    await world.until("Project", "flights", lambda found: bool(found.status.state))
    return await until_ready(world)


async def run_of_it(world: Any, name: str, change: Any = lambda run: None, **params: Any) -> Any:
    """Create a run as a user does."""
    new = kinds()["PipelineRun"].new("flights", name)
    new.spec.pipeline.namespace, new.spec.pipeline.name = "flights", "delays"
    if params:
        new.spec.input.update({"kw_args": params})
    change(new)
    return await world.resources.of(ALICE).create(new)


async def test_a_tagged_dag_becomes_a_pipeline_that_says_what_airflow_says(world: Any) -> None:
    pipeline = await tagged(world, rows={"type": "integer", "minimum": 1, "default": 3})
    assert plain_dag(pipeline) == "late_flights"
    assert pipeline.spec.manifest.file_path == "late_flights.py"
    assert (pipeline.spec.description, pipeline.spec.owner.name) == ("plain", "team")
    revision = await world.resources.get("Revision", "flights", pipeline.status.latest_revision.name)
    kept = content_of(revision)
    assert kept is not None
    assert kept.spec == pipeline.spec
    assert "flights.delays" not in world.airflow.dags, "nothing is built of it"


async def test_a_dag_without_the_tag_is_airflows_own_business(world: Any) -> None:
    await world.project()
    world.airflow.plain("other", "mine", "michelangelo")
    await world.runs.plain.look()
    assert not (await world.resources.list("Pipeline")).items


async def test_another_version_of_the_file_is_another_revision(world: Any) -> None:
    first = await tagged(world)
    world.airflow.plain("late_flights", TAG)
    await world.runs.plain.look()
    old = first.status.latest_revision.name
    second = await world.until("Pipeline", "delays", lambda found: found.status.latest_revision.name != old)
    revision = await world.resources.get("Revision", "flights", second.status.latest_revision.name)
    assert revision.spec.parent.name == old
    # What is the same is no other revision, however often it is read.
    for _ in range(3):
        await world.runs.plain.look()
    assert len((await world.resources.list("Revision")).items) == 2


async def test_a_run_is_a_run_of_that_dag_and_followed_as_any_other(world: Any) -> None:
    await tagged(world, rows={"type": "integer", "minimum": 1, "default": 3})
    run = await run_of_it(world, "one", rows=5)
    assert dag_of(run) == "late_flights"
    begun = await world.until("PipelineRun", "one", lambda found: found.status.workflow_run_id != "")
    assert begun.status.workflow_id == "late_flights"
    assert begun.status.workflow_run_id == f"ma__{run.metadata.uid}__1"
    found = world.airflow.runs["late_flights", begun.status.workflow_run_id]
    assert found.conf["rows"] == 5
    assert found.conf["ma"]["owner_uid"] == run.metadata.uid
    world.airflow.finish(found)
    ended = await world.until("PipelineRun", "one", lambda found: found.status.state == SUCCEEDED)
    assert [step.name for step in ended.status.steps] == ["first", "second"]
    assert ended.status.steps[0].output["done"] == "first"


async def test_a_failed_step_is_done_again_and_a_run_is_killed(world: Any) -> None:
    await tagged(world)
    await run_of_it(world, "one")
    begun = await world.until("PipelineRun", "one", lambda found: found.status.workflow_run_id != "")
    found = world.airflow.runs["late_flights", begun.status.workflow_run_id]
    world.airflow.finish(found, fail="second")
    await world.until("PipelineRun", "one", lambda found: found.status.state == FAILED)

    def again(run: Any) -> None:
        run.spec.retry_info.activity_id = "second"

    await world.change("PipelineRun", "one", again)
    await world.until("PipelineRun", "one", lambda found: found.status.state == wire.PIPELINE_RUN_STATE_PENDING)
    await world.change("PipelineRun", "one", lambda run: setattr(run.spec, "kill", True))
    await world.until("PipelineRun", "one", lambda found: found.status.state == wire.PIPELINE_RUN_STATE_KILLED)
    assert found.state == "failed"


async def test_a_run_that_airflow_began_has_a_pipeline_run(world: Any) -> None:
    """Also on a platform that has not looked for tagged DAGs yet."""
    await tagged(world)
    world.runs.plain._looked = False
    world.runs.plain._seen = {}
    run = world.airflow.begin("late_flights", "scheduled__2026-11-21T00:00:00+00:00")

    async def adopted() -> Any:
        items = (await world.resources.list("PipelineRun")).items
        return items[0] if items else None

    while (made := await adopted()) is None:
        await world.adopter.seen(run.dag_id, run.run_id)
    assert made.metadata.annotations[DAG_ANNOTATION] == "late_flights"
    assert made.spec.pipeline.name == "delays"
    world.airflow.finish(run)
    await world.until("PipelineRun", made.metadata.name, lambda found: found.status.state == SUCCEEDED)


async def test_whose_dag_a_run_is_of_is_not_its_makers_to_say(world: Any) -> None:
    """A user of one project cannot reach a DAG that is not its own."""
    await tagged(world)
    await world.pipeline("mine")
    await world.until("Pipeline", "mine", lambda found: found.status.state == READY)
    new = kinds()["PipelineRun"].new("flights", "stolen")
    new.spec.pipeline.namespace, new.spec.pipeline.name = "flights", "mine"
    new.metadata.annotations[DAG_ANNOTATION] = "late_flights"
    new.metadata.annotations["michelangelo.airflow/adopted-run"] = "manual__1"
    made = await world.resources.of(ALICE).create(new)
    assert dag_of(made) == "flights.mine"
    made.metadata.annotations[DAG_ANNOTATION] = "late_flights"
    while True:
        try:
            changed = await world.resources.of(ALICE).update(made)
            break
        except ApiError:
            fresh = await world.resources.get("PipelineRun", "flights", "stolen")
            made.metadata.resourceVersion = fresh.metadata.resourceVersion
    assert dag_of(changed) == "flights.mine"


def take_up(run: Any) -> None:
    run.spec.resume.pipeline_run.name = "one"
    run.spec.resume.resume_from.append("second")


async def test_what_a_plain_dag_cannot_do_is_refused_by_name(world: Any) -> None:
    pipeline = await tagged(world)
    await run_of_it(world, "one")
    begun = await world.until("PipelineRun", "one", lambda found: found.status.workflow_run_id != "")
    world.airflow.finish(world.airflow.runs["late_flights", begun.status.workflow_run_id])
    await world.until("PipelineRun", "one", lambda found: found.status.state == SUCCEEDED)
    revision = pipeline.status.latest_revision.name

    def pinned(run: Any) -> None:
        run.spec.revision.namespace, run.spec.revision.name = "flights", revision

    for change, path in ((take_up, "spec.resume"), (pinned, "spec.revision")):
        with pytest.raises(InvalidArgument) as refusal:
            await run_of_it(world, "refused", change)
        assert (refusal.value.reason, refusal.value.violations[0].field) == ("PLAIN_DAG", path)
    trigger = kinds()["TriggerRun"].new("flights", "nightly")
    trigger.spec.pipeline.namespace, trigger.spec.pipeline.name = "flights", "delays"
    trigger.spec.trigger.cron_schedule.cron = "0 3 * * *"
    trigger.spec.trigger.max_concurrency = 1
    with pytest.raises(InvalidArgument) as refusal:
        await world.resources.of(ALICE).create(trigger)
    assert (refusal.value.reason, refusal.value.violations[0].field) == ("PLAIN_DAG", "spec.auto_flip")
    trigger.spec.auto_flip = True
    await world.resources.of(ALICE).create(trigger)


async def test_what_airflow_says_is_not_written_by_users(world: Any) -> None:
    pipeline = await tagged(world)
    mine = world.resources.of(ALICE)
    for change, path in (
        (lambda spec: setattr(spec, "description", "better"), "spec.description"),
        (lambda spec: setattr(spec.owner, "name", "me"), "spec.owner"),
        (lambda spec: setattr(spec.manifest, "file_path", "train"), "spec.manifest.file_path"),
        (lambda spec: spec.manifest.content.Pack(typed(DAG_TYPE, {"dag_id": "x"})), "spec.manifest.content"),
        (lambda spec: setattr(spec.manifest, "uniflow_function", "f"), "spec.manifest.uniflow_function"),
    ):
        wanted = await world.resources.get("Pipeline", "flights", "delays")
        change(wanted.spec)
        with pytest.raises(InvalidArgument) as refusal:
            await mine.update(wanted)
        assert refusal.value.reason == "PLAIN_DAG"
        assert path in {violation.field for violation in refusal.value.violations}
    allowed = await world.resources.get("Pipeline", "flights", "delays")
    allowed.spec.type = pipeline_pb2.PIPELINE_TYPE_TRAIN
    allowed.metadata.labels["team"] = "a"
    await mine.update(allowed)
    await world.runs.plain.look()
    kept = await world.resources.get("Pipeline", "flights", "delays")
    assert kept.spec.type == pipeline_pb2.PIPELINE_TYPE_TRAIN
    assert plain_dag(pipeline) == plain_dag(kept)


async def test_nobody_applies_a_pipeline_that_names_a_dag(world: Any) -> None:
    await world.project()
    new = kinds()["Pipeline"].new("flights", "stolen")
    new.spec.manifest.content.Pack(typed(DAG_TYPE, {"dag_id": "late_flights"}))
    with pytest.raises(InvalidArgument, match="becomes a Pipeline by itself") as refusal:
        await world.resources.of(ALICE).create(new)
    assert refusal.value.reason == "PLAIN_DAG"
    run = kinds()["PipelineRun"].new("flights", "inline")
    run.spec.pipeline_spec.CopyFrom(new.spec)
    with pytest.raises(InvalidArgument) as refusal:
        await world.resources.of(ALICE).create(run)
    assert (refusal.value.reason, refusal.value.violations[0].field) == (
        "PLAIN_DAG",
        "spec.pipeline_spec.manifest.content",
    )


async def test_wrong_params_are_refused_before_airflow_is_asked(world: Any) -> None:
    await tagged(world, rows={"type": "integer", "minimum": 1, "default": 3}, day={"type": "string"})
    with pytest.raises(InvalidArgument) as refusal:
        await run_of_it(world, "wrong", rows=0, dya="x")
    told = {violation.field: violation.description for violation in refusal.value.violations}
    assert set(told) == {"spec.input.kw_args.rows", "spec.input.kw_args.dya", "spec.input.kw_args.day"}
    assert "did you mean 'day'" in told["spec.input.kw_args.dya"]


@pytest.mark.parametrize(
    ("dags", "told"),
    [
        ({"a": ["michelangelo:nowhere/x"]}, "nowhere"),
        ({"a": ["michelangelo:flights"]}, "BAD_DAG_TAG"),
        ({"a": ["michelangelo:Flights/My Pipeline"]}, "BAD_DAG_TAG"),
        ({"a": ["michelangelo:flights/x/y"]}, "BAD_DAG_TAG"),
        ({"a": ["michelangelo:flights/x"], "b": ["michelangelo:flights/x"]}, "TWO_DAGS"),
        ({"a": ["michelangelo:flights/x", "michelangelo:flights/y"]}, "TWO_TAGS"),
        ({"a": ["michelangelo:flights/train"]}, "NAME_TAKEN"),
    ],
)
async def test_a_tag_that_means_nothing_makes_nothing_and_is_told(
    world: Any, caplog: Any, dags: dict[str, list[str]], told: str
) -> None:
    await world.ready()
    for name, tags in dags.items():
        world.airflow.plain(name, *tags)
    await world.runs.plain.look()
    await world.runs.plain.look()
    warned = [record for record in caplog.records if record.name == "api.controllers.plain_dags"]
    assert any(told in record.getMessage() for record in warned)
    assert all("a.py" in record.getMessage() for record in warned), "which file"
    assert len({record.getMessage() for record in warned}) == len(warned), "told once"
    assert [item.metadata.name for item in (await world.resources.list("Pipeline")).items] == ["train"]
    # What is mended is taken up.
    for name in dags:
        world.airflow.plain(name)
    world.airflow.plain("good", TAG)
    await until_ready(world)


async def test_a_pipeline_tells_what_became_of_its_dag_and_heals(world: Any) -> None:
    await tagged(world)
    world.airflow.plain("copy", TAG)
    await world.runs.plain.look()
    found = await world.until("Pipeline", "delays", lambda found: found.status.state == ERROR)
    assert "TWO_DAGS" in found.status.error_message
    assert "copy.py" in found.status.error_message
    with pytest.raises(ApiError) as refusal:
        await run_of_it(world, "early")
    assert refusal.value.reason == "PIPELINE_ERROR"
    world.airflow.plain("copy")
    await until_ready(world)
    world.airflow.dags["late_flights"].is_stale = True
    await world.runs.plain.look()
    found = await world.until("Pipeline", "delays", lambda found: found.status.state == ERROR)
    assert "DAG_GONE" in found.status.error_message
    world.airflow.plain("late_flights", TAG)
    await until_ready(world)
    world.airflow.plain("late_flights", TAG).unreadable = True
    await world.runs.plain.look()
    await world.until("Pipeline", "delays", lambda found: "DAG_UNREADABLE" in found.status.error_message)
    world.airflow.plain("late_flights", TAG, ma={"type": "object"})
    await world.runs.plain.look()
    await world.until("Pipeline", "delays", lambda found: "BAD_PARAM" in found.status.error_message)


async def test_a_dag_of_another_name_takes_the_tag_over(world: Any) -> None:
    await tagged(world)
    await run_of_it(world, "old")
    await world.until("PipelineRun", "old", lambda found: found.status.workflow_id == "late_flights")
    world.airflow.plain("late_flights")
    world.airflow.plain("later_flights", TAG)
    await world.runs.plain.look()
    await world.until(
        "Pipeline", "delays", lambda found: plain_dag(found) == "later_flights" and found.status.state == READY
    )
    await run_of_it(world, "new")
    await world.until("PipelineRun", "new", lambda found: found.status.workflow_id == "later_flights")
    old = await world.resources.get("PipelineRun", "flights", "old")
    world.airflow.finish(world.airflow.runs["late_flights", old.status.workflow_run_id])
    await world.until("PipelineRun", "old", lambda found: found.status.state == SUCCEEDED)


async def test_deleting_the_pipeline_leaves_the_dag_and_its_history(world: Any) -> None:
    await tagged(world)
    world.airflow.plain("late_flights")
    await world.runs.plain.look()
    await world.resources.delete("Pipeline", "flights", "delays")
    await world.until_gone("Pipeline", "delays")
    assert "late_flights" in world.airflow.dags
    await world.runs.plain.look()
    assert await world.resources.find(Key("Pipeline", "flights", "delays")) is None


async def test_nothing_is_written_while_nothing_changes(world: Any) -> None:
    await tagged(world)
    await world.until("Pipeline", "delays", lambda _: not world.manager.busy)
    before = await world.resources.revision()
    asked = world.airflow.requests
    await world.runs.plain.look()
    await world.until("Pipeline", "delays", lambda _: not world.manager.busy)
    assert await world.resources.revision() == before
    assert world.airflow.requests - asked <= 2


@pytest.mark.parametrize(
    ("tag", "place"),
    [
        ("michelangelo:a/b", ("a", "b")),
        ("michelangelo:a-1/b-2", ("a-1", "b-2")),
        ("michelangelo:a/b\n", None),
        ("michelangelo:/b", None),
        ("michelangelo:a/", None),
        ("michelangelo:a.b/c", None),
        ("michelangelo:a/b_c", None),
        ("michelangelo: a/b", None),
    ],
)
def test_a_tag_names_one_place_or_none(tag: str, place: Any) -> None:
    assert place_of(tag) == place


def test_a_schema_that_leads_elsewhere_is_left_to_airflow() -> None:
    params = {
        "far": {"schema": {"$ref": "http://127.0.0.1:1/secret"}, "value": 1},
        "odd": {"schema": {"type": "no such type"}, "value": None},
        "fine": {"schema": {"type": "integer"}, "value": "not set"},
    }
    assert schemas_of(params) == {"far": {"default": 1}, "odd": {}, "fine": {"type": "integer"}}


def test_what_a_task_returned_stands_in_the_status_if_it_is_small() -> None:
    assert bounded({"rows": 3}) == {"rows": 3}
    assert bounded("x" * 10_000)["characters"] == 10_002
    assert bounded(float("nan")) == {"value": "nan"}
