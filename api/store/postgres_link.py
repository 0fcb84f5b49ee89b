"""A connection to PostgreSQL that comes back when it was lost, and what its failures mean.  Never repeats a write."""

from __future__ import annotations

import contextlib
import logging
import random
import time
from collections.abc import Sequence
from decimal import Decimal
from functools import lru_cache
from typing import Any

import psycopg
from psycopg import errors

from api.errors import ApiError, DataLoss, FailedPrecondition, ResourceExhausted, Unavailable
from api.store import postgres_probe
from api.store.database import POSTGRES, Bound, Database, Dialect, Rows, without_nul
from api.store.postgres_probe import Connection

# Every statement has its index: no plan may depend on what the server believes of the tables.
SESSION = """
SET idle_in_transaction_session_timeout = '5s'; SET lock_timeout = '2s'; SET statement_timeout = '10s';
SET enable_seqscan = off; SET enable_bitmapscan = off; SET enable_hashjoin = off; SET enable_mergejoin = off;
SET enable_sort = off; SET jit = off; SET max_parallel_workers_per_gather = 0
"""
CONNECT_S = 5
FIRST_PAUSE_S = 0.1
LONGEST_PAUSE_S = 5.0
PREPARED = 300
# While tables are made and objects are indexed, statements may take long; others wait.
LOCK = 0x6D612D73746F7265
# Shared by every connection of a server, held alone by a restore; of the schema in which the tables are.
IN_USE = "1835101797, coalesce(current_schema()::regnamespace::oid::int, 0)"

log = logging.getLogger(__name__)


@lru_cache(maxsize=2048)
def _translated(statement: str) -> str:
    return statement.replace("%", "%%").replace("?", "%s")


def _bound(value: Any) -> Any:
    if isinstance(value, str):
        return without_nul(value)
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, float):
        # Exact: a number of an index is compared digit by digit, as SQLite does.
        return Decimal(value)
    if isinstance(value, list):
        bound = [_bound(one) for one in value]
        mixed = any(isinstance(one, Decimal) for one in bound)
        return [Decimal(one) for one in bound] if mixed else bound
    return value


class PostgresDatabase:
    """A connection to the server."""

    url = "postgresql+psycopg://"

    def __init__(self, address: str) -> None:
        self.driver = connect(address)
        self.driver.prepared_max = PREPARED

    @property
    def dialect(self) -> Dialect:
        """PostgreSQL's."""
        return POSTGRES

    def execute(self, statement: str, values: Sequence[Bound] = ()) -> Rows:
        """Run one statement."""
        bound = [_bound(value) for value in values] if values else None
        said: Any = _translated(statement) if values else statement
        return self.driver.execute(said, bound, binary=True)

    def plain(self, statement: Any) -> psycopg.Cursor[tuple[object, ...]]:
        """Run one or more statements without values, in one exchange."""
        return self.driver.execute(statement, prepare=False)

    def begin(self) -> Database:
        """Begin the transaction of an opening, that no other opening comes between."""
        self.plain(f"BEGIN; SET LOCAL statement_timeout = 0; SET LOCAL lock_timeout = 0; {ALONE}")
        return self

    def commit(self) -> None:
        """Commit it."""
        self.plain("COMMIT")

    def rollback(self) -> None:
        """Leave it, whatever its state."""
        with contextlib.suppress(psycopg.Error):
            self.plain("ROLLBACK")

    def has_tables(self, db: Database) -> bool:
        """Whether there is a store."""
        return db.execute("SELECT to_regclass('schema_version')").fetchone()[0] is not None


ALONE = f"SELECT pg_advisory_xact_lock({LOCK})"


def connect(address: str) -> Connection:
    """Return a connection to a server that is fit for a store.  Raises FailedPrecondition, psycopg.Error."""
    connection: Connection = psycopg.connect(
        address,
        autocommit=True,
        connect_timeout=CONNECT_S,
        application_name="michelangelo",
        keepalives_idle=10,
        keepalives_interval=3,
        keepalives_count=3,
        tcp_user_timeout=15_000,
    )
    try:
        connection.execute(SESSION, prepare=False)
        postgres_probe.check(connection)
        _enter(connection)
    except BaseException:
        connection.close()
        raise
    return connection


def _enter(connection: Connection) -> None:
    """Say, as long as the connection lives, that the store is in use.  Raises FailedPrecondition during a restore."""
    row = connection.execute(f"SELECT pg_try_advisory_lock_shared({IN_USE})", prepare=False).fetchone()
    if row is None or not row[0]:
        raise FailedPrecondition("the resource store is being restored: try again", reason="STORE_IS_RESTORED")


class Link:
    """One connection for one thread.  Lost, it is made anew, after failures no sooner than after a growing pause."""

    def __init__(self, address: str, db: PostgresDatabase | None = None) -> None:
        self._address, self._db = address, db
        self._pause_s = self._not_before = 0.0

    def connected(self) -> PostgresDatabase:
        """Return the connection.  Raises Unavailable."""
        if self._db is not None and not self._db.driver.closed:
            return self._db
        self._db = None
        if time.monotonic() < self._not_before:
            raise away()
        try:
            self._db = PostgresDatabase(self._address)
        except (psycopg.Error, FailedPrecondition) as error:
            self._pause_s = min(max(2 * self._pause_s, FIRST_PAUSE_S), LONGEST_PAUSE_S)
            self._not_before = time.monotonic() + self._pause_s * random.uniform(0.5, 1.0)
            log.warning("PostgreSQL cannot be reached: %s", error)
            raise away(error) from error
        self._pause_s = 0.0
        return self._db

    @property
    def lost(self) -> bool:
        """Whether the connection is gone."""
        return self._db is None or self._db.driver.closed or self._db.driver.broken

    def drop(self) -> None:
        """Close the connection; the next use makes another."""
        if self._db is not None:
            self._db.driver.close()


def away(error: BaseException | None = None) -> Unavailable:
    """Return the refusal while the server is not there, or is one that cannot be used."""
    if isinstance(error, FailedPrecondition):
        return Unavailable(error.message, reason=error.reason)
    return Unavailable(
        "PostgreSQL of the resource store does not answer: nothing was written; try again", reason="STORE_UNAVAILABLE"
    )


def outcome_unknown() -> Unavailable:
    """Return the refusal of a write whose commit was sent, and never answered."""
    return Unavailable(
        "the connection to PostgreSQL broke while the write was committed: whether it was stored is not known; "
        "read it, or repeat it with the same x-request-id",
        reason="STORE_OUTCOME_UNKNOWN",
    )


def refusal(error: BaseException) -> BaseException:
    """Return what is answered when a statement fails; what is no failure of the database stays what it is."""
    if not isinstance(error, psycopg.Error) or isinstance(error, ApiError):
        return error
    if isinstance(error, errors.LockNotAvailable):
        return Unavailable("another server holds the resource store: try again", reason="STORE_BUSY")
    if isinstance(error, errors.QueryCanceled):
        told = "PostgreSQL of the resource store took longer than statement_timeout: nothing was written"
        return Unavailable(f"{told}; ask for less at once, or try again", reason="STORE_SLOW")
    if isinstance(error, errors.DiskFull | errors.OutOfMemory):
        told = "the volume of the resource store is full: nothing was written; free space or delete objects"
        return ResourceExhausted(told, reason="DISK_FULL")
    if isinstance(error, errors.ReadOnlySqlTransaction):
        return Unavailable("PostgreSQL of the resource store is a read replica now", reason="STORE_IS_REPLICA")
    if isinstance(error, errors.DataCorrupted | errors.IndexCorrupted):
        told = "the resource store is damaged: stop the servers and restore it from a backup"
        return DataLoss(told, reason="STORE_CORRUPT")
    if isinstance(error, errors.ProgramLimitExceeded):
        return ResourceExhausted("a text is longer than the index of the store can hold", reason="TOO_LARGE")
    if isinstance(error, psycopg.OperationalError | psycopg.InterfaceError):
        return away()
    return error
