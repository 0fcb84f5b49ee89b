"""Schedules and triggers that cannot be kept: refused with their field and a reason of their own."""

from __future__ import annotations

import pytest

from api.gen.michelangelo.api.v2 import trigger_run_pb2
from api.kinds import kinds
from api.schedules import LONGEST_INTERVAL_S, MOST_ENTRIES
from api.workflows import WORKFLOW_TYPE, spec_hash, typed
from tests.api.running import Served
from tests.api.workloads import SCHEMAS, built, pipeline, refused, trigger

MAP = "spec.manifest.trigger_map"


@pytest.mark.parametrize(
    ("cron", "reason", "told"),
    [
        ("0 0 * * * *", "BAD_CRON", "five fields"),
        ("* * * *", "BAD_CRON", "has 4"),
        ("", "BAD_CRON", "has 0"),
        ("61 * * * *", "BAD_CRON", "bad minute: '61'"),
        ("* 24 * * *", "BAD_CRON", "bad hour"),
        ("* * 0 * *", "BAD_CRON", "bad day of month"),
        ("* * * 13 *", "BAD_CRON", "bad month"),
        ("* * * * 8", "BAD_CRON", "bad day of week"),
        ("*/0 * * * *", "BAD_CRON", "bad minute"),
        ("-5 * * * *", "BAD_CRON", "bad minute"),
        ("٣ * * * *", "BAD_CRON", "bad minute"),
        ("{{1}} * * * *", "BAD_CRON", "bad minute"),
        ("@reboot", "BAD_CRON", "five fields"),
        ("@daily", "BAD_CRON", "five fields"),
        ("9" * 200 + " * * * *", "BAD_CRON", "bad minute"),
        ("9" * 5_000 + " * * * *", "BAD_CRON", "longer than 256"),
        ("1," * 100_000 + "1 * * * *", "BAD_CRON", "longer than 256"),
        ("0 0 30 2 *", "NEVER_FIRES", "never fires"),
        ("0 0 31 4,6,9,11 *", "NEVER_FIRES", "never fires"),
    ],
)
def test_a_schedule_that_cannot_work_is_refused(
    served: Served, project: str, cron: str, reason: str, told: str
) -> None:
    new = pipeline(project, "scheduled")
    new.spec.manifest.trigger_map["nightly"].cron_schedule.cron = cron
    refusal = refused(served, new)
    assert (refusal.reason, refusal.paths) == (reason, [f"{MAP}[nightly].cron_schedule.cron"])
    assert told in refusal.message
    served.create(pipeline(project))
    refusal = refused(served, trigger(project, cron))
    assert (refusal.reason, refusal.paths) == (reason, ["spec.trigger.cron_schedule.cron"])


@pytest.mark.parametrize("seconds", [0, 59, -1, LONGEST_INTERVAL_S + 1, 2**62, -(2**62)])
def test_an_interval_that_cannot_be_kept_is_refused(served: Served, project: str, seconds: int) -> None:
    served.create(pipeline(project))
    new = trigger(project)
    new.spec.trigger.interval_schedule.interval.seconds = seconds
    assert refused(served, new).paths == ["spec.trigger.interval_schedule.interval"]


@pytest.mark.parametrize("nanos", [-1, 10**9])
def test_an_interval_with_impossible_nanoseconds_is_refused(served: Served, project: str, nanos: int) -> None:
    served.create(pipeline(project))
    new = trigger(project)
    new.spec.trigger.interval_schedule.interval.seconds = 60
    new.spec.trigger.interval_schedule.interval.nanos = nanos
    assert refused(served, new).paths == ["spec.trigger.interval_schedule.interval"]


def test_more_runs_at_one_instant_than_can_be_mapped_are_refused(served: Served, project: str) -> None:
    served.create(pipeline(project))
    new = trigger(project)
    for number in range(MOST_ENTRIES + 1):
        new.spec.trigger.parameters_map[f"entry-{number}"].SetInParent()
    refusal = refused(served, new)
    assert (refusal.reason, refusal.paths) == ("TOO_MANY", ["spec.trigger.parameters_map"])
    assert str(MOST_ENTRIES + 1) in refusal.message


def test_all_faults_of_triggers_are_told_at_once(served: Served, project: str) -> None:
    new = pipeline(project)
    new.spec.manifest.trigger_map["a"].cron_schedule.cron = "61 * * * *"
    new.spec.manifest.trigger_map["a"].max_concurrency = -1
    new.spec.manifest.trigger_map["b"].interval_schedule.interval.seconds = 1
    new.spec.manifest.trigger_map["c"].SetInParent()
    refusal = refused(served, new)
    assert sorted(refusal.paths) == [
        f"{MAP}[a].cron_schedule.cron",
        f"{MAP}[a].max_concurrency",
        f"{MAP}[b].interval_schedule.interval",
        f"{MAP}[c].trigger_type",
    ]


def test_a_trigger_names_what_it_starts_and_when(served: Served, project: str) -> None:
    served.create(pipeline(project))
    new = kinds()["TriggerRun"].new(project, "nightly")
    assert sorted(refused(served, new).paths) == ["spec.pipeline.name", "spec.trigger"]
    new.spec.pipeline.name, new.spec.source_trigger_name = "train", "weekly"
    assert refused(served, new).paths == ["spec.source_trigger_name"]


@pytest.mark.parametrize(("start", "end"), [(1, 2), (2, 1), (0, 2**33), (1, None)])
def test_a_backfill_is_refused_by_name(served: Served, project: str, start: int, end: int | None) -> None:
    served.create(pipeline(project))
    new = trigger(project)
    new.spec.start_timestamp.seconds = start
    if end is not None:
        new.spec.end_timestamp.seconds = end
    refusal = refused(served, new)
    assert refusal.paths == ["spec.start_timestamp"]
    assert "backfill" in refusal.message


@pytest.mark.parametrize("action", ["PAUSE", "RESUME", "KILL"])
def test_an_action_twice_is_one_action_and_an_ended_trigger_takes_none(
    served: Served, project: str, action: str
) -> None:
    served.create(pipeline(project))
    made = served.create(trigger(project))
    made.spec.action = trigger_run_pb2.TriggerRunAction.Value(f"TRIGGER_RUN_ACTION_{action}")
    acted = served.update(made)
    before = served.log()
    assert served.update(acted) == acted
    assert served.log() == before
    acted.status.state = trigger_run_pb2.TRIGGER_RUN_STATE_KILLED
    ended = served.run(served.resources.update_status(acted))
    ended.spec.action = trigger_run_pb2.TRIGGER_RUN_ACTION_NO_ACTION
    refusal = served.refused(lambda: served.update(ended))
    assert refusal.reason == "ALREADY_FINISHED"


def test_names_leave_room_for_what_is_made_of_them(served: Served, project: str) -> None:
    long = served.refused(lambda: served.create(kinds()["Project"].new("x" * 64, "x" * 64)))
    assert (long.reason, long.paths) == ("BAD_NAME", ["metadata.name"])
    assert refused(served, pipeline(project, "x" * 151)).paths == ["metadata.name"]
    assert refused(served, pipeline(project, "a.b")).paths == ["metadata.name"]
    served.create(pipeline(project, "x" * 150))
    new = trigger(project)
    new.spec.pipeline.name, new.metadata.name = "x" * 150, "y" * 70
    assert refused(served, new).paths == ["metadata.name"]


def test_parameters_that_every_run_would_be_refused_for_are_told_at_once(served: Served, project: str) -> None:
    built(served, project)
    new = trigger(project)
    good = {"rows": 3, "rate": 0.5, "label": "x"}
    for entry, given in (("fine", good), ("wrong", {**good, "rows": 0, "colour": "red"}), ("empty", {})):
        new.spec.trigger.parameters_map[entry].kw_args.update(given)
    new.spec.trigger.parameters_map["text"].parameter_map.update({"label": "x", "rows": "3"})
    path = "spec.trigger.parameters_map"
    assert sorted(refused(served, new).paths) == [
        *(f"{path}[empty].kw_args.{name}" for name in ("label", "rate", "rows")),
        *(f"{path}[text].kw_args.{name}" for name in ("rate", "rows")),
        *(f"{path}[wrong].kw_args.{name}" for name in ("colour", "rows")),
    ]


def test_a_trigger_without_entries_starts_what_the_pipeline_can_start(served: Served, project: str) -> None:
    built(served, project)
    assert sorted(refused(served, trigger(project)).paths) == [
        f"spec.trigger.parameters_map.{name}" for name in ("label", "rate", "rows")
    ]


def test_a_trigger_can_be_stopped_when_its_pipeline_asks_for_more(served: Served, project: str) -> None:
    served.create(pipeline(project))
    made = served.create(trigger(project))
    found = served.get("Pipeline", project, "train")
    found.status.build_id = spec_hash(found.spec)
    found.status.registered_workflow.Pack(typed(WORKFLOW_TYPE, {"params_schema": SCHEMAS, "params": {}}))
    served.run(served.resources.update_status(found))
    made.spec.action = trigger_run_pb2.TRIGGER_RUN_ACTION_KILL
    assert served.update(made).spec.action == trigger_run_pb2.TRIGGER_RUN_ACTION_KILL


def test_a_thousand_entries_are_judged_in_time(served: Served, project: str) -> None:
    built(served, project)
    new = trigger(project)
    for number in range(MOST_ENTRIES):
        given = {"rows": 3 if number else 0, "rate": 0.5, "label": "x", "note": "n"}
        new.spec.trigger.parameters_map[f"entry-{number}"].kw_args.update(given)
    assert refused(served, new).paths == ["spec.trigger.parameters_map[entry-0].kw_args.rows"]
