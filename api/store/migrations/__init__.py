"""The way from older stores to the present tables: Alembic's scripts and operations, numbered by the store's version.

Loaded only when a store is old.  Each script runs in one transaction with the number it leads to: killed at any
statement, it has done nothing and runs again at the next start.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from alembic.migration import MigrationContext
from alembic.operations import Operations
from alembic.script import Script, ScriptDirectory
from sqlalchemy import create_engine, pool


def scripts(found: int) -> Iterator[Script]:
    """Yield the scripts that lead from a version to the newest, in order."""
    folder = Path(__file__).parent
    directory = ScriptDirectory(str(folder), version_locations=[str(folder / "versions")])
    yield from reversed(list(directory.iterate_revisions("head", f"{found:04d}")))


class Lent:
    """A driver's connection that is neither committed, rolled back nor closed here: it belongs to the caller."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)

    def commit(self) -> None:
        """Leave it to the caller."""

    def rollback(self) -> None:
        """Leave it to the caller."""

    def close(self) -> None:
        """Leave it to the caller."""


def run(connection: Any, url: str, script: Script) -> None:
    """Run a script on a driver's connection, inside the transaction that it is in.  `url`: which SQL it speaks."""
    # What SQLAlchemy asks psycopg for hstore wants a connection of psycopg's own class.
    options = {"use_native_hstore": False} if url.startswith("postgresql") else {}
    engine = create_engine(url, creator=lambda: Lent(connection), poolclass=pool.StaticPool, **options)
    with engine.connect() as wrapped, Operations.context(MigrationContext.configure(wrapped)):
        script.module.upgrade()
