"""The DAG of a trigger: one PipelineRun per entry and instant, however often its task runs, over a real API server."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException

from api.admission import is_name
from api.gen.michelangelo.api.v2 import trigger_run_pb2
from api.kinds import kinds
from api.server import grpc_server
from api.store.base import Query
from operators.hooks import michelangelo
from operators.start_runs import Tick, inputs, run_name
from operators.templates import trigger as template
from operators.templates.project import build
from tests.api.controllers.conftest import World
from tests.dags.manifests import trigger

MOMENT = datetime(2026, 3, 10, 3, 0, tzinfo=UTC)


@pytest.fixture
async def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    made = World(tmp_path)
    made.start()
    async with grpc_server(made.resources, 0) as port:
        monkeypatch.setenv("MA_HOME", str(tmp_path))
        monkeypatch.setenv("MA_API_PORT", str(port))
        monkeypatch.setattr(michelangelo, "TIMEOUT_S", 5.0)
        await made.ready()
        await activated(made)
        yield made
    await made.stop()


async def activated(world: World) -> None:
    """Activate the trigger whose DAG's tasks are run here."""
    new = kinds()["TriggerRun"].new("flights", "nightly")
    new.spec.pipeline.name = "train"
    new.spec.trigger.cron_schedule.cron = "0 3 * * *"
    running = trigger_run_pb2.TRIGGER_RUN_STATE_RUNNING
    made = await world.resources.create(new)
    await world.until("TriggerRun", "nightly", lambda found: found.status.state == running)
    UIDS["nightly"] = made.metadata.uid


UIDS: dict[str, str] = {}


def create(manifest: dict[str, Any], entry: str, moment: datetime) -> str:
    """Run the task of one entry at one instant."""
    return template.create(Tick(manifest, moment), entry)


async def runs(world: World) -> list[Any]:
    return list((await world.resources.list("PipelineRun", Query(namespace="flights"))).items)


def nightly(**more: Any) -> dict[str, Any]:
    return trigger("nightly", **{"pipeline": "train", "uid": UIDS.get("nightly", "1"), **more})


def test_a_runs_name_is_of_trigger_instant_and_entry() -> None:
    name = run_name("nightly", "1", MOMENT, "us")
    assert name == run_name("nightly", "1", MOMENT, "us")
    assert name.startswith("nightly-20260310-030000-")
    others = {
        run_name("weekly", "1", MOMENT, "us"),
        run_name("nightly", "2", MOMENT, "us"),
        run_name("nightly", "1", MOMENT + timedelta(microseconds=1), "us"),
        run_name("nightly", "1", MOMENT, "eu"),
    }
    assert len({name, *others}) == 5


def test_many_entries_of_one_instant_are_told_apart() -> None:
    assert len({run_name("nightly", "1", MOMENT, f"shop-{number}") for number in range(50_000)}) == 50_000


def test_a_runs_name_is_the_same_in_whatever_zone_the_instant_is_told() -> None:
    elsewhere = MOMENT.astimezone(timezone(timedelta(hours=-7)))
    assert run_name("nightly", "1", elsewhere, "us") == run_name("nightly", "1", MOMENT, "us")


@pytest.mark.parametrize("name", ["n", "n" * 253, "n" * 179 + ".v2", "n" * 179 + "-v2", "a.b-c.d"])
def test_a_runs_name_is_legal_for_every_legal_trigger(name: str) -> None:
    assert is_name(run_name(name, "1", MOMENT, "{{ us/west }} é\n"))


async def test_a_task_that_runs_twice_creates_one_run(world: World) -> None:
    first = await asyncio.to_thread(create, nightly(), "default", MOMENT)
    again = await asyncio.to_thread(create, nightly(), "default", MOMENT)
    assert first == again
    assert [run.metadata.name for run in await runs(world)] == [first]


async def test_tasks_at_the_same_moment_create_one_run(world: World) -> None:
    names = await asyncio.gather(*(asyncio.to_thread(create, nightly(), "default", MOMENT) for _ in range(4)))
    assert len(set(names)) == 1
    assert len(await runs(world)) == 1


async def test_entries_and_instants_have_runs_of_their_own(world: World) -> None:
    manifest = nightly(parameters={"us": {"kw_args": {"rows": 1}}, "eu": {"kw_args": {"rows": 2}}})
    for entry in manifest["parameters"]:
        for moment in (MOMENT, MOMENT + timedelta(days=1)):
            await asyncio.to_thread(create, manifest, entry, moment)
    found = await runs(world)
    assert len(found) == 4
    assert sorted(run.spec.input["kw_args"]["rows"] for run in found) == [1, 1, 2, 2]


async def test_a_run_tells_where_it_comes_from(world: World) -> None:
    await asyncio.to_thread(create, nightly(parameters={"us": {}}), "us", MOMENT)
    (run,) = await runs(world)
    assert (run.spec.pipeline.namespace, run.spec.pipeline.name) == ("flights", "train")
    assert run.spec.actor.name == "trigger:nightly"
    ours = {k: v for k, v in run.metadata.labels.items() if k.startswith("pipelinerun.michelangelo/")}
    assert ours == {
        "pipelinerun.michelangelo/triggered-by": "nightly",
        "pipelinerun.michelangelo/source-trigger": "nightly",
        "pipelinerun.michelangelo/execution-timestamp": "20260310T030000Z",
        "pipelinerun.michelangelo/parameter-id": "us",
        "pipelinerun.michelangelo/pipeline-name": "train",
        "pipelinerun.michelangelo/environment": "production",
    }


async def test_the_label_of_an_instant_is_in_utc(world: World) -> None:
    await asyncio.to_thread(create, nightly(), "default", MOMENT.astimezone(timezone(timedelta(hours=5, minutes=30))))
    (run,) = await runs(world)
    assert run.metadata.labels["pipelinerun.michelangelo/execution-timestamp"] == "20260310T030000Z"


@pytest.mark.parametrize("entry", ["us/west coast", "{{ 7*7 }}", "e" * 300, "é", "-"])
async def test_any_entry_can_be_run(world: World, entry: str) -> None:
    await asyncio.to_thread(create, nightly(parameters={entry: {}}), entry, MOMENT)
    assert len(await runs(world)) == 1


async def test_values_that_the_pipeline_refuses_fail_the_task_for_good(world: World) -> None:
    manifest = nightly(parameters={"bad": {"kw_args": {"rows": 0}}})
    with pytest.raises(AirflowFailException, match="rows"):
        await asyncio.to_thread(create, manifest, "bad", MOMENT)
    assert await runs(world) == []


async def test_a_pipeline_that_is_gone_fails_the_task_for_good(world: World) -> None:
    with pytest.raises(AirflowFailException, match="gone"):
        await asyncio.to_thread(create, nightly(pipeline="gone"), "default", MOMENT)


def test_named_values_go_over_the_older_texts() -> None:
    entry = {
        "parameter_map": {"label": "old", "module": "flights"},
        "kw_args": {"label": "new"},
        "environ": {"TZ": "UTC"},
        "workflow_config": {"a": 1},
    }
    assert inputs(entry) == {
        "kw_args": {"label": "new", "module": "flights"},
        "environ": {"TZ": "UTC"},
        "workflow_config": {"a": 1},
    }
    assert inputs({}) == {}


def test_the_dag_maps_its_task_over_the_entries() -> None:
    dag = build(nightly(parameters={"us": {}, "eu": {}}))
    task: Any = dag.get_task("create_run")
    assert task.op_kwargs_expand_input.value == {"entry": ["eu", "us"]}
    assert dag.max_active_runs == 1


@pytest.mark.parametrize(
    "more", [{"max_concurrency": 2}, {"batch": {"size": 2, "wait_s": 1.0}}, {"type": "backfill", "only": "failed"}]
)
def test_what_bounds_the_runs_has_one_writer(more: dict[str, Any]) -> None:
    dag = build(nightly(parameters={"us": {}, "eu": {}}, **more))
    assert [task.task_id for task in dag.tasks] == ["start_runs"]
    assert dag.max_active_runs == 1


def test_the_schedule_is_the_triggers() -> None:
    daily: Any = build(nightly(timezone="Europe/Berlin", missed="skip"))
    told = {"cron": "0 3 * * *", "interval_s": None, "timezone": "Europe/Berlin", "missed": "skip"}
    assert daily.timetable.serialize() == told
    often: Any = build(nightly(cron=None, interval_s=90.0))
    assert often.timetable.serialize() == {
        "cron": None,
        "interval_s": 90.0,
        "timezone": "UTC",
        "missed": "runOnce",
    }
    assert often.start_date == datetime(2026, 3, 10, 12, 0, 30, tzinfo=UTC)
    assert not often.catchup


def test_a_backfill_catches_up_from_its_first_instant_to_its_last() -> None:
    dag: Any = build(nightly(type="backfill", start="2026-03-01T03:00:00Z", end="2026-03-04T03:00:00Z"))
    assert dag.start_date == datetime(2026, 3, 1, 2, 59, 59, tzinfo=UTC)
    assert dag.end_date == datetime(2026, 3, 4, 3, tzinfo=UTC)
    assert dag.catchup


async def test_a_trigger_that_was_ended_or_is_paused_starts_nothing(world: World) -> None:
    for action in ("PAUSE", "KILL"):
        number = trigger_run_pb2.TriggerRunAction.Value(f"TRIGGER_RUN_ACTION_{action}")

        def act(found: Any, number: Any = number) -> None:
            found.spec.action = number

        await world.change("TriggerRun", "nightly", act)
        with pytest.raises(AirflowSkipException, match=r"paused|ended"):
            await asyncio.to_thread(create, nightly(), "default", MOMENT)
    with pytest.raises(AirflowSkipException, match="gone"):
        await asyncio.to_thread(create, nightly(uid="of-an-earlier-one"), "default", MOMENT)
    assert await runs(world) == []


@pytest.mark.parametrize(
    ("missed", "late", "starts"),
    [
        ("runOnce", timedelta(hours=23), True),
        ("runOnce", timedelta(hours=24), False),
        ("skip", timedelta(minutes=5), True),
        ("skip", timedelta(minutes=6), False),
        ("runAll(3)", timedelta(hours=71), True),
        ("runAll(3)", timedelta(hours=72), False),
    ],
)
async def test_all_entries_of_a_tick_that_begins_late_start_or_none(
    world: World, missed: str, late: timedelta, starts: bool
) -> None:
    manifest = nightly(missed=missed, start="2026-03-01T00:00:00Z")
    tick = Tick(manifest, MOMENT, MOMENT + late)
    if starts:
        await asyncio.to_thread(template.create, tick, "default")
    else:
        with pytest.raises(AirflowSkipException, match="missed"):
            await asyncio.to_thread(template.create, tick, "default")
    assert len(await runs(world)) == starts


async def test_what_was_due_before_the_activation_is_not_started(world: World) -> None:
    manifest = nightly(start="2026-03-10T03:00:01Z")
    with pytest.raises(AirflowSkipException, match="activated"):
        await asyncio.to_thread(template.create, Tick(manifest, MOMENT, MOMENT), "default")
    # A person asks for what is due at no instant.
    await asyncio.to_thread(template.create, Tick(manifest, MOMENT), "default")
    assert len(await runs(world)) == 1


async def test_a_pinned_trigger_names_its_revision(world: World) -> None:
    current = (await world.resources.get("Pipeline", "flights", "train")).status.latest_revision.name
    await asyncio.to_thread(create, nightly(revision=current), "default", MOMENT)
    (run,) = await runs(world)
    assert run.spec.revision.name == current
