"""Makes a store usable: its tables made, migrated, indexed as the kinds are declared now.  Knows no driver."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from typing import Any, Protocol, TypeVar

from api.store import reindex, schema
from api.store.database import Database
from api.store.schema import VERSION

T = TypeVar("T")

log = logging.getLogger(__name__)


class Opening(Protocol):
    """A connection that a store is opened with.  `url`: which SQL it speaks, for SQLAlchemy."""

    url: str
    driver: Any

    def begin(self) -> Database:
        """Begin a transaction that no other process comes between."""
        ...

    def commit(self) -> None:
        """Commit it."""
        ...

    def rollback(self) -> None:
        """Leave it.  Raises nothing."""
        ...

    def has_tables(self, db: Database) -> bool:
        """Whether there is a store."""
        ...


def prepare(opening: Opening) -> None:
    """Make, migrate and index what has to be.  Raises FailedPrecondition for a store of a newer release."""
    found = _step(opening, lambda db: _found(opening, db))
    if found < VERSION:
        _migrate(opening, found)
    for kind in _step(opening, reindex.changed):
        log.info("indexing %s", kind.name)
        after: int | None = 0
        while after is not None:
            after = _step(opening, functools.partial(reindex.step, kind=kind, after=after))


def _found(opening: Opening, db: Database) -> int:
    """Return the version of a store, made now if there was none."""
    if opening.has_tables(db):
        if (found := schema.version(db)) > 0:
            return found
        # The first release was interrupted when it made them: there is nothing in them.
        for table in ("field", "label", "owner", "object", "change", "lease", "request", "audit", "counter"):
            db.execute(f"DROP TABLE IF EXISTS {table}")
        db.execute("DROP TABLE schema_version")
    schema.create(db)
    reindex.mark(db)
    return VERSION


def _migrate(opening: Opening, found: int) -> None:
    # Alembic takes a third of a second to load: only an old store pays for it.
    from api.store import migrations

    for script in migrations.scripts(found):
        target = int(script.revision)

        def upgrade(db: Database, script: Any = script, target: int = target) -> None:
            # Another process may have been quicker.
            if schema.version(db) < target:
                migrations.run(opening.driver, opening.url, script)
                db.execute("UPDATE schema_version SET version = ?", (target,))

        _step(opening, upgrade)
        log.info("the store has schema %s now", target)


def _step(opening: Opening, work: Callable[[Database], T]) -> T:
    db = opening.begin()
    try:
        result = work(db)
        opening.commit()
    except BaseException:
        opening.rollback()
        raise
    return result
