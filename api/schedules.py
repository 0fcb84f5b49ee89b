"""Schedules of triggers: what is accepted, and why not.  Computes no runs; Airflow does.

Five fields, in the zone that stands before them (`CRON_TZ=Europe/Berlin 30 2 * * *`), else in UTC.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import islice, pairwise
from typing import Any

from cronsim import CronSim, CronSimError

from api.errors import FieldViolation
from api.instants import Schedule, clock_note, split_zone, stamp, zones
from api.validation import nearest, shown

FIELDS = ("minute", "hour", "day of month", "month", "day of week")
HORIZON = timedelta(days=365 * 8)
SHORTEST_INTERVAL_S = 60
LONGEST_INTERVAL_S = 10 * 366 * 86_400
LONGEST_EXPRESSION = 256
LONGEST_WAIT_S = 7 * 86_400
# Each entry is one mapped task of the trigger's DAG: Airflow's max_map_length is 1,024.
MOST_ENTRIES = 1_000
MOST_RERUNS = 1_000
# Of one backfill; each is a DAG run of the trigger and one of the pipeline at least.
MOST_BACKFILLED = 10_000
NEVER = "never fires"
SHOWN_INSTANTS = 5
# More runs a day than this are worth a word.
MANY_A_DAY = 1_000


def cron_fault(expression: str) -> str:
    """Return what is wrong with a cron expression, its zone apart; empty if nothing is."""
    if len(expression) > LONGEST_EXPRESSION:
        return f"is longer than {LONGEST_EXPRESSION} characters"
    expression = split_zone(expression)[1]
    parts = expression.split()
    if expression.startswith("@"):
        return f"{shown(expression)!r} is no cron expression: write its five fields, for example '0 0 * * *'"
    if len(parts) != len(FIELDS):
        return f"must have five fields ({', '.join(FIELDS)}), has {len(parts)}"
    for name, position in zip(FIELDS, range(len(FIELDS)), strict=True):
        alone = ["*"] * len(FIELDS)
        alone[position] = parts[position]
        try:
            CronSim(" ".join(alone), datetime(2026, 1, 1, tzinfo=UTC))
        except CronSimError:
            return f"has a bad {name}: {shown(parts[position])!r}"
    try:
        following = next(CronSim(expression, datetime.now(UTC)))
    except (CronSimError, StopIteration):
        return f"{shown(expression)!r} {NEVER}"
    return "" if following < datetime.now(UTC) + HORIZON else f"{shown(expression)!r} {NEVER}"


def zone_fault(expression: str) -> str:
    """Return what is wrong with the zone of a cron expression; empty if nothing is."""
    zone = split_zone(expression[:LONGEST_EXPRESSION])[0]
    if zone in zones():
        return ""
    near = nearest(zone, zones()) or nearest(zone.rpartition("/")[2], zones())
    return f"{shown(zone)!r} is no IANA time zone{near or ': write one such as Europe/Berlin'}"


def trigger_faults(trigger: Any, path: str) -> Iterator[FieldViolation]:
    """Return the faults of a trigger."""
    which = trigger.WhichOneof("trigger_type")
    if which is None:
        yield FieldViolation(f"{path}.trigger_type", "set cron_schedule, interval_schedule or batch_rerun")
    elif which == "batch_rerun":
        yield from _rerun_faults(trigger, f"{path}.batch_rerun")
    elif which == "cron_schedule":
        yield from _cron_faults(trigger.cron_schedule.cron, f"{path}.cron_schedule.cron")
    elif fault := _interval_fault(trigger.interval_schedule.interval):
        yield FieldViolation(f"{path}.interval_schedule.interval", fault)
    if trigger.max_concurrency < 0:
        yield FieldViolation(f"{path}.max_concurrency", "must not be negative", shown(trigger.max_concurrency))
    if len(trigger.parameters_map) > MOST_ENTRIES:
        told = f"has {len(trigger.parameters_map)} entries, at most {MOST_ENTRIES} runs can start at one instant"
        yield FieldViolation(f"{path}.parameters_map", told, reason="TOO_MANY")
    if trigger.batch_policy.batch_size < 0:
        told = "must not be negative: 0 is 10 runs"
        yield FieldViolation(f"{path}.batch_policy.batch_size", told, shown(trigger.batch_policy.batch_size))
    wait = trigger.batch_policy.wait
    if not (0 <= wait.nanos < 1_000_000_000 and 0 <= wait.seconds <= LONGEST_WAIT_S):
        yield FieldViolation(f"{path}.batch_policy.wait", f"must be between 0 and {LONGEST_WAIT_S} s")


def _cron_faults(cron: str, path: str) -> Iterator[FieldViolation]:
    if fault := cron_fault(cron):
        reason = "NEVER_FIRES" if fault.endswith(NEVER) else "BAD_CRON"
        yield FieldViolation(path, fault, shown(cron), reason)
    if fault := zone_fault(cron):
        yield FieldViolation(path, fault, shown(cron), "BAD_TIME_ZONE")


def _rerun_faults(trigger: Any, path: str) -> Iterator[FieldViolation]:
    asked = trigger.batch_rerun
    if not asked.pipeline_runs:
        yield FieldViolation(f"{path}.pipeline_runs", "names no run to repeat")
    if len(asked.pipeline_runs) > MOST_RERUNS:
        told = f"names {len(asked.pipeline_runs)} runs, at most {MOST_RERUNS} can be repeated together"
        yield FieldViolation(f"{path}.pipeline_runs", told, reason="TOO_MANY_RUNS")
    names = [(run.namespace, run.name) for run in asked.pipeline_runs]
    if len(set(names)) < len(names):
        yield FieldViolation(f"{path}.pipeline_runs", "names a run twice")
    if trigger.parameters_map:
        yield FieldViolation(
            f"{path}.pipeline_runs", "are repeated with their own parameters: leave parameters_map out"
        )


def _interval_fault(interval: Any) -> str:
    # Not as a timedelta: it cannot hold every Duration.
    if not 0 <= interval.nanos < 1_000_000_000 or interval.seconds < SHORTEST_INTERVAL_S:
        return f"must be at least {SHORTEST_INTERVAL_S} s"
    if interval.nanos:
        return "must be whole seconds"
    return f"must be at most {LONGEST_INTERVAL_S} s" if interval.seconds > LONGEST_INTERVAL_S else ""


def backfill_fault(schedule: Schedule, start: int, end: int, entries: int) -> tuple[str, str]:
    """Return what is wrong with a backfill, and its reason; both empty if nothing is.  start, end: Unix time."""
    if end < start:
        return f"{stamp(end)} is before the start, {stamp(start)}", "BAD_RANGE"
    most = MOST_BACKFILLED // max(entries, 1)
    instants = schedule.count(start, end, most)
    if instants > most:
        told = f"asks for {instants * entries:,} runs ({instants:,} instants of {entries:,})"
        return f"{told}, at most {MOST_BACKFILLED:,} can be backfilled at once: shorten it", "TOO_MANY_RUNS"
    if instants == 0:
        return "holds no instant of the schedule: nothing would run", "NO_INSTANT"
    return "", ""


def notes(schedule: Schedule, now: int, *, entries: int = 1, longest_s: float = 0.0) -> Iterator[str]:
    """Yield what is worth a word about an accepted schedule.  longest_s: how long its pipeline's runs took lately."""
    following = list(islice(schedule.after(now), SHOWN_INSTANTS))
    if note := clock_note(schedule, now):
        yield f"{note}; next in UTC: {', '.join(map(stamp, following))}"
    shortest = min((later - sooner for sooner, later in pairwise(following)), default=math.inf)
    if shortest < longest_s:
        yield f"fires every {shortest:.0f} s, but its pipeline's runs take {longest_s:.0f} s: set max_concurrency"
    elif shortest < math.inf and 86_400 / shortest * entries > MANY_A_DAY:
        yield f"fires every {shortest:.0f} s: {86_400 / shortest * entries:,.0f} runs a day"
