"""Every kind of trigger on a real Airflow: what it starts, when, how many at a time, and what it starts no more."""

import time
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from api.client import Client
from api.config import Config
from api.gen.michelangelo.api.v2 import pipeline_pb2
from api.gen.michelangelo.api.v2 import pipeline_run_pb2 as runs_wire
from api.gen.michelangelo.api.v2 import trigger_run_pb2 as wire
from api.kinds import kinds
from api.trigger_dags import REVISION
from api.workflows import STEPS_TYPE, typed
from tests.e2e.conftest import Ma
from tests.e2e.flights_platform import ENDED, SUCCEEDED, eventually

PROJECT = "ticks"
READY = pipeline_pb2.PIPELINE_STATE_READY
LABEL = "pipelinerun.michelangelo/"
OVER = {wire.TRIGGER_RUN_STATE_SUCCEEDED, wire.TRIGGER_RUN_STATE_FAILED, wire.TRIGGER_RUN_STATE_KILLED}
FAR = "0 3 1 1 *"


def step(deployment: str = "") -> dict[str, Any]:
    """A task that does nothing, or fails because there is no such deployment."""
    return {"name": "nothing", "operator": "deploy_model", "with": {"deployment": deployment, "model": "none"}}


class Ticks:
    """A project with pipelines of one task, and its triggers."""

    def __init__(self, ma: Ma, api: Client) -> None:
        self.ma = ma
        self.api = api

    def pipeline(self, name: str, deployment: str = "") -> str:
        """Apply a pipeline and return its revision once it can run."""
        new = kinds()["Pipeline"].new(PROJECT, name)
        new.spec.manifest.type = pipeline_pb2.PipelineManifest.PIPELINE_MANIFEST_TYPE_YAML
        new.spec.manifest.content.Pack(typed(STEPS_TYPE, {"steps": [step(deployment)]}))
        before = self.api.find("Pipeline", PROJECT, name)
        old = before.status.latest_revision.name if before else ""
        self.api.apply(new)

        def ready() -> str:
            status = self.api.get("Pipeline", PROJECT, name).status
            return str(status.latest_revision.name) if status.state == READY else ""

        return str(eventually(lambda: ready() if ready() != old else "", f"pipeline {name}", timeout_s=90))

    def trigger(self, name: str, pipeline: str, cron: str = FAR, **entries: Any) -> Any:
        """Return a TriggerRun that is not created yet."""
        new = kinds()["TriggerRun"].new(PROJECT, name)
        new.spec.pipeline.namespace, new.spec.pipeline.name = PROJECT, pipeline
        new.spec.trigger.cron_schedule.cron = cron
        for entry in entries:
            new.spec.trigger.parameters_map[entry].SetInParent()
        return new

    def until(self, name: str, *states: Any, timeout_s: float = 120) -> Any:
        """Return a TriggerRun that has come to one of some states."""

        def look() -> Any:
            found = self.api.get("TriggerRun", PROJECT, name)
            return found if found.status.state in states else None

        return eventually(look, f"{states} of {name}", timeout_s=timeout_s)

    def runs(self, name: str) -> list[Any]:
        """Return the runs of a trigger in the order in which they were created."""
        uid = self.api.get("TriggerRun", PROJECT, name).metadata.uid
        order = [("metadata.creation_timestamp", False)]
        return self.api.list("PipelineRun", PROJECT, selector=f"michelangelo.airflow/trigger={uid}", order=order)

    def command(self, *arguments: str) -> str:
        """Run `ma trigger-run` and return what it printed."""
        ended = self.ma("trigger-run", *arguments, "-n", PROJECT)
        assert ended.code == 0, ended.err
        return str(ended.out.strip())


@pytest.fixture(scope="module")
def ticks(ma: Ma, platform: Config) -> Iterator[Ticks]:
    with Client.of(platform) as api:
        api.create(kinds()["Project"].new(PROJECT, PROJECT))
        made = Ticks(ma, api)
        made.pipeline("quiet")
        yield made


def instants(found: list[Any]) -> list[str]:
    return [run.metadata.labels[f"{LABEL}execution-timestamp"] for run in found]


def most_at_a_time(found: list[Any]) -> int:
    """Return how many of some ended runs there were at most between a creation and an end."""
    spans: list[tuple[int, int]] = [
        (run.metadata.creationTimestamp.ToNanoseconds(), run.status.end_time.ToNanoseconds()) for run in found
    ]
    return max(sum(begin <= at < end for begin, end in spans) for at, _ in spans)


def test_a_backfill_runs_each_instant_and_entry_in_order_and_never_too_many(ticks: Ticks) -> None:
    daily = ticks.trigger("daily", "quiet", "CRON_TZ=Europe/Berlin 30 2 * * *", eu=1, us=1)
    ticks.api.create(daily)
    ticks.until("daily", wire.TRIGGER_RUN_STATE_RUNNING)
    bounds = ("--start", "2026-03-28", "--end", "2026-03-30")
    made = ticks.command("backfill", "daily", *bounds, "--max-concurrency", "2", "--name", "spring")
    assert made == ticks.command("backfill", "daily", *bounds, "--max-concurrency", "2", "--name", "spring") == "spring"
    ended = ticks.until("spring", *OVER)
    assert ended.status.state == wire.TRIGGER_RUN_STATE_SUCCEEDED, ended.status
    found = ticks.runs("spring")
    # The night of the 29th has no 02:30 in Berlin: the first instant after the gap is 03:00, 01:00 UTC.
    expected = ["20260328T013000Z", "20260329T010000Z", "20260330T003000Z"]
    assert instants(found) == [instant for instant in expected for _ in range(2)]
    assert [run.metadata.labels[f"{LABEL}parameter-id"] for run in found] == ["eu", "us"] * 3
    assert {run.status.state for run in found} == {SUCCEEDED}
    assert most_at_a_time(found) <= 2


@pytest.mark.robustness
def test_only_what_failed_is_run_again_and_only_gaps_are_filled(ticks: Ticks) -> None:
    ticks.pipeline("shaky", deployment="none-of-that-name")
    follows = ticks.trigger("shaky-daily", "shaky", "0 3 * * *")
    follows.spec.auto_flip = True
    ticks.api.create(follows)
    ticks.until("shaky-daily", wire.TRIGGER_RUN_STATE_RUNNING)
    ticks.command("backfill", "shaky-daily", "--start", "2026-03-02", "--end", "2026-03-03", "--name", "first")
    failed = ticks.until("first", *OVER)
    assert failed.status.state == wire.TRIGGER_RUN_STATE_FAILED
    assert "2 of 2 runs failed" in failed.status.error_message
    ticks.pipeline("shaky")
    march = ("--start", "2026-03-01", "--end", "2026-03-04")
    ticks.command("backfill", "shaky-daily", *march, "--only", "failed", "--name", "again")
    ticks.command("backfill", "shaky-daily", *march, "--only", "missing", "--name", "gaps")
    for name, expected in (
        ("again", ["20260302T030000Z", "20260303T030000Z"]),
        ("gaps", ["20260301T030000Z", "20260304T030000Z"]),
    ):
        assert ticks.until(name, *OVER).status.state == wire.TRIGGER_RUN_STATE_SUCCEEDED, name
        assert instants(ticks.runs(name)) == expected


@pytest.mark.robustness
def test_runs_of_the_past_are_repeated_in_batches(ticks: Ticks) -> None:
    for name in ("one", "two", "three"):
        ended = ticks.ma("pipeline", "run", "quiet", "-n", PROJECT, "--name", name, "--wait")
        assert ended.code == 0, ended.err
    wait_s = 4.0
    ticks.command("rerun", "one", "two", "three", "--name", "rerun", "--batch-size", "2", "--batch-wait", str(wait_s))
    assert ticks.until("rerun", *OVER).status.state == wire.TRIGGER_RUN_STATE_SUCCEEDED
    found = ticks.runs("rerun")
    assert [run.metadata.annotations["michelangelo.airflow/rerun-of"] for run in found] == ["one", "two", "three"]
    made = [run.metadata.creationTimestamp.ToNanoseconds() / 1e9 for run in found]
    assert made[2] - made[1] >= wait_s


def test_a_backfill_stands_still_while_it_is_paused_and_is_killed_with_its_runs(ticks: Ticks) -> None:
    new = ticks.trigger("long", "quiet", "0 3 * * *")
    new.spec.start_timestamp.FromJsonString("2025-01-01T00:00:00Z")
    new.spec.end_timestamp.FromJsonString("2025-12-31T23:00:00Z")
    new.spec.trigger.max_concurrency = 1
    ticks.api.create(new)
    eventually(lambda: ticks.runs("long"), "the first run", timeout_s=90)
    for _ in range(2):
        ticks.command("pause", "long")
        ticks.until("long", wire.TRIGGER_RUN_STATE_PAUSED)
    # One that was being created at that moment is there by now.
    time.sleep(1)
    count = len(ticks.runs("long"))
    time.sleep(5)
    assert len(ticks.runs("long")) == count
    for _ in range(2):
        ticks.command("resume", "long")
    eventually(lambda: len(ticks.runs("long")) > count, "runs after the pause", timeout_s=90)
    for _ in range(2):
        ticks.command("kill", "long", "--runs")
        ticks.until("long", wire.TRIGGER_RUN_STATE_KILLED)
    count = len(ticks.runs("long"))
    time.sleep(3)
    found = ticks.runs("long")
    assert len(found) == count < 365
    assert all(run.status.state in ENDED for run in found)
    assert instants(found) == sorted(set(instants(found)))


@pytest.mark.robustness
def test_ticks_come_from_airflows_clock_and_follow_the_revision_or_stay(ticks: Ticks) -> None:
    """Three minutes of cron and interval, of one pinned and one that follows, with a pause and a new revision."""
    first = ticks.pipeline("moving")
    minutely = ticks.trigger("minutely", "moving", "* * * * *", eu=1, us=1)
    every = ticks.trigger("every", "moving")
    every.spec.trigger.interval_schedule.interval.seconds = 60
    every.spec.auto_flip = True
    for new in (minutely, every):
        ticks.api.create(new)
    for name in ("minutely", "every"):
        ticks.until(name, wire.TRIGGER_RUN_STATE_RUNNING)
    assert ticks.api.get("TriggerRun", PROJECT, "minutely").metadata.annotations[REVISION] == first
    eventually(lambda: len(ticks.runs("minutely")) >= 2 and ticks.runs("every"), "the first tick", timeout_s=150)
    second = ticks.pipeline("moving", deployment="none-of-that-name")
    assert second != first
    before = {name: len(ticks.runs(name)) for name in ("minutely", "every")}

    def both_again() -> bool:
        return all(len(ticks.runs(name)) > before[name] for name in before)

    eventually(both_again, "the next tick", timeout_s=150)

    def in_pairs() -> list[Any] | None:
        """The runs once both entries of each tick have theirs: they are made side by side."""
        found = ticks.runs("minutely")
        return found if set(Counter(instants(found)).values()) == {2} else None

    pinned = eventually(in_pairs, "a run of each entry at each tick", timeout_s=30)
    assert {run.spec.revision.name for run in pinned} == {first}
    latest = ticks.runs("every")[-1]
    assert latest.spec.revision.name == ""

    def ended() -> Any:
        run = ticks.api.get("PipelineRun", PROJECT, latest.metadata.name)
        return run if run.status.state in ENDED else None

    failed = eventually(ended, "the run of the new revision", timeout_s=120)
    assert failed.status.state == runs_wire.PIPELINE_RUN_STATE_FAILED
    ticks.command("pause", "minutely")
    ticks.until("minutely", wire.TRIGGER_RUN_STATE_PAUSED)
    count = len(ticks.runs("minutely"))
    time.sleep(65)
    assert len(ticks.runs("minutely")) == count
    resumed = datetime.now(UTC)
    ticks.command("resume", "minutely")
    eventually(lambda: len(ticks.runs("minutely")) >= count + 2, "a tick after the pause", timeout_s=150)
    later = instants(ticks.runs("minutely"))[count:]
    assert all(stamp >= f"{resumed:%Y%m%dT%H%M%SZ}" for stamp in later), f"resumed at {resumed}: {later}"
    for name in ("minutely", "every"):
        ticks.command("kill", name)
        ticks.until(name, wire.TRIGGER_RUN_STATE_KILLED)
