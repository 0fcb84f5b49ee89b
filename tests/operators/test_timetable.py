"""When a trigger fires: once an instant, on both sides of a change of the clock, late once, and never by accident."""

import json
from collections.abc import Iterator
from itertools import islice
from typing import Any

import pendulum
import pytest
from airflow.exceptions import AirflowTimetableInvalid
from airflow.timetables.base import DagRunInfo, DataInterval, TimeRestriction

from operators.timetable import TriggerTimetable

NOW = pendulum.datetime(2026, 3, 10, 12, 0, 30)
BERLIN = "Europe/Berlin"


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pendulum, "now", lambda tz="UTC": NOW.in_timezone(tz))


def instants(timetable: TriggerTimetable, after: str, count: int) -> list[str]:
    """Return the first instants after a moment, in the timetable's own zone."""

    def all_of_them() -> Iterator[str]:
        moment: Any = pendulum.parse(after)
        while True:
            found = timetable.following(moment)
            assert found is not None
            assert found > moment
            assert found.timezone_name == "UTC"
            moment = found
            yield found.in_timezone(timetable.serialize()["timezone"]).format("MM-DD HH:mm Z")

    return list(islice(all_of_them(), count))


def due(timetable: TriggerTimetable, last: Any = None, *, earliest: Any = None, latest: Any = None) -> Any:
    interval = None if last is None else DataInterval.exact(last)
    info = timetable.next_dagrun_info(
        last_automated_data_interval=interval, restriction=TimeRestriction(earliest, latest, False)
    )
    assert info is None or info == DagRunInfo.exact(info.run_after)
    return None if info is None else info.run_after


def test_cron_is_in_utc_unless_it_is_said_otherwise() -> None:
    assert instants(TriggerTimetable(cron="0 3 * * *"), "2026-03-27T12:00:00Z", 3) == [
        "03-28 03:00 +00:00",
        "03-29 03:00 +00:00",
        "03-30 03:00 +00:00",
    ]


def test_a_fixed_time_keeps_its_local_hour_over_both_changes() -> None:
    daily = TriggerTimetable(cron="0 7 * * *", timezone=BERLIN)
    spring = instants(daily, "2026-03-27T12:00:00Z", 3)
    assert spring == ["03-28 07:00 +01:00", "03-29 07:00 +02:00", "03-30 07:00 +02:00"]
    autumn = instants(daily, "2026-10-23T12:00:00Z", 3)
    assert autumn == ["10-24 07:00 +02:00", "10-25 07:00 +01:00", "10-26 07:00 +01:00"]


def test_a_fixed_time_in_the_hour_that_comes_twice_fires_once() -> None:
    """Between 02:00 and 03:00 of 25 October the clock passes twice: at +02:00 and at +01:00."""
    daily = TriggerTimetable(cron="30 2 * * *", timezone=BERLIN)
    assert instants(daily, "2026-10-24T12:00:00Z", 2) == ["10-25 02:30 +02:00", "10-26 02:30 +01:00"]
    after_first = pendulum.datetime(2026, 10, 25, 0, 30)
    assert due(daily, after_first) == pendulum.datetime(2026, 10, 26, 1, 30)
    second_pass = pendulum.datetime(2026, 10, 25, 1, 10)
    assert daily.following(second_pass) == pendulum.datetime(2026, 10, 26, 1, 30)


def test_a_fixed_time_in_the_hour_that_is_left_out_fires_once_right_after_it() -> None:
    """There is no 02:30 on 29 March: the clock goes from 02:00 +01:00 to 03:00 +02:00."""
    daily = TriggerTimetable(cron="30 2 * * *", timezone=BERLIN)
    found = instants(daily, "2026-03-28T12:00:00Z", 2)
    assert found == ["03-29 03:00 +02:00", "03-30 02:30 +02:00"]


def test_a_job_of_every_hour_fires_every_hour_over_both_changes() -> None:
    hourly = TriggerTimetable(cron="0 * * * *", timezone=BERLIN)
    assert instants(hourly, "2026-03-29T00:30:00Z", 2) == ["03-29 03:00 +02:00", "03-29 04:00 +02:00"]
    autumn = instants(hourly, "2026-10-24T23:30:00Z", 4)
    assert autumn == ["10-25 02:00 +02:00", "10-25 02:00 +01:00", "10-25 03:00 +01:00", "10-25 04:00 +01:00"]


def test_a_rare_instant_is_found_years_ahead() -> None:
    leap = TriggerTimetable(cron="0 0 29 2 *")
    assert leap.following(pendulum.datetime(2028, 3, 1)) == pendulum.datetime(2032, 2, 29)
    assert due(leap) == pendulum.datetime(2028, 2, 29)


def test_what_never_fires_has_no_next_run() -> None:
    never = TriggerTimetable(cron="0 0 30 2 *")
    assert never.following(NOW) is None
    assert due(never) is None
    assert due(never, NOW.subtract(days=1)) is None


@pytest.mark.parametrize("cron", ["", "61 * * * *", "a b c d e", "* * * *", "0 3 * * * * *"])
def test_a_cron_expression_that_is_none_is_refused_when_the_dag_is_read(cron: str) -> None:
    with pytest.raises(AirflowTimetableInvalid, match="cron"):
        TriggerTimetable(cron=cron).validate()


@pytest.mark.parametrize("interval_s", [0, -60, 0.5])
def test_an_interval_below_a_second_is_refused_when_the_dag_is_read(interval_s: float) -> None:
    with pytest.raises(AirflowTimetableInvalid, match="interval"):
        TriggerTimetable(interval_s=interval_s).validate()


def test_a_zone_that_does_not_exist_is_refused_when_the_dag_is_read() -> None:
    with pytest.raises(AirflowTimetableInvalid, match="Mars/Base"):
        TriggerTimetable(cron="0 3 * * *", timezone="Mars/Base").validate()


def test_good_schedules_are_not_refused() -> None:
    for good in (TriggerTimetable(cron="*/5 2-4 * * MON"), TriggerTimetable(interval_s=60.0)):
        good.validate()


def test_an_interval_is_counted_from_1970_whenever_it_is_asked() -> None:
    often = TriggerTimetable(interval_s=60.0)
    assert instants(often, "2026-03-10T12:00:00Z", 2) == ["03-10 12:01 +00:00", "03-10 12:02 +00:00"]
    assert instants(often, "2026-03-10T12:00:59.999Z", 1) == ["03-10 12:01 +00:00"]
    week = TriggerTimetable(interval_s=7 * 86400)
    assert week.following(NOW) == week.following(NOW.add(hours=5))


def test_the_first_run_is_the_first_instant_after_the_start() -> None:
    hourly = TriggerTimetable(cron="0 * * * *")
    assert due(hourly, earliest=NOW.subtract(seconds=20)) == pendulum.datetime(2026, 3, 10, 13)
    assert due(hourly, earliest=NOW.add(days=1)) == pendulum.datetime(2026, 3, 11, 13)


def test_the_first_run_is_not_lost_when_the_file_is_read_again_right_after_it_was_due() -> None:
    """Airflow asks anew at every parse; until the scheduler has made the run there is no last one."""
    hourly = TriggerTimetable(cron="0 * * * *")
    assert due(hourly, earliest=NOW.subtract(minutes=45)) == pendulum.datetime(2026, 3, 10, 12)


def test_a_new_trigger_does_not_fire_for_the_time_before_it() -> None:
    hourly = TriggerTimetable(cron="0 * * * *")
    assert due(hourly, earliest=NOW.subtract(seconds=5)) == pendulum.datetime(2026, 3, 10, 13)


def test_a_run_that_was_missed_is_made_late() -> None:
    daily = TriggerTimetable(cron="0 3 * * *")
    assert due(daily, pendulum.datetime(2026, 3, 9, 3)) == pendulum.datetime(2026, 3, 10, 3)


LAST_WEEK = pendulum.datetime(2026, 3, 1, 3)


def test_of_the_runs_that_were_missed_the_last_one_is_made() -> None:
    daily = TriggerTimetable(cron="0 3 * * *")
    assert due(daily, LAST_WEEK) == pendulum.datetime(2026, 3, 10, 3)
    assert due(daily, earliest=pendulum.datetime(2020, 1, 1)) == pendulum.datetime(2026, 3, 10, 3)


def test_runs_that_were_missed_are_left_out_if_that_is_the_policy() -> None:
    daily = TriggerTimetable(cron="0 3 * * *", missed="skip")
    assert due(daily, LAST_WEEK) == pendulum.datetime(2026, 3, 11, 3)
    just_now = TriggerTimetable(cron="58 11 * * *", missed="skip")
    assert due(just_now, LAST_WEEK) == pendulum.datetime(2026, 3, 10, 11, 58)


def test_runs_that_were_missed_are_made_up_one_after_another_but_not_all_of_them() -> None:
    daily = TriggerTimetable(cron="0 3 * * *", missed="runAll(3)")
    assert due(daily, LAST_WEEK) == pendulum.datetime(2026, 3, 8, 3)
    assert due(daily, pendulum.datetime(2026, 3, 8, 3)) == pendulum.datetime(2026, 3, 9, 3)
    assert due(daily, pendulum.datetime(2026, 3, 10, 3)) == pendulum.datetime(2026, 3, 11, 3)


def test_a_start_that_moved_on_leaves_out_what_came_before_it() -> None:
    hourly = TriggerTimetable(cron="0 * * * *", missed="runAll(100)")
    resumed = NOW.subtract(minutes=10)
    assert due(hourly, LAST_WEEK, earliest=resumed) == pendulum.datetime(2026, 3, 10, 12)
    assert due(hourly, LAST_WEEK, earliest=NOW) == pendulum.datetime(2026, 3, 10, 13)


def test_a_backfill_makes_every_instant_in_order() -> None:
    daily = TriggerTimetable(cron="0 3 * * *", timezone=BERLIN)
    bounds = TimeRestriction(pendulum.datetime(2026, 3, 1, 1, 59, 59), pendulum.datetime(2026, 3, 3, 2), True)
    made: list[Any] = []
    while True:
        last = DataInterval.exact(made[-1]) if made else None
        info = daily.next_dagrun_info(last_automated_data_interval=last, restriction=bounds)
        if info is None:
            break
        made.append(info.run_after)
    assert made == [pendulum.datetime(2026, 3, day, 2) for day in (1, 2, 3)]


def test_the_next_run_follows_the_last() -> None:
    often = TriggerTimetable(interval_s=60)
    assert due(often, NOW.replace(second=0)) == NOW.replace(second=0).add(minutes=1)


def test_nothing_is_due_after_the_end() -> None:
    daily = TriggerTimetable(cron="0 3 * * *")
    assert due(daily, latest=NOW) is None
    assert due(daily, pendulum.datetime(2026, 3, 9, 3), latest=pendulum.datetime(2026, 3, 9, 12)) is None


def test_a_manual_run_is_for_its_own_moment() -> None:
    assert TriggerTimetable(cron="0 3 * * *").infer_manual_data_interval(run_after=NOW) == DataInterval.exact(NOW)


@pytest.mark.parametrize(
    "timetable",
    [TriggerTimetable(cron="0 3 * * *"), TriggerTimetable(interval_s=90, timezone=BERLIN)],
    ids=["cron", "interval"],
)
def test_a_timetable_goes_through_the_database(timetable: TriggerTimetable) -> None:
    read = TriggerTimetable.deserialize(json.loads(json.dumps(timetable.serialize())))
    assert isinstance(read, TriggerTimetable)
    assert read.serialize() == timetable.serialize()
    assert read.following(NOW) == timetable.following(NOW)
    assert read.summary == timetable.summary


def test_the_summary_is_what_a_person_wrote() -> None:
    assert TriggerTimetable(cron="0 3 * * *").summary == "0 3 * * *"
    assert TriggerTimetable(cron="0 3 * * *", timezone=BERLIN).summary == "0 3 * * * Europe/Berlin"
    assert TriggerTimetable(interval_s=90.0).summary == "every 90 s"
