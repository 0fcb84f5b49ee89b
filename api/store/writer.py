"""The one thread that writes: all writes that wait go into one transaction, and are answered when it is committed.

Each runs inside a savepoint, so that the refusal of one does not touch the others.  Nothing is answered before the
commit, not even a refusal: it may rest on what another write of the transaction did.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from api import failpoints
from api.errors import ApiError, FailedPrecondition
from api.store import sql
from api.store.bell import Bell, Row
from api.store.database import Database
from api.store.records import NextRevision

T = TypeVar("T")
Work = Callable[[Database, NextRevision], T]
# After so many changes, old ones are looked for that nobody needs any more.
TIDY_EVERY = 1000
# Of a transaction with more changes, watchers read in the store.
MOST_TOLD = 250

log = logging.getLogger(__name__)


class LostError(Exception):
    """A transaction is gone.  `alone`: nothing was committed, and each of its writes may be tried by itself."""

    def __init__(self, error: BaseException, *, alone: bool) -> None:
        super().__init__(str(error))
        self.error, self.alone = error, alone


class Session(Protocol):
    """A connection on which is written.  `begin`, `commit`, `refused` and `tidy` may raise LostError."""

    def begin(self) -> Database:
        """Begin a transaction that no other writer can come between."""
        ...

    def commit(self, *, changed: bool) -> None:
        """Commit it.  `changed`: there are new revisions."""
        ...

    def rollback(self) -> None:
        """Leave the transaction, whatever its state.  Raises nothing."""
        ...

    def refused(self, error: BaseException) -> BaseException:
        """Return what a write is answered that failed inside a transaction.  Raises LostError if that is gone."""
        ...

    def tidy(self, db: Database) -> bool:
        """Forget some of what need not be kept; whether there may be more."""
        ...

    def rest(self) -> None:
        """Do between transactions what nobody has to wait for.  Raises nothing."""
        ...

    def close(self) -> None:
        """Disconnect."""
        ...


@dataclass
class Job(Generic[T]):
    """One write that waits, and what becomes of it."""

    work: Work[T]
    loop: asyncio.AbstractEventLoop
    future: asyncio.Future[T]
    result: T | None = None
    error: BaseException | None = None

    def answer(self) -> None:
        """Tell the caller, if it is still there."""
        if self.future.done():
            return
        if self.error is not None:
            self.future.set_exception(self.error)
        else:
            self.future.set_result(self.result)  # type: ignore[arg-type]


class Count:
    """The counter of revisions in one transaction, to which nobody else comes: read once and written once."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self.before = self.now = sql.revision(db)

    @property
    def changed(self) -> bool:
        """Whether there are new revisions."""
        return self.now != self.before

    def following(self) -> int:
        """Return the revision of one more change."""
        self.now += 1
        return self.now

    def write(self) -> None:
        """Keep it with the changes."""
        if self.changed:
            sql.count_to(self._db, self.now)


class Writer:
    """Takes writes from any loop.  `most`: of how many one transaction is made at most; `bell`: rung after commits.

    revision: the newest that was written here.
    """

    def __init__(self, session: Session, bell: Bell, most: int) -> None:
        self._session, self._bell, self._most = session, bell, most
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="store-writer")
        self._lock = threading.Lock()
        self._waiting: deque[Job[Any]] = deque()
        self._busy = self._closed = False
        self.revision = 0
        self._tidied = -1
        # What was committed and is not told yet: the revision before it, the newest, and its changes.
        self._untold: list[tuple[int, int, Sequence[Row]]] = []

    async def carry_out(self, work: Work[T]) -> T:
        """Run `work` in a transaction and return its result when it is committed."""
        loop = asyncio.get_running_loop()
        job = Job(work, loop, loop.create_future())
        with self._lock:
            if self._closed:
                raise closed()
            self._waiting.append(job)
            begin, self._busy = not self._busy, True
        if begin:
            loop.run_in_executor(self._thread, self._run)
        result: T = await job.future
        return result

    def close(self) -> None:
        """Carry out what waits, then stop.  Blocks."""
        with self._lock:
            self._closed = True
        self._thread.shutdown()
        self._session.close()

    def _run(self) -> None:
        while jobs := self._group():
            self._carry_out(jobs)
            _answer(jobs)
            # After the answers: what watchers do about it takes time from whoever waits for its write.
            for before, now, rows in self._untold:
                if len(rows) < MOST_TOLD:
                    self._bell.publish(before, now, rows)
                else:
                    self._bell.ring()
            self._untold.clear()
            while self.revision // TIDY_EVERY > self._tidied:
                self._tidy()
                if self._waiting:
                    break
            self._session.rest()

    def _group(self) -> list[Job[Any]]:
        """Return those that wait; when nobody does, the thread is free."""
        with self._lock:
            jobs = [self._waiting.popleft() for _ in range(min(len(self._waiting), self._most))]
            self._busy = bool(jobs)
        return jobs

    def _carry_out(self, jobs: Sequence[Job[Any]]) -> None:
        try:
            self._transaction(jobs)
        except LostError as lost:
            self._session.rollback()
            if lost.alone and len(jobs) > 1:
                for job in jobs:
                    self._carry_out([job])
            else:
                for job in jobs:
                    job.error = lost.error

    def _transaction(self, jobs: Sequence[Job[Any]]) -> None:
        """Carry out writes in one transaction.  Raises LostError."""
        db = self._session.begin()
        try:
            count = Count(db)
            for job in jobs:
                before = count.now
                if not self._one(db, job, count.following, savepoint=len(jobs) > 1):
                    count.now = before
            count.write()
            rows = sql.logged(db, count.before, MOST_TOLD) if count.changed else ()
        except LostError:
            raise
        except Exception as error:
            raise LostError(self._session.refused(error), alone=False) from error
        if len(jobs) == 1 and jobs[0].error is not None:
            self._session.rollback()
            return
        failpoints.hit("store.before_commit")
        self._session.commit(changed=count.changed)
        failpoints.hit("store.after_commit")
        if count.changed:
            self._tidied = count.before // TIDY_EVERY if self._tidied < 0 else self._tidied
            self.revision = count.now
            self._untold.append((count.before, count.now, rows))

    def _one(self, db: Database, job: Job[Any], following: NextRevision, *, savepoint: bool) -> bool:
        """Carry out one write; whether it had an effect."""
        job.result, job.error = None, None
        if savepoint:
            db.execute("SAVEPOINT one")
        try:
            job.result = job.work(db, following)
        except ApiError as error:
            job.error = error
        except BaseException as error:
            # It may have been the connection that failed: then the transaction is lost.
            job.error = self._session.refused(error)
        if savepoint:
            if job.error is not None:
                db.execute("ROLLBACK TO SAVEPOINT one")
            db.execute("RELEASE SAVEPOINT one")
        return job.error is None

    def _tidy(self) -> None:
        """Forget some of what need not be kept, in a transaction of its own."""
        try:
            more = self._session.tidy(self._session.begin())
            self._session.commit(changed=False)
        except LostError as lost:
            self._session.rollback()
            log.warning("old changes could not be forgotten: %s", lost)
            more = False
        if not more:
            self._tidied = self.revision // TIDY_EVERY


def _answer(jobs: Sequence[Job[Any]]) -> None:
    by_loop: dict[asyncio.AbstractEventLoop, list[Job[Any]]] = {}
    for job in jobs:
        by_loop.setdefault(job.loop, []).append(job)
    for loop, some in by_loop.items():
        # A loop that is closed has nobody who waits.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(_answer_all, some)


def _answer_all(jobs: Sequence[Job[Any]]) -> None:
    for job in jobs:
        job.answer()


def closed() -> FailedPrecondition:
    """Return the refusal of a store that was closed."""
    return FailedPrecondition("the store is closed", reason="STORE_CLOSED")
