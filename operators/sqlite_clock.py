"""Lets SQLite tell the time in milliseconds, for which Airflow's scheduler asks it.  Asks nothing itself.

Airflow has its database say which runs are due: `run_after <= CURRENT_TIMESTAMP`.  SQLite's has whole seconds, so a run
would wait until the second in which it was made is over: half of one, of each run, in which nothing is done.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import now

NOW = "strftime('%Y-%m-%d %H:%M:%f', 'now')"


def tell_milliseconds() -> None:
    """Render `func.now()` for SQLite with milliseconds, in this process; other databases keep their own."""

    def render(_element: Any, _compiler: Any, **_options: Any) -> str:
        return NOW

    compiles(now, "sqlite")(render)
