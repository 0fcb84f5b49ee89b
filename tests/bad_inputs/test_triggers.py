"""Rows 54 to 57 and 59: schedules, zones, backfills and pipelines that cannot run, alike on every surface."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from api.gen.michelangelo.api.v2 import pipeline_pb2
from api.workflows import spec_hash
from tests.api.workloads import pipeline, run
from tests.bad_inputs.objects import everywhere
from tests.bad_inputs.surfaces import Case, Surfaces

CRON = "spec.trigger.cron_schedule.cron"
END = "spec.end_timestamp"
Change = Callable[[Surfaces, Any], None]


def nothing(_: Surfaces, __: Any) -> None:
    """Leave the pipeline as it is."""


def failed(here: Surfaces, made: Any) -> None:
    made.status.state = pipeline_pb2.PIPELINE_STATE_ERROR
    made.status.build_id, made.status.error_message = spec_hash(made.spec), "no such template"
    here.served.run(here.served.resources.update_status(made))


def paused(here: Surfaces, made: Any) -> None:
    made.metadata.annotations["michelangelo.airflow/paused"] = "true"
    here.served.update(made)


def deleted(here: Surfaces, made: Any) -> None:
    made.metadata.finalizers.append("example.com/holds")
    here.served.update(made)
    here.served.delete("Pipeline", here.project, "train")


def document(here: Surfaces, cron: str, change: Change = nothing, spec: dict[str, str] | None = None) -> dict[str, Any]:
    """Return the document of a trigger, of a pipeline that is made for it."""
    change(here, here.served.create(pipeline(here.project)))
    return {
        "apiVersion": "michelangelo.api/v2",
        "kind": "TriggerRun",
        "metadata": {"name": f"t-{uuid.uuid4().hex[:8]}", "namespace": here.project},
        "spec": {"pipeline": {"name": "train"}, "trigger": {"cronSchedule": {"cron": cron}}, **(spec or {})},
    }


def refused() -> Iterator[Case]:
    for name, cron, reason in (
        ("six fields", "0 0 0 * * *", "BAD_CRON"),
        ("61 minutes", "61 * * * *", "BAD_CRON"),
        ("never", "0 0 30 2 *", "NEVER_FIRES"),
        ("@reboot", "@reboot", "BAD_CRON"),
    ):
        yield from everywhere(54, name, lambda here, c=cron: document(here, c), reason, CRON)  # type: ignore[misc]
    for zone in ("CET+1", "Mars/X"):
        yield from everywhere(
            55,
            zone,
            lambda here, z=zone: document(here, f"CRON_TZ={z} 0 3 * * *"),  # type: ignore[misc]
            "BAD_TIME_ZONE",
            CRON,
        )
    for name, start, end, reason in (
        ("backwards", "2025-03-02T00:00:00Z", "2025-03-01T00:00:00Z", "BAD_RANGE"),
        ("a century", "1925-01-01T00:00:00Z", "2025-01-01T00:00:00Z", "TOO_MANY_RUNS"),
    ):
        bounds = {"startTimestamp": start, "endTimestamp": end}
        yield from everywhere(57, name, lambda here, b=bounds: document(here, "0 3 * * *", spec=b), reason, END)  # type: ignore[misc]
    many = {"startTimestamp": "2023-01-01T00:00:00Z", "endTimestamp": "2024-12-31T00:00:00Z"}
    yield from everywhere(
        57, "a million runs", lambda here: document(here, "* * * * *", spec=many), "TOO_MANY_RUNS", END
    )
    future = {"startTimestamp": "2025-03-01T00:00:00Z", "endTimestamp": "2045-03-01T00:00:00Z"}
    told = "BACKFILL_IN_FUTURE"
    yield from everywhere(57, "to come", lambda here: document(here, "0 3 * * *", spec=future), told)
    for change, reason in ((paused, "PIPELINE_PAUSED"), (deleted, "PIPELINE_DELETED"), (failed, "PIPELINE_ERROR")):
        yield from everywhere(
            59,
            change.__name__,
            lambda here, c=change: document(here, "0 3 * * *", c),  # type: ignore[misc]
            reason,
        )


@pytest.mark.parametrize("case", list(refused()), ids=str)
def test_a_trigger_that_cannot_be_is_refused_alike(here: Surfaces, case: Case) -> None:
    answer = case.send(here)
    assert case.reason in answer.reasons, answer
    assert case.field in ("", *answer.fields) or case.field in answer.text, answer


def accepted() -> Iterator[tuple[Case, tuple[str, ...]]]:
    gap = ("next in UTC: 20", "Z, 20", "in Europe/Berlin")
    for row, name, cron, told in (
        (54, "every minute", "* * * * *", ("fires every 60 s", "1,440 runs a day")),
        (55, "no zone", "CRON_TZ= 0 3 * * *", ()),
        (56, "in gap and fold", "CRON_TZ=Europe/Berlin 30 2 * * *", gap),
        (56, "hourly", "CRON_TZ=Europe/Berlin 0 * * * *", (*gap, "follows real time")),
        (56, "beside them", "CRON_TZ=Europe/Berlin 30 5 * * *", ()),
    ):
        for case in everywhere(row, name, lambda here, c=cron: document(here, c), ""):  # type: ignore[misc]
            yield case, told


@pytest.mark.parametrize(("case", "told"), list(accepted()), ids=str)
def test_a_trigger_that_wants_a_word_is_accepted_with_it(here: Surfaces, case: Case, told: tuple[str, ...]) -> None:
    answer = case.send(here)
    assert not answer.reasons, answer
    for part in told:
        assert part in answer.warned, answer
    if not told:
        assert "fires" not in answer.warned


def test_the_five_instants_are_those_that_follow(here: Surfaces) -> None:
    (case, _), *_ = [pair for pair in accepted() if str(pair[0]).startswith("56-grpc-in gap")]
    instants = case.send(here).warned.partition("next in UTC: ")[2].rstrip('"').split(", ")
    assert len(instants) == 5
    assert instants == sorted(set(instants))


def test_a_trigger_faster_than_its_pipeline_is_told_so(here: Surfaces) -> None:
    made = document(here, "*/5 * * * *")
    slow = here.served.create(run(here.project))
    slow.status.end_time.seconds = slow.metadata.creationTimestamp.seconds + 3600
    here.served.run(here.served.resources.update_status(slow))
    answer = here.http("POST", here.path("TriggerRun"), made)
    assert "fires every 300 s" in answer.warned
    assert "set max_concurrency" in answer.warned
