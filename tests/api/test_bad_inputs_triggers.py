"""Schedules and triggers that cannot be kept: refused with their field and a reason of their own."""

from __future__ import annotations

from typing import Any

import pytest

from api.gen.michelangelo.api.v2 import trigger_run_pb2
from api.kinds import kinds
from api.schedules import LONGEST_INTERVAL_S, MOST_ENTRIES
from api.trigger_checks import PAUSED
from api.trigger_dags import BACKFILL, MISSED
from api.workflows import WORKFLOW_TYPE, spec_hash, typed
from tests.api.running import Served
from tests.api.workloads import ERROR, READY, SCHEMAS, built, pipeline, refused, run, trigger

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


def backfill(project: str, cron: str, start: str, end: str | None, entries: int = 1) -> Any:
    new = trigger(project, cron)
    new.spec.start_timestamp.FromJsonString(start)
    if end is not None:
        new.spec.end_timestamp.FromJsonString(end)
    for number in range(entries if entries > 1 else 0):
        new.spec.trigger.parameters_map[f"entry-{number}"].SetInParent()
    return new


@pytest.mark.parametrize(
    ("cron", "start", "end", "entries", "reason", "told"),
    [
        ("0 3 * * *", "2025-03-02T00:00:00Z", "2025-03-01T00:00:00Z", 1, "BAD_RANGE", "before the start"),
        ("0 3 * * *", "2025-03-02T00:00:00Z", None, 1, "BAD_RANGE", "required"),
        ("0 3 * * *", "2025-03-02T04:00:00Z", "2025-03-02T05:00:00Z", 1, "NO_INSTANT", "no instant"),
        ("0 3 * * *", "1925-01-01T00:00:00Z", "2025-01-01T00:00:00Z", 1, "TOO_MANY_RUNS", "36,5"),
        ("* * * * *", "1925-01-01T00:00:00Z", "2025-01-01T00:00:00Z", 1, "TOO_MANY_RUNS", "52,59"),
        ("0 * * * *", "2024-01-01T00:00:00Z", "2024-12-31T23:00:00Z", 2, "TOO_MANY_RUNS", "17,568 runs"),
    ],
)
def test_a_backfill_that_cannot_be_is_refused_with_the_count(
    served: Served, project: str, cron: str, start: str, end: str | None, entries: int, reason: str, told: str
) -> None:
    served.create(pipeline(project))
    refusal = refused(served, backfill(project, cron, start, end, entries))
    assert (refusal.reason, refusal.paths) == (reason, ["spec.end_timestamp"])
    assert told in refusal.message


def test_a_backfill_of_what_is_still_to_come_is_refused(served: Served, project: str) -> None:
    served.create(pipeline(project))
    refusal = refused(
        served,
        backfill(project, "0 3 * * *", "2025-01-01T00:00:00Z", "2045-01-01T00:00:00Z"),
        "FAILED_PRECONDITION",
    )
    assert refusal.reason == "BACKFILL_IN_FUTURE"


@pytest.mark.parametrize(
    ("zone", "told"),
    [
        ("Europe/Berln", "did you mean 'Europe/Berlin'?"),
        ("Mars/X", "write one such as Europe/Berlin"),
        ("CET+1", "did you mean 'CET'?"),
        ("europe/berlin", "did you mean 'Europe/Berlin'?"),
        ("../../etc/passwd", "is no IANA time zone"),
        ("Z" * 200, "is no IANA time zone"),
    ],
)
def test_a_zone_that_does_not_exist_is_refused_with_the_nearest_one(
    served: Served, project: str, zone: str, told: str
) -> None:
    served.create(pipeline(project))
    refusal = refused(served, trigger(project, f"CRON_TZ={zone} 0 3 * * *"))
    assert (refusal.reason, refusal.paths) == ("BAD_TIME_ZONE", ["spec.trigger.cron_schedule.cron"])
    assert told in refusal.message


@pytest.mark.parametrize(
    "prefix", ["", "CRON_TZ= ", "TZ= ", "CRON_TZ=Europe/Berlin ", "TZ=UTC ", " CRON_TZ=Etc/GMT-1  "]
)
def test_a_zone_stands_before_the_fields_and_none_is_utc(served: Served, project: str, prefix: str) -> None:
    served.create(pipeline(project))
    made = served.create(trigger(project, f"{prefix}0 3 * * *"))
    assert made.spec.trigger.cron_schedule.cron == f"{prefix}0 3 * * *"


@pytest.mark.parametrize(
    ("annotation", "value", "reason"),
    [
        (MISSED, "later", "BAD_MISSED_POLICY"),
        (MISSED, "runAll", "BAD_MISSED_POLICY"),
        (MISSED, "runAll(0)", "BAD_MISSED_POLICY"),
        (BACKFILL, "some", "BAD_BACKFILL"),
    ],
)
def test_a_policy_that_is_none_is_refused(
    served: Served, project: str, annotation: str, value: str, reason: str
) -> None:
    served.create(pipeline(project))
    new = trigger(project)
    new.metadata.annotations[annotation] = value
    refusal = refused(served, new)
    assert (refusal.reason, refusal.paths) == (reason, [f"metadata.annotations[{annotation}]"])


def test_a_batch_of_fewer_than_no_runs_is_refused(served: Served, project: str) -> None:
    served.create(pipeline(project))
    new = trigger(project)
    new.spec.trigger.batch_policy.batch_size = -1
    new.spec.trigger.batch_policy.wait.seconds = 8 * 86_400
    paths = ["spec.trigger.batch_policy.batch_size", "spec.trigger.batch_policy.wait"]
    assert sorted(refused(served, new).paths) == paths


def test_runs_that_cannot_be_repeated_are_refused(served: Served, project: str) -> None:
    served.create(pipeline(project))
    path = "spec.trigger.batch_rerun.pipeline_runs"
    new = kinds()["TriggerRun"].new(project, "again")
    new.spec.pipeline.name = "train"
    new.spec.trigger.batch_rerun.SetInParent()
    assert refused(served, new).paths == [path]
    new.spec.trigger.batch_rerun.pipeline_runs.add(name="none")
    refusal = refused(served, new)
    assert (refusal.reason, refusal.paths) == ("UNKNOWN_REFERENCE", [f"{path}[0]"])
    going = served.create(run(project))
    new.spec.trigger.batch_rerun.pipeline_runs[0].name = going.metadata.name
    assert refused(served, new, "FAILED_PRECONDITION").reason == "RUN_NOT_ENDED"
    going.status.end_time.seconds = 1
    served.run(served.resources.update_status(going))
    new.spec.trigger.batch_rerun.pipeline_runs.add(name=going.metadata.name)
    assert "twice" in refused(served, new).message
    del new.spec.trigger.batch_rerun.pipeline_runs[1]
    served.create(pipeline(project, "other"))
    new.spec.pipeline.name = "other"
    assert "not of the trigger's" in refused(served, new).message
    new.spec.pipeline.name = "train"
    served.create(new)


@pytest.mark.parametrize("state", ["paused", "error", "deleted"])
def test_a_pipeline_that_cannot_run_gets_no_trigger(served: Served, project: str, state: str) -> None:
    made = built(served, project, ERROR if state == "error" else READY)
    if state == "paused":
        made.metadata.annotations[PAUSED] = "true"
        served.update(made)
    elif state == "deleted":
        made.metadata.finalizers.append("example.com/holds")
        served.update(made)
        served.delete("Pipeline", project, "train")
    new = trigger(project)
    new.spec.trigger.parameters_map["x"].kw_args.update({"rows": 3, "rate": 0.5, "label": "x"})
    reasons = {"paused": "PIPELINE_PAUSED", "error": "PIPELINE_ERROR", "deleted": "PIPELINE_DELETED"}
    assert refused(served, new, "FAILED_PRECONDITION").reason == reasons[state]


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
