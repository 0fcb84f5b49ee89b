"""Airflow's metadata database: made or migrated only when it is missing or of another Airflow version.

A first database is built beside its place and renamed into it, so that a kill in the middle leaves none half made.
"""

from __future__ import annotations

import asyncio
import importlib.metadata
import os
import sys
from collections.abc import Mapping
from pathlib import Path

from api.cli.exits import Failure
from api.config import Config

CONNECTION = "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"
SHOWN_LINES = 5


def needs_migration(config: Config) -> bool:
    """Whether the database is missing or was migrated by another version."""
    note = _note(config)
    if not _database(config).is_file() or not note.is_file():
        return True
    return note.read_text().strip() != _version()


async def migrate(config: Config, environ: Mapping[str, str]) -> None:
    """Bring the database to the installed version.  Raises Failure with the last lines of the log."""
    database = _database(config)
    fresh = database.with_name("airflow.db.new")
    is_new = not database.exists()
    target = fresh if is_new else database
    if is_new:
        for leftover in database.parent.glob("airflow.db.new*"):
            leftover.unlink()
    log = config.logs_path / "migrate.log"
    with log.open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-P", "-m", "airflow", "db", "migrate"),
            env={**environ, CONNECTION: f"sqlite:///{target}"},
            cwd=config.home,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
        try:
            status = await process.wait()
        except asyncio.CancelledError:
            process.kill()
            await process.wait()
            raise
    if status:
        raise Failure(f"Airflow's database could not be migrated; the end of {log}:", *tail(log, SHOWN_LINES))
    if is_new:
        os.replace(fresh, database)
    _note(config).write_text(_version() + "\n")


def tail(path: Path, lines: int) -> list[str]:
    """Return the last lines of a log that are not empty, each cut at 160 characters."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - 20_000))
            text = file.read().decode("utf-8", "replace")
    except OSError:
        return []
    return [line[:160] for line in text.splitlines() if line.strip()][-lines:]


def _database(config: Config) -> Path:
    return config.airflow_home / "airflow.db"


def _note(config: Config) -> Path:
    return config.airflow_home / "migrated-to"


def _version() -> str:
    return importlib.metadata.version("apache-airflow-core")
