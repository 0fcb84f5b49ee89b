"""Schedules of triggers: cron by cronsim, and intervals.  Manual runs are not its business; catch-up is off.

croniter, which Airflow's own cron timetables use, fires fixed-time jobs twice in the autumn hour; cronsim once.
"""

from __future__ import annotations

import datetime
import zoneinfo
from collections.abc import Iterator
from typing import Any

import pendulum
from airflow.exceptions import AirflowTimetableInvalid
from airflow.timetables.base import DagRunInfo, DataInterval, TimeRestriction, Timetable
from cronsim import CronSim, CronSimError

DAY_S = 86_400


class TriggerTimetable(Timetable):
    """Fires at each instant of `cron` in `timezone`, or every `interval_s` seconds counted from 1970."""

    description = "a TriggerRun's schedule"

    def __init__(self, *, cron: str | None = None, interval_s: float | None = None, timezone: str = "UTC") -> None:
        self._cron = cron
        self._interval_s = interval_s
        self._timezone = timezone

    @property
    def summary(self) -> str:
        """What Airflow's UI shows."""
        return self._cron or f"every {self._interval_s:g} s"

    def serialize(self) -> dict[str, Any]:
        """Return the arguments as JSON."""
        return {"cron": self._cron, "interval_s": self._interval_s, "timezone": self._timezone}

    @classmethod
    def deserialize(cls, data: dict[str, Any]) -> Timetable:
        """Return the timetable of serialized arguments."""
        return cls(**data)

    def validate(self) -> None:
        """Raise AirflowTimetableInvalid for a schedule that cannot be: Airflow asks when it reads the DAG."""
        try:
            zone = zoneinfo.ZoneInfo(self._timezone)
            if self._interval_s is None:
                CronSim(str(self._cron), datetime.datetime(2026, 1, 1, tzinfo=zone))
        except (zoneinfo.ZoneInfoNotFoundError, ValueError) as error:
            raise AirflowTimetableInvalid(f"there is no time zone {self._timezone!r}") from error
        except CronSimError as error:
            raise AirflowTimetableInvalid(f"{self._cron!r} is no cron expression: {error}") from error
        if self._interval_s is not None and self._interval_s < 1:
            raise AirflowTimetableInvalid(f"the interval must be at least 1 s, not {self._interval_s:g}")

    def infer_manual_data_interval(self, *, run_after: pendulum.DateTime) -> DataInterval:
        """A manual run is for its own moment."""
        return DataInterval.exact(run_after)

    def next_dagrun_info(
        self, *, last_automated_data_interval: DataInterval | None, restriction: TimeRestriction
    ) -> DagRunInfo | None:
        """Return the next instant after the last run, or after now when more than one was missed.

        Before the first run the start stands for the last one: Airflow asks at every parse, and an instant that has
        just passed must stay due until the scheduler has made its run.
        """
        now = pendulum.now("UTC")
        last = last_automated_data_interval.end if last_automated_data_interval else restriction.earliest
        found = self.following(last or now)
        later = self.following(found) if found else None
        if found and later and later <= now:
            found = self.following(now)
        if found is None or (restriction.latest is not None and found > restriction.latest):
            return None
        return DagRunInfo.exact(found)

    def following(self, moment: pendulum.DateTime) -> pendulum.DateTime | None:
        """Return the first instant after `moment`, in UTC; None if there is none within 50 years."""
        if self._interval_s is not None:
            step = int(self._interval_s)
            return pendulum.from_timestamp((int(moment.timestamp()) // step + 1) * step)
        zone, second = zoneinfo.ZoneInfo(self._timezone), int(moment.timestamp())
        found = self._fires(second, zone)
        if found is None:
            return None
        for change in _offset_changes(zone, second, found):
            # cronsim goes on by whole hours, and past what is due right behind a change of half an hour (Lord Howe).
            for start in (change, change + -_local_minute(zone, change) % 60 * 60):
                found = min(found, self._fires(start - 1, zone) or found)
        return pendulum.from_timestamp(found)

    def _fires(self, second: int, zone: zoneinfo.ZoneInfo) -> int | None:
        # A plain datetime in the zone, not at its present offset: the offset changes on the way.
        local = datetime.datetime.fromtimestamp(second, zone)
        try:
            # cronsim counts by the local clock: in the hour that comes twice it may first give a time that has passed.
            return next(int(at.timestamp()) for at in CronSim(str(self._cron), local) if at.timestamp() > second)
        except (CronSimError, StopIteration):
            return None


def _local_minute(zone: zoneinfo.ZoneInfo, second: int) -> int:
    return datetime.datetime.fromtimestamp(second, zone).minute


def _offset_changes(zone: zoneinfo.ZoneInfo, after: int, until: int) -> Iterator[int]:
    """Yield the seconds in (after, until] from which on the zone has another offset."""

    def offset(second: int) -> datetime.timedelta | None:
        return datetime.datetime.fromtimestamp(second, zone).utcoffset()

    for start in range(after, until, DAY_S):
        low, high = start, min(start + DAY_S, until)
        known = offset(low)
        if offset(high) != known:
            while high - low > 1:
                middle = (low + high) // 2
                low, high = (middle, high) if offset(middle) == known else (low, middle)
            yield high
