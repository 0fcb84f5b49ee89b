"""Schedules of triggers in Airflow: what `api.instants` computes.  Manual runs are not its business."""

from __future__ import annotations

import datetime
import zoneinfo
from typing import Any

import pendulum
from airflow.exceptions import AirflowTimetableInvalid
from airflow.timetables.base import DagRunInfo, DataInterval, TimeRestriction, Timetable
from cronsim import CronSim, CronSimError

from api.instants import Missed, Schedule


class TriggerTimetable(Timetable):
    """Fires at each instant of `cron` in `timezone`, or every `interval_s` seconds counted from 1970.

    missed: what becomes of instants at which Airflow did not run; with catch-up every instant is made, in order.
    """

    description = "a TriggerRun's schedule"

    def __init__(
        self,
        *,
        cron: str | None = None,
        interval_s: float | None = None,
        timezone: str = "UTC",
        missed: str = "runOnce",
    ) -> None:
        self._cron = cron
        self._interval_s = interval_s
        self._timezone = timezone
        self._missed = missed

    @property
    def summary(self) -> str:
        """What Airflow's UI shows."""
        zone = "" if self._timezone == "UTC" else f" {self._timezone}"
        return f"{self._cron}{zone}" if self._cron else f"every {self._interval_s:g} s"

    def serialize(self) -> dict[str, Any]:
        """Return the arguments as JSON."""
        return {
            "cron": self._cron,
            "interval_s": self._interval_s,
            "timezone": self._timezone,
            "missed": self._missed,
        }

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
        """Return the next instant after the last run, or the one that is made up for after a time of no runs.

        Before the first run the start stands for the last one: Airflow asks at every parse, and an instant that has
        just passed must stay due until the scheduler has made its run.  The start moves on when a pause ends.
        """
        now = int(pendulum.now("UTC").timestamp())
        known = [restriction.earliest] if restriction.earliest else []
        if last_automated_data_interval:
            known.append(last_automated_data_interval.end)
        last = int(max(known).timestamp()) if known else now
        if restriction.catchup:
            found = self.schedule.following(last)
        else:
            found = Missed.parse(self._missed).due(self.schedule, last, now)
        if found is None or (restriction.latest is not None and found > restriction.latest.timestamp()):
            return None
        return DagRunInfo.exact(pendulum.from_timestamp(found))

    def following(self, moment: pendulum.DateTime) -> pendulum.DateTime | None:
        """Return the first instant after `moment`, in UTC; None if there is none within 50 years."""
        found = self.schedule.following(int(moment.timestamp()))
        return None if found is None else pendulum.from_timestamp(found)

    @property
    def schedule(self) -> Schedule:
        """The instants."""
        interval_s = None if self._interval_s is None else int(self._interval_s)
        return Schedule(self._cron, interval_s, self._timezone)
