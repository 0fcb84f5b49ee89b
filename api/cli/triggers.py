"""`ma trigger-run`: pause, resume, kill, backfill, rerun and foretell triggers through the API."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any

from api.cli.context import client, say
from api.cli.exits import USAGE, Failure
from api.cli.runs import edit
from api.errors import AlreadyExists

DATE_LENGTH = len("2026-03-01")


@dataclass(frozen=True)
class Pace:
    """How fast runs are started.  max_concurrency, batch_size: 0 sets no bound."""

    max_concurrency: int = 0
    batch_size: int = 0
    batch_wait_s: float = 0.0

    def set(self, trigger: Any) -> None:
        """Write it into a Trigger; a bound that is not given stays as it is."""
        if self.max_concurrency:
            trigger.max_concurrency = self.max_concurrency
        if self.batch_size:
            trigger.batch_policy.batch_size = self.batch_size
            trigger.batch_policy.wait.FromMilliseconds(round(1000 * self.batch_wait_s))


def set_action(name: str, action: str, *, namespace: str, with_runs: bool = False) -> None:
    """Pause, resume or kill a trigger.  `action`: the enum's value without its prefix."""
    from api.gen.michelangelo.api.v2 import trigger_run_pb2
    from api.trigger_dags import KILL_RUNS

    def act(trigger: Any) -> None:
        trigger.spec.action = trigger_run_pb2.TriggerRunAction.Value(f"TRIGGER_RUN_ACTION_{action}")
        if with_runs:
            trigger.metadata.annotations[KILL_RUNS] = "true"

    with client() as api:
        edit(api, "TriggerRun", namespace, name, act)
    say(f"{name}: {action.lower()} is asked for")


def backfill(name: str, *, namespace: str, bounds: tuple[str, str], only: str, pace: Pace, new_name: str = "") -> None:
    """Create the TriggerRun that starts the runs of a time that is over, and print its name."""
    from api.kinds import kinds
    from api.trigger_dags import BACKFILL, pinned_revision

    start, end = moment(bounds[0], "--start"), moment(bounds[1], "--end", whole_day=True)
    with client() as api:
        old = api.get("TriggerRun", namespace, name)
        chosen = new_name or f"{name[:150]}-backfill-{start:%Y%m%d}-{end:%Y%m%d}"
        if not new_name and only != "all":
            # Asked for again it looks again at what is missing, or has failed.
            chosen += f"-{only}-{datetime.now(UTC):%Y%m%d-%H%M%S}"
        new = kinds()["TriggerRun"].new(namespace, chosen)
        new.spec.pipeline.CopyFrom(old.spec.pipeline)
        new.spec.source_trigger_name = old.spec.source_trigger_name
        new.spec.trigger.CopyFrom(old.spec.trigger)
        if old.spec.trigger.WhichOneof("trigger_type") is None and pace != Pace():
            new.spec.trigger.CopyFrom(old.status.actual_trigger)
        if pace != Pace():
            pace.set(new.spec.trigger)
        new.spec.auto_flip = old.spec.auto_flip
        new.spec.revision.name = pinned_revision(old)
        new.spec.start_timestamp.FromDatetime(start)
        new.spec.end_timestamp.FromDatetime(end)
        if only != "all":
            new.metadata.annotations[BACKFILL] = only
        say(_created(api, new))


def rerun(
    names: Sequence[str],
    *,
    namespace: str,
    steps: tuple[Sequence[str], Sequence[str]],
    pace: Pace,
    new_name: str = "",
) -> None:
    """Create the TriggerRun that repeats runs, and print its name.  steps: to do again from, and to stop after."""
    from api.kinds import kinds

    with client() as api:
        first = api.get("PipelineRun", namespace, names[0])
        chosen = new_name or f"{first.spec.pipeline.name[:150]}-rerun-{datetime.now(UTC):%Y%m%d-%H%M%S}"
        new = kinds()["TriggerRun"].new(namespace, chosen)
        new.spec.pipeline.CopyFrom(first.spec.pipeline)
        asked = new.spec.trigger.batch_rerun
        for name in names:
            asked.pipeline_runs.add(namespace=namespace, name=name)
        asked.resume_from.extend(steps[0])
        asked.resume_up_to.extend(steps[1])
        pace.set(new.spec.trigger)
        say(_created(api, new))


def _created(api: Any, new: Any) -> str:
    try:
        return str(api.create(new).metadata.name)
    except AlreadyExists:
        found = api.get("TriggerRun", new.metadata.namespace, new.metadata.name)
        same = all(
            getattr(found.spec, field) == getattr(new.spec, field)
            for field in ("pipeline", "trigger", "start_timestamp", "end_timestamp")
        )
        if not same:
            raise
        return str(found.metadata.name)


def following(name: str, *, namespace: str, count: int) -> None:
    """Print the next instants of a trigger in UTC, and a note of the next change of the clock that concerns it."""
    from api.instants import clock_note, stamp
    from api.trigger_dags import instants_of, is_backfill

    with client() as api:
        trigger = api.get("TriggerRun", namespace, name)
    schedule = trigger.status.actual_trigger
    if schedule.WhichOneof("trigger_type") is None:
        schedule = trigger.spec.trigger
    fires = instants_of(schedule)
    if fires is None or is_backfill(trigger):
        raise Failure(f"{name} has no schedule that goes on")
    now = int(time.time())
    for instant in islice(fires.after(now), count):
        say(stamp(instant))
    if note := clock_note(fires, now):
        say(note)


def moment(text: str, option: str, *, whole_day: bool = False) -> datetime:
    """Return the instant that a user wrote, in UTC unless it says otherwise.  Raises Failure."""
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise Failure(f"{option} wants 2026-03-01 or 2026-03-01T03:00:00Z, not {text[:64]!r}", code=USAGE) from None
    if whole_day and len(text) == DATE_LENGTH:
        found += timedelta(days=1, seconds=-1)
    return found.replace(tzinfo=found.tzinfo or UTC).astimezone(UTC)
