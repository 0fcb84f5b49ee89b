"""A PostgreSQL store copied from one snapshot while servers write, and filled from a copy in one transaction.

What is not committed was never there: a restore that is killed leaves the store that stood there.
"""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import psycopg

from api.errors import FailedPrecondition, NotFound
from api.store import schema
from api.store.backup_file import reading
from api.store.backup_place import Former
from api.store.database import SQLITE, with_nul, without_nul
from api.store.postgres import opened, reached
from api.store.postgres_link import IN_USE, PostgresDatabase, refusal
from api.store.sqlite import SqliteDatabase

# In the order in which rows may refer to each other.
TABLES = ("counter", "object", "field", "label", "owner", "change", "lease", "request", "indexed", "audit")
TYPES = {"BIGINT": "int8", "INTEGER": "int8", "TEXT": "text", "BLOB": "bytea", "REAL": "float8", "NUMERIC": "numeric"}
LARGEST_INTEGER = 2**63 - 1
AT_ONCE = 1000
# A server that was stopped is gone a moment later.
WAIT_S = 2.0
AGAIN_S = 0.1
# No server waits for what is done here.
PATIENT = """
SET LOCAL statement_timeout = 0; SET LOCAL idle_in_transaction_session_timeout = 0; SET LOCAL lock_timeout = '30s'
"""


def copy_out(address: str, db: SqliteDatabase) -> None:
    """Copy one snapshot of a store into an empty file.  Raises NotFound, FailedPrecondition, Unavailable."""
    with _talking(reached(address)) as source:
        source.plain(f"BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; {PATIENT}")
        if not source.has_tables(source):
            raise NotFound("there is no store in this database")
        if schema.version(source) != schema.VERSION:
            told = "the store is of an older release: start an API server of this one, which migrates it, then copy it"
            raise FailedPrecondition(told, reason="STORE_TOO_OLD")
        statements = [statement.format(**SQLITE.types) for statement in schema.TABLES]
        db.begin()
        for statement in statements:
            if statement.startswith("CREATE TABLE"):
                db.execute(statement)
        db.execute("INSERT INTO schema_version VALUES (?)", (schema.VERSION,))
        for table in TABLES:
            _table_out(source, db, table)
        for statement in statements:
            if not statement.startswith("CREATE TABLE"):
                db.execute(statement)
        db.commit()


def _table_out(source: PostgresDatabase, db: SqliteDatabase, table: str) -> None:
    names, types = _columns(db, table)
    read = [_readers[kind] for kind in types]
    insert = f"INSERT INTO {table} VALUES ({', '.join('?' * len(names))})"  # noqa: S608
    told: Any = f"COPY {table} ({', '.join(names)}) TO STDOUT (FORMAT BINARY)"
    with source.driver.cursor() as cursor, cursor.copy(told) as rows:
        rows.set_types(types)
        some: list[list[Any]] = []
        for row in rows.rows():
            some.append([one(value) if one else value for one, value in zip(read, row, strict=True)])
            if len(some) == AT_ONCE:
                db.driver.executemany(insert, some)
                some = []
        db.driver.executemany(insert, some)


def _columns(db: Any, table: str) -> tuple[list[str], list[str]]:
    """Return names and PostgreSQL types of a table's columns, as SQLite declares them."""
    found = db.execute(f"SELECT name, type FROM pragma_table_info('{table}') ORDER BY cid").fetchall()  # noqa: S608
    return [name for name, _ in found], [TYPES[kind] for _, kind in found]


def _number_out(value: Decimal | None) -> int | float | None:
    if value is None:
        return None
    if value.is_finite() and value == value.to_integral_value() and abs(value) <= LARGEST_INTEGER:
        return int(value)
    return float(value)


def _number_in(value: int | float | None) -> Decimal | None:
    return None if value is None else Decimal(value)


_readers: dict[str, Callable[[Any], Any] | None] = {
    "int8": None,
    "text": with_nul,
    "bytea": None,
    "float8": None,
    "numeric": _number_out,
}
_writers: dict[str, Callable[[Any], Any] | None] = {
    "int8": None,
    "text": lambda value: value if value is None else without_nul(value),
    "bytea": None,
    "float8": None,
    "numeric": _number_in,
}


class PostgresPlace:
    """The place of a store.  `replace`: whether one that has something in it may be replaced."""

    def __init__(self, address: str, *, replace: bool) -> None:
        self._address, self._replace = address, replace

    @contextlib.contextmanager
    def taken(self) -> Iterator[Former]:
        """Begin the transaction, with every server kept out, and yield what stands here."""
        with tempfile.TemporaryDirectory(prefix="ma-restore-") as folder, _talking(opened(self._address)) as db:
            self.folder, self._db = Path(folder), db
            db.plain(f"BEGIN; {PATIENT}")
            _keep_out(db)
            (revision,) = db.execute("SELECT revision FROM counter").fetchone()
            (objects,) = db.execute("SELECT count(*) FROM object").fetchone()
            (records,) = db.execute("SELECT count(*) FROM audit").fetchone()
            if (revision or records) and not self._replace:
                told = f"the database holds a store of {objects} objects, at revision {revision}"
                raise FailedPrecondition(told, reason="STORE_NOT_EMPTY")
            yield Former(int(revision), dict(db.execute("SELECT name, epoch FROM lease").fetchall()))

    def put(self, made: Path) -> None:
        """Fill the tables and commit."""
        db = self._db
        db.plain(f"TRUNCATE {', '.join(TABLES)}")
        with contextlib.closing(reading(made)) as source:
            for table in TABLES:
                _table_in(source, db, table)
            (newest,) = source.execute("SELECT coalesce(max(id), 0) FROM object").fetchone()
        # Taken back with the transaction, unlike setval().
        db.plain(f"ALTER TABLE object ALTER COLUMN id RESTART WITH {newest + 1}")
        db.commit()


def _table_in(source: Any, db: PostgresDatabase, table: str) -> None:
    names, types = _columns(source, table)
    write = [_writers[kind] for kind in types]
    told: Any = f"COPY {table} ({', '.join(names)}) FROM STDIN (FORMAT BINARY)"
    with db.driver.cursor() as cursor, cursor.copy(told) as rows:
        rows.set_types(types)
        for row in source.execute(f"SELECT {', '.join(names)} FROM {table}"):  # noqa: S608
            rows.write_row([one(value) if one else value for one, value in zip(write, row, strict=True)])


def _keep_out(db: PostgresDatabase) -> None:
    """Take alone the lock that every connection of a server shares.  Raises FailedPrecondition while there is one."""
    deadline = time.monotonic() + WAIT_S
    while not db.execute(f"SELECT pg_try_advisory_xact_lock({IN_USE})").fetchone()[0]:
        if time.monotonic() > deadline:
            told = "a server uses the store: stop all API servers of this database, then restore"
            raise FailedPrecondition(told, reason="STORE_IN_USE")
        time.sleep(AGAIN_S)


@contextlib.contextmanager
def _talking(db: PostgresDatabase) -> Iterator[PostgresDatabase]:
    """Close a connection at the end, whatever was begun on it, and say what its failures mean."""
    try:
        yield db
    except psycopg.Error as error:
        raise refusal(error) from error
    finally:
        db.driver.close()
