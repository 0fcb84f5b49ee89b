"""PostgreSQL adapter of the store, for several servers on one database.  Never reads from a replica.

A writing transaction begins by locking the row of the counter, so that all of them run one after the other and the
order of revisions is that of the commits (`guarantees.md` finding 1).  Nothing else happens while it holds that row.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import psycopg
from psycopg.pq import TransactionStatus

from api.errors import ApiError, FailedPrecondition, Unavailable
from api.store import opening, postgres_probe, sql
from api.store.bell import Place
from api.store.database import Database
from api.store.postgres_link import Link, PostgresDatabase, connect, outcome_unknown, refusal
from api.store.sqlstore import WINDOW, WINDOW_S, Read, SqlStore
from api.store.writer import LostError, Work, Writer, closed

T = TypeVar("T")

# Other servers wait for the counter while a transaction runs.
WRITES_AT_ONCE = 64
READERS = 4
# Changes of other servers are told at once; this is for when the telling itself is lost.
POLL_S = 5.0
LISTEN_S = 0.5
CHANNEL = "michelangelo_store"

log = logging.getLogger(__name__)


class Session:
    """The connection on which is written."""

    def __init__(self, link: Link, window: int, window_s: float) -> None:
        self._link, self._window, self._window_s = link, window, window_s
        self.backend = 0

    def begin(self) -> Database:
        """Begin a transaction and take the counter, once more on a new connection if the old one was lost."""
        try:
            try:
                return self._begin()
            except psycopg.Error:
                if not self._link.lost:
                    raise
                # Nothing was asked of the connection but to begin.
                self._link.drop()
                return self._begin()
        except (psycopg.Error, ApiError) as error:
            raise LostError(refusal(error), alone=False) from error

    def _begin(self) -> Database:
        db = self._link.connected()
        self.backend = db.driver.info.backend_pid
        db.plain("BEGIN; SELECT revision FROM counter FOR UPDATE")
        return db

    def commit(self, *, changed: bool) -> None:
        """Commit; return when it is on the server's disk."""
        driver = self._link.connected().driver
        try:
            if driver.info.transaction_status != TransactionStatus.INTRANS:
                raise LostError(Unavailable("a write could not be carried out: try again"), alone=True)
            driver.execute(f"NOTIFY {CHANNEL}; COMMIT" if changed else "COMMIT", prepare=False)
        except psycopg.Error as error:
            # An answer that it failed is an answer; without one nobody knows.
            told = outcome_unknown() if self._link.lost else refusal(error)
            raise LostError(told, alone=False) from error

    def rollback(self) -> None:
        """Leave the transaction, and the connection if it does not answer."""
        try:
            self._link.connected().plain("ROLLBACK")
        except (psycopg.Error, ApiError):
            self._link.drop()

    def refused(self, error: BaseException) -> BaseException:
        """Return what a write is answered that failed."""
        told = refusal(error)
        if self._link.lost:
            raise LostError(told, alone=False) from error
        return told

    def tidy(self, db: Database) -> bool:
        """Forget old changes and answers."""
        try:
            return sql.tidy(db, self._window, self._window_s)
        except psycopg.Error as error:
            raise LostError(refusal(error), alone=False) from error

    def rest(self) -> None:
        """Do nothing: the database has processes for that."""

    def close(self) -> None:
        """Disconnect."""
        self._link.drop()


class PostgresStore(SqlStore):
    """The store in one database.  `window`, `window_s`: how many changes are kept for watchers, and for how long."""

    def __init__(self, address: str, *, window: int = WINDOW, window_s: float = WINDOW_S) -> None:
        super().__init__()
        self._address = address
        self._closed = False
        self._session = Session(Link(address, opened(address)), window, window_s)
        self._writer = Writer(self._session, self._bell, WRITES_AT_ONCE)
        self._readers = ThreadPoolExecutor(READERS, thread_name_prefix="store-reader")
        self._leases = ThreadPoolExecutor(1, thread_name_prefix="store-lease")
        self._thread, self._links = threading.local(), list[Link]()
        self._listener: threading.Thread | None = None

    def _link(self) -> Link:
        """Return the connection of this thread."""
        if not hasattr(self._thread, "link"):
            self._thread.link = Link(self._address)
            self._links.append(self._thread.link)
        link: Link = self._thread.link
        return link

    async def _write(self, work: Work[T]) -> T:
        return await self._writer.carry_out(work)

    async def _lease(self, work: Read[T]) -> T:
        # One statement, which may be repeated: what it does is the same when it is done twice.
        return await self._in(self._leases, work, snapshot=False)

    async def _read(self, work: Read[T]) -> T:
        return await self._in(self._readers, work, snapshot=True)

    async def _point(self, work: Read[T]) -> T:
        return await self._in(self._readers, work, snapshot=False)

    async def _in(self, threads: ThreadPoolExecutor, work: Read[T], *, snapshot: bool) -> T:
        if self._closed:
            raise closed()
        return await asyncio.get_running_loop().run_in_executor(threads, self._once_more, work, snapshot)

    def _once_more(self, work: Read[T], snapshot: bool) -> T:
        """Read, and read again on a new connection if the old one was lost."""
        link = self._link()
        try:
            try:
                return _at(link.connected(), work, snapshot)
            except psycopg.Error:
                if not link.lost:
                    raise
                link.drop()
                return _at(link.connected(), work, snapshot)
        except psycopg.Error as error:
            raise refusal(error) from error

    async def _news(self, place: Place) -> None:
        if self._listener is None:
            self._listener = threading.Thread(target=self._listen, name="store-listener", daemon=True)
            self._listener.start()
        await self._bell.after(place, POLL_S)

    def _listen(self) -> None:
        """Ring when another server has written, until the store is closed."""
        link = Link(self._address)
        while not self._closed:
            try:
                driver = link.connected().driver
                driver.execute(f"LISTEN {CHANNEL}")
                # What was told before this connection, nobody heard.
                self._bell.ring()
                while not self._closed:
                    for told in driver.notifies(timeout=LISTEN_S, stop_after=1):
                        if told.pid != self._session.backend:
                            self._bell.ring()
            except (psycopg.Error, Unavailable):
                link.drop()
                time.sleep(LISTEN_S)
        link.drop()

    async def close(self) -> None:
        """Stop."""
        if not self._closed:
            self._closed = True
            await asyncio.to_thread(self._stop)

    def _stop(self) -> None:
        self._writer.close()
        for threads in (self._readers, self._leases):
            threads.shutdown()
        for link in self._links:
            link.drop()
        if self._listener is not None:
            self._listener.join()
        self._bell.ring()


def _at(db: PostgresDatabase, work: Read[T], snapshot: bool) -> T:
    if not snapshot:
        return work(db)
    db.plain("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
    try:
        return work(db)
    finally:
        db.rollback()


def reached(address: str) -> PostgresDatabase:
    """Return a connection to a database that is fit for a store.  Raises FailedPrecondition, Unavailable."""
    try:
        postgres_probe.check_session(lambda: connect(address))
        return PostgresDatabase(address)
    except psycopg.ProgrammingError as error:
        told = "MA_STORE_URL is no address of a PostgreSQL database: postgresql://user:password@host:5432/database"
        raise FailedPrecondition(told, reason="STORE_URL") from error
    except psycopg.Error as error:
        log.warning("PostgreSQL cannot be reached: %s", error)
        told = "PostgreSQL of the resource store cannot be reached, or does not let this user in: see MA_STORE_URL"
        raise Unavailable(told, reason="STORE_UNAVAILABLE") from error


def opened(address: str) -> PostgresDatabase:
    """Return a connection to a store that is ready: made, migrated and indexed.  Raises as `reached` does."""
    db = reached(address)
    try:
        opening.prepare(db)
    except BaseException:
        db.driver.close()
        raise
    return db
