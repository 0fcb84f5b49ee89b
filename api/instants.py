"""When a schedule fires: cron in a time zone, or equal distances.  Pure: it is told what time it is, and keeps nothing.

A job at fixed times fires at the first instant after a gap of the clock that swallows it, and once in the hour that
comes twice; any other follows real time.  Source of the fields: cronsim; croniter fires twice in autumn (G10).
"""

from __future__ import annotations

import functools
import itertools
import re
import zoneinfo
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from cronsim import CronSim, CronSimError

DAY_S = 86_400
DEFAULT_ZONE = "UTC"
ZONE_PREFIX = re.compile(r"\s*(?:CRON_TZ|TZ)=(\S*)(?:\s+|\Z)")
# Later than this, a tick was missed although no other is due yet.
GRACE_S = 300
NOTED = timedelta(days=400)


@dataclass(frozen=True)
class Schedule:
    """Instants of five cron fields in a zone, or every `interval_s` seconds counted from 1970; whole seconds, UTC."""

    cron: str | None = None
    interval_s: int | None = None
    zone: str = DEFAULT_ZONE

    def following(self, second: int) -> int | None:
        """Return the first instant after `second` (Unix time); None if there is none within 50 years."""
        if self.interval_s is not None:
            return (second // self.interval_s + 1) * self.interval_s
        zone = zoneinfo.ZoneInfo(self.zone)
        found = self._fires(second, zone)
        if found is None:
            return None
        for change in offset_changes(zone, second, found):
            # cronsim goes on by whole hours, and past what is due right behind a change of half an hour (Lord Howe).
            for start in (change, change + -_local_minute(zone, change) % 60 * 60):
                found = min(found, self._fires(start - 1, zone) or found)
        return found

    def _fires(self, second: int, zone: zoneinfo.ZoneInfo) -> int | None:
        # A plain datetime in the zone, not at its present offset: the offset changes on the way.
        local = datetime.fromtimestamp(second, zone)
        try:
            # cronsim counts by the local clock: in the hour that comes twice it may first give a time that has passed.
            return next(int(at.timestamp()) for at in CronSim(str(self.cron), local) if at.timestamp() > second)
        except (CronSimError, StopIteration):
            return None

    def after(self, second: int) -> Iterator[int]:
        """Yield every instant after `second`."""
        found = self.following(second)
        while found is not None:
            yield found
            found = self.following(found)

    def latest(self, after: int, until: int, most: int = 1) -> list[int]:
        """Return the last `most` instants in (after, until], oldest first."""
        back = 60
        while True:
            start = max(after, until - back)
            found = list(itertools.takewhile(lambda instant: instant <= until, self.after(start)))
            if len(found) >= most or start == after:
                return found[-most:]
            back *= 2

    def count(self, start: int, end: int, most: int) -> int:
        """Return how many instants lie in [start, end]; above `most` it is told from how close the first ones are."""
        if self.interval_s is not None:
            return max(0, end // self.interval_s - (start - 1) // self.interval_s)
        # By the calendar of UTC: a change of the clock adds or removes no more than one instant's worth of an hour.
        plain = CronSim(str(self.cron), datetime.fromtimestamp(start - 1, UTC))
        found: list[int] = []
        for at in itertools.islice(plain, most + 1):
            if at.timestamp() > end:
                return len(found)
            found.append(int(at.timestamp()))
        if len(found) <= most:
            return len(found)
        return 1 + (end - found[0]) * (len(found) - 1) // max(found[-1] - found[0], 1)


@dataclass(frozen=True)
class Missed:
    """What becomes of instants at which nothing could start: `skip`, `runOnce` (the last one), `runAll` (`most`)."""

    policy: str = "runOnce"
    most: int = 1

    @classmethod
    def parse(cls, text: str) -> Missed:
        """Return what `skip`, `runOnce` or `runAll(100)` means.  Raises ValueError."""
        match = re.fullmatch(r"runAll\(([1-9]\d{0,3})\)", text)
        if match:
            return cls("runAll", int(match[1]))
        if text not in ("skip", "runOnce", ""):
            raise ValueError(f"{text!r} is none of skip, runOnce, runAll(most) with 1 to 9999")
        return cls(text or "runOnce")

    def __str__(self) -> str:
        return f"runAll({self.most})" if self.policy == "runAll" else self.policy

    def due(self, schedule: Schedule, last: int, now: int) -> int | None:
        """Return the instant that is next after `last`: one that was missed and is made up for, or one to come."""
        found = schedule.following(last)
        if found is None or found > now:
            return found
        (first, *_) = schedule.latest(last, now, self.most)
        return first if self.policy != "skip" or now - first <= GRACE_S else schedule.following(now)

    def wants(self, schedule: Schedule, instant: int, began: int) -> bool:
        """Whether the tick of `instant`, which began at `began`, is to start its runs."""
        if self.policy == "skip" and began - instant > GRACE_S:
            return False
        return len(list(itertools.islice(_until(schedule, instant, began), self.most))) < self.most


def _until(schedule: Schedule, after: int, until: int) -> Iterator[int]:
    return itertools.takewhile(lambda instant: instant <= until, schedule.after(after))


def split_zone(text: str) -> tuple[str, str]:
    """Return zone and fields of `CRON_TZ=Europe/Berlin 30 2 * * *`; without a prefix, or an empty one, it is UTC."""
    match = ZONE_PREFIX.match(text)
    return (match[1] or DEFAULT_ZONE, text[match.end() :]) if match else (DEFAULT_ZONE, text)


@functools.cache
def zones() -> frozenset[str]:
    """Return the IANA names that this machine knows."""
    return frozenset(zoneinfo.available_timezones())


def offset_changes(zone: zoneinfo.ZoneInfo, after: int, until: int) -> Iterator[int]:
    """Yield the seconds in (after, until] from which on the zone has another offset."""

    def offset(second: int) -> timedelta | None:
        return datetime.fromtimestamp(second, zone).utcoffset()

    for start in range(after, until, DAY_S):
        low, high = start, min(start + DAY_S, until)
        known = offset(low)
        if offset(high) != known:
            while high - low > 1:
                middle = (low + high) // 2
                low, high = (middle, high) if offset(middle) == known else (low, middle)
            yield high


def _local_minute(zone: zoneinfo.ZoneInfo, second: int) -> int:
    return datetime.fromtimestamp(second, zone).minute


def stamp(second: int) -> str:
    """Return an instant as `2026-03-29T01:00Z`."""
    return f"{datetime.fromtimestamp(second, UTC):%Y-%m-%dT%H:%MZ}"


def clock_note(schedule: Schedule, now: int) -> str:
    """Return what a change of the clock in the next 400 days does to a schedule, empty if it does nothing."""
    if schedule.cron is None:
        return ""
    zone = zoneinfo.ZoneInfo(schedule.zone)
    for change in offset_changes(zone, now, now + int(NOTED.total_seconds())):
        before = datetime.fromtimestamp(change - 1, zone).replace(tzinfo=None) + timedelta(seconds=1)
        after = datetime.fromtimestamp(change, zone).replace(tzinfo=None, fold=0)
        first, last = min(before, after), max(before, after)
        if not _falls_into(schedule.cron, first, last):
            continue
        fixed = not any(field.startswith("*") for field in schedule.cron.split()[:2])
        what = "is left out" if after > before else "comes twice"
        told = ("fires right after it" if after > before else "fires once") if fixed else "follows real time"
        return f"on {first:%Y-%m-%d} {first:%H:%M}-{last:%H:%M} {what} in {schedule.zone}: {told}"
    return ""


def _falls_into(cron: str, first: datetime, last: datetime) -> bool:
    try:
        at = next(CronSim(cron, first.replace(tzinfo=UTC) - timedelta(seconds=1)))
    except (CronSimError, StopIteration):
        return False
    return at.replace(tzinfo=None) < last
