"""Every instant of a cron schedule is one that an oracle finds by looking at each minute (guarantee G10)."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta

import pendulum
import pytest

from operators.timetable import TriggerTimetable
from tests.robustness.lanes import lanes
from tests.robustness.model.cron_oracle import Minute, Oracle, minutes, transitions
from tests.robustness.results import told

NAMES = """
Europe/Berlin Europe/London Europe/Lisbon Europe/Moscow Europe/Istanbul Europe/Dublin Europe/Chisinau Europe/Kyiv
America/New_York America/Chicago America/Denver America/Phoenix America/Los_Angeles America/St_Johns America/Halifax
America/Havana America/Sao_Paulo America/Santiago America/Asuncion America/Caracas America/Nuuk America/Scoresbysund
Africa/Casablanca Africa/El_Aaiun Africa/Cairo Africa/Johannesburg Asia/Kathmandu Asia/Kolkata Asia/Tehran Asia/Gaza
Asia/Amman Asia/Beirut Asia/Tokyo Asia/Pyongyang Australia/Sydney Australia/Lord_Howe Australia/Adelaide
Pacific/Apia Pacific/Chatham Antarctica/Troll
"""
ZONES = NAMES.split()
EXPRESSIONS = (
    "0 * * * *",
    "*/15 * * * *",
    "*/7 * * * *",
    "30 * * * *",
    "*/30 1-3 * * *",
    "0 0 * * *",
    "30 0 * * *",
    "0 1 * * *",
    "30 1 * * *",
    "45 1 * * *",
    "0 2 * * *",
    "15 2 * * *",
    "30 2 * * *",
    "0 3 * * *",
    "59 23 * * *",
    "0 2,3 * * *",
    "0,30 1-3 * * *",
    "*/20 2 * * *",
    "30 */2 * * *",
    "0 */6 * * *",
    "10 0-4 * * *",
    "0 0 * * 0",
    "30 2 * * 7",
    "30 2 * 3,10 *",
    "30 2 25-31 * *",
    "30 2 25-31 * 0",
    "0 3 1 * *",
    "15 */3 * * 1-5",
    "5 4 * * 6,0",
    "30 1 1-15/2 * *",
)
DAYS = 3


def fired(expression: str, zone: str, start: datetime, end: datetime) -> list[datetime]:
    """Return the instants in [start, end) that Airflow would be told."""
    timetable = TriggerTimetable(cron=expression, timezone=zone)
    found: list[datetime] = []
    moment = pendulum.instance(start - timedelta(seconds=1))
    while (following := timetable.following(moment)) is not None and following < end:
        found.append(datetime.fromtimestamp(following.timestamp(), UTC))
        moment = following
    return found


def test_the_oracle_knows_the_gap_and_the_fold() -> None:
    spring = minutes("Europe/Berlin", datetime(2026, 3, 29, tzinfo=UTC), 1)
    autumn = minutes("Europe/Berlin", datetime(2026, 10, 25, tzinfo=UTC), 1)
    assert [at.hour for at in Oracle("30 2 * * *").fires(spring)] == [1]
    assert [(at.hour, at.minute) for at in Oracle("30 2 * * *").fires(autumn)] == [(0, 30)]
    assert len(list(Oracle("0 * * * *").fires(autumn))) == 24
    assert [(at.hour, at.minute) for at in Oracle("*/30 2 * * *").fires(spring)] == []


@pytest.mark.parametrize(("zones", "years"), [*lanes(p=8, c=40, also=((2015, 2035),))])
def test_a_schedule_fires_when_the_oracle_says(zones: int, years: tuple[int, int]) -> None:
    began, compared, faults = time.monotonic(), 0, []
    step = len(ZONES) // zones
    for zone in ZONES[step - 1 :: step]:
        days = transitions(zone, *years) or [datetime(2026, 3, 29, tzinfo=UTC)]
        if zones < len(ZONES):
            days = days[-4:]
        for day in days:
            start = day - timedelta(days=1)
            known = minutes(zone, start, DAYS + 1)
            faults += differences(zone, start, known)
            compared += len(EXPRESSIONS)
    told(
        "G10",
        "a cron schedule fires when an oracle of minutes says, across DST",
        trials=compared,
        failed=len(faults),
        figures=f"{zones} zones, {len(EXPRESSIONS)} expressions, {time.monotonic() - began:.0f} s",
    )
    assert faults == []


def differences(zone: str, start: datetime, known: list[Minute]) -> list[str]:
    # The first day is there for the oracle to see what was skipped.
    begin, end = start + timedelta(hours=1), start + timedelta(days=DAYS)
    found = []
    for expression in EXPRESSIONS:
        due = [at for at in Oracle(expression).fires(known) if begin <= at < end]
        got = fired(expression, zone, begin, end)
        if due != got:
            found.append(
                f"{expression} in {zone}: due {sorted(set(due) - set(got))}, fired {sorted(set(got) - set(due))}"
            )
    return found
