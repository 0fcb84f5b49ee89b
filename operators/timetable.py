"""Schedules of triggers: cron by cronsim, and intervals.  Manual runs are not its business; catch-up is off.

croniter, which Airflow's own cron timetables use, fires fixed-time jobs twice in the autumn hour; cronsim once.
"""

from __future__ import annotations

import datetime
from typing import Any

import pendulum
from airflow.timetables.base import DagRunInfo, DataInterval, TimeRestriction, Timetable
from cronsim import CronSim


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

    def infer_manual_data_interval(self, *, run_after: pendulum.DateTime) -> DataInterval:
        """A manual run is for its own moment."""
        return DataInterval.exact(run_after)

    def next_dagrun_info(
        self, *, last_automated_data_interval: DataInterval | None, restriction: TimeRestriction
    ) -> DagRunInfo | None:
        """Return the next instant after the last run, or after now when runs were missed."""
        after = pendulum.now("UTC")
        if restriction.earliest is not None:
            after = max(after, restriction.earliest)
        if last_automated_data_interval is not None:
            due = self.following(last_automated_data_interval.end)
            if due > after or self.following(due) > after:
                return DagRunInfo.exact(due)
            after = max(after, due)
        found = self.following(after)
        if restriction.latest is not None and found > restriction.latest:
            return None
        return DagRunInfo.exact(found)

    def following(self, moment: pendulum.DateTime) -> pendulum.DateTime:
        """Return the first instant after `moment`."""
        if self._interval_s is not None:
            step = int(self._interval_s)
            return pendulum.from_timestamp((int(moment.timestamp()) // step + 1) * step)
        local = moment.in_timezone(self._timezone)
        found = next(CronSim(str(self._cron), datetime.datetime.fromisoformat(local.isoformat())))
        return pendulum.instance(found).in_timezone("UTC")
