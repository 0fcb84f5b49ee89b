"""Two schedulers of Airflow on one database, each stopped in the middle of ticks: each instant starts one run (G10)."""

from __future__ import annotations

import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.api.running import Served
from tests.dags.conftest import airflow_environ
from tests.robustness.false_clock import due, lived
from tests.robustness.real_airflow import on_postgres
from tests.robustness.results import told
from tests.servers import PostgresServer

CRON = "*/20 * * * *"
# Through the night in which Berlin's clock goes back.
START = datetime(2026, 10, 24, 11, 59, tzinfo=UTC)
END = START + timedelta(hours=30)
PAUSES = 15
# How likely one stops itself where it passes.  Behind the first two places its transaction is open.
PAUSES_AT = {"before": 0.02, "made, not committed": 0.1, "to be carried out": 0.3, "carried out, not committed": 0.3}


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    made = Served(tmp_path / "store.db")
    yield made
    made.close()


def follow(postgres: PostgresServer, name: str, clock: Path) -> None:
    """Let a database take the time of day from a file: Airflow asks it what is due."""
    told = f"SELECT (rtrim(pg_read_file('{clock}')) || '+00')::timestamptz"
    postgres.sql(f"CREATE FUNCTION public.now() RETURNS timestamptz LANGUAGE sql AS $$ {told} $$", name)
    postgres.sql(f"ALTER DATABASE {name} SET search_path = public, pg_catalog")


@pytest.mark.robustness
def test_two_leaders_that_stop_at_a_tick_start_one_run_each_time(
    served: Served, postgres: PostgresServer, tmp_path: Path
) -> None:
    name, clock = postgres.database(), postgres.folder / "clock"
    books = on_postgres(postgres.url(name, tcp=True))
    migrate = [sys.executable, "-m", "airflow", "db", "migrate"]
    subprocess.run(migrate, env=airflow_environ(tmp_path, **books), check=True, capture_output=True, timeout=600)
    follow(postgres, name, clock)
    began = time.monotonic()
    found, said = lived(
        served,
        tmp_path,
        books,
        "leaders_loop",
        START,
        END,
        cron=CRON,
        missed="runAll(100)",
        clock=clock,
        step_s=1200,
        pauses_at=PAUSES_AT,
    )
    pauses, both = (int(number) for number in said.removeprefix("PAUSES ").split())
    expected, counted = due(CRON, START, END), Counter(found)
    told(
        "G10",
        "an instant at which two leaders stand still starts one run",
        store="Airflow on PostgreSQL",
        trials=len(expected),
        failed=sum(counted[instant] != 1 for instant in expected) + len(counted.keys() - set(expected)),
        figures=f"{pauses} pauses in ticks, {both} of both at once, {time.monotonic() - began:.0f} s",
    )
    assert counted == dict.fromkeys(expected, 1)
    assert pauses >= PAUSES
    assert both, "never both stood still"
