"""A TriggerRun is a DAG with a schedule; Airflow's pause switch is its switch."""

import json
from typing import Any

import pytest

from api.errors import FailedPrecondition, InvalidArgument
from api.gen.michelangelo.api.v2 import trigger_run_pb2 as wire
from api.kinds import kinds
from api.schedules import cron_fault

RUNNING, PAUSED, KILLED = (
    wire.TRIGGER_RUN_STATE_RUNNING,
    wire.TRIGGER_RUN_STATE_PAUSED,
    wire.TRIGGER_RUN_STATE_KILLED,
)
DAG = "flights.train.nightly"


def trigger(cron: str = "0 3 * * *") -> Any:
    new = kinds()["TriggerRun"].new("flights", "nightly")
    new.spec.pipeline.namespace, new.spec.pipeline.name = "flights", "train"
    new.spec.trigger.cron_schedule.cron = cron
    return new


async def act(world: Any, action: Any) -> None:
    await world.change("TriggerRun", "nightly", lambda found: setattr(found.spec, "action", action))


async def running(world: Any) -> Any:
    await world.ready()
    await world.resources.create(trigger())
    return await world.until("TriggerRun", "nightly", lambda found: found.status.state == RUNNING)


async def test_a_cron_trigger_becomes_a_dag_of_its_own(world: Any) -> None:
    found = await running(world)
    assert found.status.execution_workflow_id == DAG
    assert DAG in world.airflow.dags
    assert found.status.actual_trigger.cron_schedule.cron == "0 3 * * *"
    manifest = json.loads((world.config.manifests_path / "flights" / "train.nightly.trigger.json").read_text())
    assert manifest["cron"] == "0 3 * * *"
    assert manifest["parameters"] == {"default": {}}


async def test_a_trigger_of_the_pipelines_map_is_named(world: Any) -> None:
    await world.ready()
    pipeline = await world.resources.get("Pipeline", "flights", "train")
    pipeline.spec.manifest.trigger_map["weekly"].interval_schedule.interval.seconds = 604800
    await world.resources.update(pipeline)
    new = trigger()
    new.spec.ClearField("trigger")
    new.spec.source_trigger_name = "weekly"
    await world.resources.create(new)
    found = await world.until("TriggerRun", "nightly", lambda found: found.status.state == RUNNING)
    assert found.status.actual_trigger.interval_schedule.interval.seconds == 604800
    new.metadata.name = "other"
    new.spec.source_trigger_name = "none"
    with pytest.raises(InvalidArgument, match="it has: weekly"):
        await world.resources.create(new)


async def test_pausing_and_resuming_turn_airflows_switch(world: Any) -> None:
    await running(world)
    await act(world, wire.TRIGGER_RUN_ACTION_PAUSE)
    await world.until("TriggerRun", "nightly", lambda found: found.status.state == PAUSED)
    assert world.airflow.dags[DAG].is_paused
    await act(world, wire.TRIGGER_RUN_ACTION_RESUME)
    await world.until("TriggerRun", "nightly", lambda found: found.status.state == RUNNING)
    assert not world.airflow.dags[DAG].is_paused


async def test_a_killed_trigger_has_no_schedule_and_stays_ended(world: Any) -> None:
    await running(world)
    await act(world, wire.TRIGGER_RUN_ACTION_KILL)
    await world.until("TriggerRun", "nightly", lambda found: found.status.state == KILLED)
    assert not (world.config.manifests_path / "flights" / "train.nightly.trigger.json").exists()
    assert world.airflow.dags[DAG].is_stale
    with pytest.raises(FailedPrecondition) as refused:
        await act(world, wire.TRIGGER_RUN_ACTION_RESUME)
    assert refused.value.reason == "ALREADY_FINISHED"


async def test_a_deleted_trigger_leaves_no_schedule(world: Any) -> None:
    await running(world)
    await world.resources.delete("TriggerRun", "flights", "nightly")
    await world.until_gone("TriggerRun", "nightly")
    assert world.airflow.dags[DAG].is_stale


@pytest.mark.parametrize(
    ("cron", "told"),
    [
        ("0 0 * * * *", "must have five fields"),
        ("61 * * * *", "bad minute"),
        ("* 24 * * *", "bad hour"),
        ("0 0 30 2 *", "never fires"),
        ("@reboot", "five fields"),
        ("", "five fields"),
    ],
)
def test_a_cron_expression_that_cannot_work_is_explained(cron: str, told: str) -> None:
    assert told in cron_fault(cron)


@pytest.mark.parametrize("cron", ["* * * * *", "0 3 * * *", "0 0 29 2 *", "*/5 9-17 * * MON-FRI"])
def test_a_cron_expression_that_fires_is_accepted(cron: str) -> None:
    assert cron_fault(cron) == ""


async def test_a_bad_schedule_is_refused_with_its_field(world: Any) -> None:
    await world.ready()
    with pytest.raises(InvalidArgument) as refused:
        await world.resources.create(trigger("61 * * * *"))
    assert refused.value.violations[0].field == "spec.trigger.cron_schedule.cron"
