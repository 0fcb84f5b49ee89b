"""When a cron expression fires, by looking at every minute of UTC.  Shares nothing with the code that it judges.

The rule: a job at fixed times (neither minute nor hour begins with `*`) that falls into the gap of spring fires at the
first instant after it, and in the fold of autumn once, at the first occurrence; any other job follows real time.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

MINUTE = timedelta(minutes=1)
RANGES = ((0, 59), (0, 23), (1, 31), (1, 12), (0, 7))


def field(text: str, low: int, high: int) -> frozenset[int]:
    """Return the values of one field: lists of `*`, `a`, `a-b`, each with `/n` or not."""
    found: set[int] = set()
    for part in text.split(","):
        span, _, every = part.partition("/")
        first, _, last = (f"{low}-{high}" if span == "*" else span).partition("-")
        end = int(last) if last else high if every else int(first)
        found.update(range(int(first), end + 1, int(every or 1)))
    return frozenset(found)


@dataclass(frozen=True)
class Minute:
    """A minute of UTC, the local one, and whether that comes again.  skipped: local minutes left out before it."""

    utc: datetime
    local: datetime
    second: bool
    skipped: tuple[datetime, ...] = ()


def minutes(zone: str, start: datetime, days: int) -> list[Minute]:
    """Return every minute from `start` (UTC)."""
    here, found = ZoneInfo(zone), []
    before = start.astimezone(here).replace(tzinfo=None) - MINUTE
    for number in range(days * 1440):
        utc = start + number * MINUTE
        local = utc.astimezone(here)
        plain = local.replace(tzinfo=None, fold=0)
        gap = int((plain - before) / MINUTE) - 1
        skipped = tuple(before + (step + 1) * MINUTE for step in range(max(gap, 0))) if number else ()
        found.append(Minute(utc, plain, bool(local.fold), skipped))
        before = plain
    return found


class Oracle:
    """One expression of five fields."""

    def __init__(self, expression: str) -> None:
        parts = expression.split()
        self._minute, self._hour, self._day, self._month, self._weekday = (
            field(part, *span) for part, span in zip(parts, RANGES, strict=True)
        )
        self._both = parts[2].startswith("*") or parts[4].startswith("*")
        self._fixed = not parts[0].startswith("*") and not parts[1].startswith("*")

    def _matches(self, local: datetime) -> bool:
        if local.minute not in self._minute or local.hour not in self._hour or local.month not in self._month:
            return False
        day = local.day in self._day
        weekday = bool({local.isoweekday(), local.isoweekday() % 7} & self._weekday)
        return (day and weekday) if self._both else (day or weekday)

    def fires(self, known: list[Minute]) -> Iterator[datetime]:
        """Yield the instants among `known` minutes."""
        for minute in known:
            due = self._matches(minute.local) and not (self._fixed and minute.second)
            if due or (self._fixed and any(self._matches(local) for local in minute.skipped)):
                yield minute.utc


def transitions(zone: str, first: int, last: int) -> list[datetime]:
    """Return the days (midnight UTC) on which the zone's offset changes, in the years `first` to `last`."""
    here, found = ZoneInfo(zone), []
    day = datetime(first, 1, 1, tzinfo=UTC)
    offset = day.astimezone(here).utcoffset()
    while day.year <= last:
        following = day + timedelta(days=1)
        after = following.astimezone(here).utcoffset()
        if after != offset:
            found.append(day)
        day, offset = following, after
    return found
