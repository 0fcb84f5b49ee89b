"""Cron expressions and intervals of triggers: what is accepted, and why not.  Computes no runs; Airflow does.

Five fields, evaluated in UTC.  Source of the evaluation: cronsim, which fires once in the autumn hour (finding 10).
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

from cronsim import CronSim, CronSimError

from api.errors import FieldViolation
from api.validation import shown

FIELDS = ("minute", "hour", "day of month", "month", "day of week")
HORIZON = timedelta(days=365 * 8)
SHORTEST_INTERVAL_S = 60
LONGEST_INTERVAL_S = 10 * 366 * 86_400
LONGEST_EXPRESSION = 256
# Each entry is one mapped task of the trigger's DAG: Airflow's max_map_length is 1,024.
MOST_ENTRIES = 1_000
NEVER = "never fires"


def cron_fault(expression: str) -> str:
    """Return what is wrong with a cron expression, empty if nothing is."""
    if len(expression) > LONGEST_EXPRESSION:
        return f"is longer than {LONGEST_EXPRESSION} characters"
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


def trigger_faults(trigger: Any, path: str) -> Iterator[FieldViolation]:
    """Return the faults of a trigger."""
    which = trigger.WhichOneof("trigger_type")
    if which is None:
        yield FieldViolation(f"{path}.trigger_type", "set cron_schedule or interval_schedule")
    elif which == "batch_rerun":
        yield FieldViolation(
            f"{path}.batch_rerun", "is not carried out by this release: use cron_schedule or interval_schedule"
        )
    elif which == "cron_schedule":
        if fault := cron_fault(trigger.cron_schedule.cron):
            reason = "NEVER_FIRES" if fault.endswith(NEVER) else "BAD_CRON"
            yield FieldViolation(f"{path}.cron_schedule.cron", fault, shown(trigger.cron_schedule.cron), reason)
    elif fault := _interval_fault(trigger.interval_schedule.interval):
        yield FieldViolation(f"{path}.interval_schedule.interval", fault)
    if trigger.max_concurrency < 0:
        yield FieldViolation(f"{path}.max_concurrency", "must not be negative", shown(trigger.max_concurrency))
    if len(trigger.parameters_map) > MOST_ENTRIES:
        told = f"has {len(trigger.parameters_map)} entries, at most {MOST_ENTRIES} runs can start at one instant"
        yield FieldViolation(f"{path}.parameters_map", told, reason="TOO_MANY")


def _interval_fault(interval: Any) -> str:
    # Not as a timedelta: it cannot hold every Duration.
    if not 0 <= interval.nanos < 1_000_000_000 or interval.seconds < SHORTEST_INTERVAL_S:
        return f"must be at least {SHORTEST_INTERVAL_S} s"
    return f"must be at most {LONGEST_INTERVAL_S} s" if interval.seconds > LONGEST_INTERVAL_S else ""
