"""What a subscription may ask for, and what the platform itself says: ends of runs, models, datasets."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from api.broker.retention import EventRetention
from api.errors import InvalidArgument
from api.kinds import kinds
from api.store import sql
from api.subscriptions.cycles import circle
from api.subscriptions.values import DEPTH, PAYLOAD
from api.workflows import WORKFLOW_TYPE, plain, spec_hash, typed
from tests.api.event_world import EventWorld, condition, subscription, until

DAY_S = 86400


@pytest.fixture
def world(tmp_path: Path) -> Iterator[EventWorld]:
    made = EventWorld(tmp_path)
    yield made
    made.close()


def run_of(pipeline: str, name: str = "ma.run.succeeded", **more: Any) -> dict[str, Any]:
    return {"name": name, "source": f"pipelines/{pipeline}", **more}


SEVERAL: dict[str, Any] = {"within": "60s"}


@pytest.mark.parametrize(
    ("events", "spec", "fields"),
    [
        ([], {}, ["spec.events"]),
        ([str(number) for number in range(9)], SEVERAL, ["spec.events"]),
        ([""], {}, ["spec.events[0].name"]),
        (["a*b"], {}, ["spec.events[0].name"]),
        (["a", "b"], {}, ["spec.within"]),
        (["a"], {"within": "60s"}, ["spec.within"]),
        (["a", "b"], {"within": "0s"}, ["spec.within"]),
        (["a", "b"], {"within": "604801s"}, ["spec.within"]),
        (["a", "a"], SEVERAL, ["spec.events[1].alias"]),
        (["a", "b"], {**SEVERAL, "correlate": "day"}, ["spec.correlate"]),
        ([{"name": "a", "conditions": [condition("data.x", "EQUAL")]}], {}, ["spec.events[0].conditions[0].values"]),
        ([{"name": "a", "conditions": [condition("data.x", "IN")]}], {}, ["spec.events[0].conditions[0].values"]),
        (
            [{"name": "a", "conditions": [condition("data.x", "EXISTS", 1)]}],
            {},
            ["spec.events[0].conditions[0].values"],
        ),
        ([{"name": "a", "conditions": [condition("date.x", "EXISTS")]}], {}, ["spec.events[0].conditions[0].path"]),
        ([{"name": "a", "conditions": [condition("name.x", "EXISTS")]}], {}, ["spec.events[0].conditions[0].path"]),
        ([{"name": "a", "conditions": [condition("data..x", "EXISTS")]}], {}, ["spec.events[0].conditions[0].path"]),
        (["a"], {"parameters": {"x": {}}}, ["spec.parameters[x]"]),
        (["a"], {"parameters": {"x": {"path": "payload.day"}}}, ["spec.parameters[x].path"]),
        (["a"], {"parameters": {"x": {"path": "data.day", "event": "b"}}}, ["spec.parameters[x].event"]),
    ],
)
def test_a_subscription_that_cannot_be_says_which_fields(
    world: EventWorld, events: list[Any], spec: dict[str, Any], fields: list[str]
) -> None:
    with pytest.raises(InvalidArgument) as refused:
        world.subscription("wrong", *events, **spec)
    assert [violation.field for violation in refused.value.violations] == fields


def test_parameters_are_those_of_the_pipeline(world: EventWorld) -> None:
    found = world.api.get("Pipeline", world.project, "train")
    schemas = {"rows": {"type": "integer", "minimum": 1}, "day": {"type": "string"}, "mode": {"default": "full"}}
    found.status.registered_workflow.Pack(typed(WORKFLOW_TYPE, {"params_schema": schemas, "params": {}}))
    found.status.build_id = spec_hash(found.spec)
    world.served.run(world.served.resources.update_status(found))
    with pytest.raises(InvalidArgument) as refused:
        world.subscription("wrong", "a", parameters={"row": {"path": "data.x"}, "rows": {"value": 0}})
    assert {violation.field for violation in refused.value.violations} == {
        "spec.parameters[row]",
        "spec.parameters.rows",
        "spec.parameters.day",
    }
    assert "did you mean 'rows'?" in refused.value.message
    world.subscription("right", "a", parameters={"rows": {"path": "data.rows"}, "day": {"value": "mo"}})


def test_a_circle_is_refused_with_its_way(world: EventWorld) -> None:
    for name in ("clean", "report"):
        world.pipeline(name)
    world.subscription("after-train", run_of("train"), pipeline="clean")
    world.subscription("after-clean", run_of("clean", "ma.run.*"), pipeline="report")
    with pytest.raises(InvalidArgument) as refused:
        world.subscription("after-report", run_of("report"), pipeline="train")
    assert refused.value.reason == "TRIGGER_CYCLE"
    way = "pipelines/train → pipelines/clean → pipelines/report → pipelines/train"
    assert [(v.field, way in v.description) for v in refused.value.violations] == [("spec.events", True)]
    # Nor is it closed by a change.
    harmless = world.subscription("after-report", "report.read", pipeline="train")
    harmless.spec.events[0].name = "ma.run.succeeded"
    with pytest.raises(InvalidArgument, match="closes a circle"):
        world.api.update(harmless)


def made(name: str, pipeline: str, *events: Any, **spec: Any) -> Any:
    return subscription("p", name, *events, pipeline=pipeline, **spec)


@pytest.mark.parametrize(
    ("new", "others", "way"),
    [
        (made("s", "a", "ma.run.succeeded"), [], ["a", "a"]),
        (made("s", "a", "ma.*"), [], ["a", "a"]),
        (made("s", "a", run_of("b")), [], []),
        (made("s", "a", run_of("b")), [made("t", "b", run_of("a"))], ["a", "b", "a"]),
        (made("s", "a", run_of("b", "ma.run.failed")), [made("t", "b", run_of("a"))], ["a", "b", "a"]),
        (made("s", "a", run_of("b", "ma.dataset.updated")), [made("t", "b", run_of("a"))], ["a", "b", "a"]),
        (
            made("s", "a", {"name": "ma.run.failed", "conditions": [condition("data.pipeline", "NOT_EQUAL", "a")]}),
            [],
            [],
        ),
        (
            made("s", "a", {"name": "ma.run.*", "conditions": [condition("data.rows", "GREATER_THAN", 1)]}),
            [],
            ["a", "a"],
        ),
        (made("s", "a", {"name": "ma.run.*", "conditions": [condition("data.state", "EQUAL", "NONE")]}), [], []),
        (made("s", "a", run_of("b"), "approved", within="60s"), [made("t", "b", run_of("a"))], []),
        (made("s", "a", run_of("b"), run_of("c"), within="60s"), [made("t", "b", run_of("a"))], []),
        (
            made("s", "a", run_of("b"), run_of("c"), within="60s"),
            [made("t", "b", run_of("a")), made("u", "c", run_of("b"))],
            ["a", "b", "a"],
        ),
    ],
)
def test_circles_are_found_and_no_others(new: Any, others: list[Any], way: list[str]) -> None:
    assert list(circle(new, others)) == [f"pipelines/{name}" for name in way]


def test_the_end_of_a_run_begins_the_next_one(world: EventWorld) -> None:
    world.pipeline("report")
    world.subscription(
        "when-done",
        run_of("train", "ma.run.*"),
        pipeline="report",
        parameters={
            "of": {"path": "data.run"},
            "how": {"path": "data.state"},
            "uri": {"path": "data.outputs.score.uri"},
        },
    )
    run = world.run("first")
    world.ended(run, "SUCCEEDED", score={"uri": "s3://b/k"})
    world.ended(world.run("other", "report"))
    (following,) = until(lambda: [one for one in world.runs() if one.metadata.annotations.get(PAYLOAD)], "a run")
    told = plain(following.spec.input.fields["kw_args"].struct_value)
    assert told == {"of": "first", "how": "SUCCEEDED", "uri": "s3://b/k"}
    assert following.metadata.annotations[DEPTH] == "1"
    (event,) = world.api.list("Event", world.project)
    assert (event.spec.name, event.spec.source, event.spec.cause.name) == (
        "ma.run.succeeded",
        "pipelines/train",
        "first",
    )
    # The same end, told once more, is no other event; another end is.
    stored = world.api.get("PipelineRun", world.project, "first")
    stored.status.error_message = "seen again"
    world.served.run(world.served.resources.update_status(stored))
    world.quiet()
    assert world.api.get("Subscription", world.project, "when-done").status.runs == 1


def test_models_and_datasets_are_told_where_somebody_waits(world: EventWorld) -> None:
    world.subscription(
        "on-model", {"name": "ma.model.registered", "source": "models/late"}, parameters={"m": {"path": "data.model"}}
    )
    world.subscription(
        "on-data", {"name": "ma.dataset.updated", "source": "pipelines/prepare"}, parameters={"u": {"path": "data.uri"}}
    )
    world.pipeline("prepare")
    world.ended(world.run("data", "prepare"), prepare_dataset={"dataset_uri": "/data/1"})
    world.api.create(kinds()["ModelFamily"].new(world.project, "late"))
    model = kinds()["Model"].new(world.project, "late-7")
    model.spec.model_family.name = "late"
    model.spec.source_pipeline_run.name = "data"
    world.api.create(model)
    world.api.create(kinds()["Model"].new(world.project, "early-1"))
    for name in ("on-model", "on-data"):
        world.until_told(name, lambda status: status.runs == 1)
    world.quiet()
    begun = [run for run in world.runs() if PAYLOAD in run.metadata.annotations]
    given = sorted(tuple(plain(run.spec.input.fields["kw_args"].struct_value).items()) for run in begun)
    assert given == [(("m", "late-7"),), (("u", "/data/1"),)]
    assert {run.metadata.annotations[DEPTH] for run in begun} == {"1"}


def test_a_project_without_subscriptions_has_no_events(world: EventWorld) -> None:
    world.ended(world.run("first"))
    world.quiet()
    assert [
        event.spec.name for event in world.api.list("Event", world.project) if event.spec.name.startswith("ma.")
    ] == []


def test_what_was_missed_is_found_when_changes_are_no_longer_kept(world: EventWorld) -> None:
    world.subscription("steady", "loaded")
    world.subscription("when-done", run_of("train"), pipeline=world.pipeline("report").metadata.name)
    world.publish("loaded", key="1")
    world.until_runs(1)
    world.quiet()
    world.end()
    world.publish("loaded", key="2")
    world.ended(world.run("first"))
    world.served.run(world.served.store._write(lambda db, _: sql.compact(db, 1, float("inf"))))
    world.begin()
    world.until_told("when-done", lambda status: status.runs == 1)
    assert world.until_told("steady", lambda status: status.runs == 2).status.refused == 0
    world.publish("loaded", key="3")
    world.until_told("steady", lambda status: status.runs == 3)


def test_events_are_forgotten_when_their_time_is_over(world: EventWorld) -> None:
    kept = world.publish("loaded", key="long", ttl_s=20 * DAY_S).event
    world.publish("loaded", key="short", ttl_s=60)
    world.publish("loaded", key="usual")
    own = kinds()["Event"].new(world.project, "by-hand")
    own.spec.name = "loaded"
    world.api.create(own)
    resources, clock = world.served.resources, [0.0]
    retention = EventRetention(resources, lambda: clock[0])
    counts = []
    for days in (0, 1, 8, 21):
        clock[0] = time.time() + days * DAY_S
        counts.append(world.served.run(retention.look()))
        left = {event.metadata.name for event in world.api.list("Event", world.project)}
        assert (kept in left) == (days < 21)
    assert counts == [0, 1, 2, 1]
