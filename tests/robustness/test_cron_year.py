"""Each instant of a schedule starts one run: through a year, both changes of the clock, kills and jumps (G10).

The clock is libfaketime's, below the whole process: Airflow's scheduling code, its database and our tick see no other.
Real here: the timetable, the creation of DAG runs, the tick's task, the API and its store.  Not here: Airflow's
processes, its executor and the DAG processor, which `tests/e2e/test_triggers.py` runs with the true clock.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from api.cli.platform.database import CONNECTION
from tests.api.running import Served
from tests.dags.conftest import airflow_environ
from tests.robustness.false_clock import due, lived
from tests.robustness.results import told

HOUR_S, DAY_S = 3600, 86_400


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    made = Served(tmp_path / "store.db")
    yield made
    made.close()


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An Airflow database without anything in it."""
    home = tmp_path_factory.mktemp("airflow")
    migrate = [sys.executable, "-m", "airflow", "db", "migrate"]
    subprocess.run(migrate, env=airflow_environ(home), check=True, capture_output=True, timeout=300)
    return home / "airflow" / "airflow.db"


def year(
    served: Served, database: Path, home: Path, start: datetime, end: datetime, **asked: Any
) -> tuple[list[datetime], int]:
    """Return the instants of the runs that a trigger started in a time, and how often the scheduling was killed."""
    (home / "airflow").mkdir()
    books = home / "airflow" / "airflow.db"
    books.write_bytes(database.read_bytes())
    settings = {"kills": 0, "longest_down_s": 0, "step_s": 3000, "jumps": [], "between_s": 0, **asked}
    found, said = lived(served, home, {CONNECTION: f"sqlite:///{books}"}, "year_loop", start, end, **settings)
    return found, int(said.removeprefix("KILLS "))


@pytest.mark.robustness
@pytest.mark.parametrize(
    ("first", "days", "kills"),
    [(datetime(2026, 10, 21, tzinfo=UTC), 8, 8), (datetime(2026, 1, 1, tzinfo=UTC), 365, 100)],
    ids=["autumn", "year"],
)
def test_each_hour_of_a_year_starts_one_run(
    served: Served, database: Path, tmp_path: Path, first: datetime, days: int, kills: int
) -> None:
    """8,760 in a year; killed all along it and at rest up to ten hours after each: `runAll` makes up for them."""
    start = first - timedelta(seconds=1)
    end = start + timedelta(days=days)
    began = time.monotonic()
    found, killed = year(
        served,
        database,
        tmp_path,
        start,
        end,
        cron="0 * * * *",
        missed="runAll(100)",
        kills=kills,
        longest_down_s=10 * HOUR_S,
    )
    expected = {first + timedelta(hours=hour) for hour in range(24 * days)}
    counted = Counter(found)
    told(
        "G10",
        "an hour of a year starts one run, through changes of the clock and kills",
        trials=len(expected),
        failed=sum(counted[instant] != 1 for instant in expected) + len(counted.keys() - expected),
        figures=f"{days} days, {killed} kills, {len(found):,} runs, {time.monotonic() - began:.0f} s",
    )
    # One that is due at the very end may come too late.
    assert kills - 2 <= killed <= kills
    assert counted == dict.fromkeys(expected, 1)


@pytest.mark.robustness
@pytest.mark.parametrize("month", [3, 10], ids=["spring", "autumn"])
def test_a_fixed_time_fires_once_on_the_night_of_the_change(
    served: Served, database: Path, tmp_path: Path, month: int
) -> None:
    start = datetime(2026, month, 27 if month == 3 else 23, 12, tzinfo=UTC)
    end = start + timedelta(days=4)
    found, _ = year(
        served, database, tmp_path, start, end, cron="30 2 * * *", missed="runOnce", kills=2, longest_down_s=HOUR_S
    )
    changed = datetime(2026, 3, 29, 1, tzinfo=UTC) if month == 3 else datetime(2026, 10, 25, 0, 30, tzinfo=UTC)
    assert changed in found
    assert found == due("30 2 * * *", start, end)


@pytest.mark.robustness
@pytest.mark.parametrize("jump_s", [HOUR_S, -HOUR_S, 400 * DAY_S, -1])
def test_a_clock_that_jumps_doubles_nothing_and_makes_up_the_last(
    served: Served, database: Path, tmp_path: Path, jump_s: int
) -> None:
    start, quiet = datetime(2026, 3, 1, tzinfo=UTC), timedelta(hours=6)
    end = start + 2 * quiet + timedelta(seconds=max(jump_s, 0))
    found, _ = year(
        served,
        database,
        tmp_path,
        start,
        end + timedelta(hours=3),
        cron="0 * * * *",
        missed="runOnce",
        jumps=[jump_s],
        between_s=quiet.total_seconds(),
    )
    assert found == sorted(set(found))
    before = [instant for instant in found if instant <= start + quiet]
    assert before == due("0 * * * *", start, start + quiet)
    after = [instant for instant in found if instant > start + quiet]
    # Of what the jump went over, the last instant is made up for; then one follows the other.
    assert after == due("0 * * * *", after[0] - timedelta(seconds=1), after[-1])
    landed = start + quiet + timedelta(seconds=max(jump_s, 0))
    assert timedelta(0) <= after[0] - landed + timedelta(hours=1) <= timedelta(hours=2)
    told("G10", f"a clock that jumps by {jump_s} s doubles no tick", trials=len(found), failed=0)
