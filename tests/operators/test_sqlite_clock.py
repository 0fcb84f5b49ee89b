"""What is due in SQLite is due at once, in a process that asked for milliseconds."""

from __future__ import annotations

import subprocess
import sys

ASKED = """
import sys, time
from datetime import UTC, datetime, timedelta
from sqlalchemy import Column, DateTime, MetaData, Table, create_engine, func, insert, select
from sqlalchemy.dialects import postgresql
from operators import sqlite_clock

if sys.argv[1] == "ours":
    sqlite_clock.tell_milliseconds()
assert str(select(func.now()).compile(dialect=postgresql.dialect())) == "SELECT now() AS now_1"
runs = Table("runs", MetaData(), Column("run_after", DateTime))
with create_engine("sqlite://").connect() as connection:
    runs.create(connection)
    # Two fifths of a second after it began: a database that tells whole ones would find nothing due.
    time.sleep((1.4 - time.time() % 1) % 1)
    now = datetime.now(UTC).replace(tzinfo=None)
    connection.execute(insert(runs), [{"run_after": now}, {"run_after": now + timedelta(hours=1)}])
    time.sleep(0.01)
    print(connection.scalar(select(func.count()).where(runs.c.run_after <= func.now())))
"""


def due(whose: str) -> int:
    ended = subprocess.run([sys.executable, "-c", ASKED, whose], capture_output=True, text=True, timeout=60, check=True)
    return int(ended.stdout)


def test_a_run_is_due_in_the_second_in_which_it_was_made() -> None:
    assert due("SQLAlchemy's") == 0, "it tells milliseconds by itself now: operators/sqlite_clock.py can go"
    assert due("ours") == 1
