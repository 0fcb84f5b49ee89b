"""The executor of the embedded Airflow: warm and awake.  Runs no task in the scheduler's own process.

Warm: what a task's process needs is imported once, in the scheduler, before the workers are forked from it; each task
is a fork of a worker and would import it again.  Awake: between two looks for work the scheduler waits here, until a
worker is done or somebody rings (`operators.wake`), where it would otherwise sleep (docs/adr/0007).

Each worker has a pipe of its own: one that is killed takes along what it had in hand and nothing else, and it is known
what that was.
"""

from __future__ import annotations

import gc
import importlib
import logging
import multiprocessing
import os
import signal
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any

from airflow.executors.base_executor import BaseExecutor, get_execution_api_server_url
from airflow.sdk.listener import get_listener_manager

from operators import sqlite_clock, wake

PRELOADED = (
    "airflow.dag_processing.bundles.local",
    "airflow.dag_processing.dagbag",
    "airflow.dag_processing.importers.python_importer",
    "airflow.sdk._shared.logging.factory",
    "airflow.sdk._shared.logging.remote",
    "airflow.sdk.definitions.asset.metadata",
    "airflow.sdk.definitions.connection",
    "airflow.sdk.execution_time.supervisor",
    "airflow.sdk.execution_time.task_runner",
    "api.blob_files",
    "jinja2.ext",
    "operators.authoring.decorators",
    "operators.python_task",
    "operators.task_exit",
    "operators.templates.authored",
    "operators.templates.project",
    "operators.templates.registry",
    "operators.templates.steps",
    "operators.templates.trigger",
)
LEAST_WAIT_S = 0.1
MOST_WAIT_S = 1.0
SHARE = 0.01
"""What comes without a ring, as the end of a wait in the triggerer, is seen late by this part of the time it took."""

log = logging.getLogger(__name__)


def preload(names: Sequence[str] = PRELOADED) -> None:
    """Import what tasks need.  What cannot be imported is the tasks' trouble, not the scheduler's."""
    for name in names:
        try:
            importlib.import_module(name)
        except Exception:
            log.exception("module %s cannot be imported before the workers are forked", name)
    # Made once in a process, and the tasks' processes are forks of this one.
    get_listener_manager()


def wait_s(idle_s: float) -> float:
    """Return for how long to wait when nothing has been done for `idle_s` seconds."""
    return min(MOST_WAIT_S, max(LEAST_WAIT_S, SHARE * idle_s))


@dataclass(eq=False)
class Worker:
    """A process that runs one task after another.  ended: can be read when it has; work: what it has in hand."""

    process: BaseProcess
    pipe: Connection
    ended: int
    work: Any = None


class WarmExecutor(BaseExecutor):
    """Wants `scheduler.scheduler_idle_sleep_time` to be 0: it is what waits."""

    is_local = True
    serve_logs = True
    supports_callbacks = True
    supports_connection_test = True
    supports_multi_team = True

    def start(self) -> None:
        """Import, then fork the workers.  Runs of a scheduler whose record is in SQLite are due at once from now on."""
        preload()
        sqlite_clock.tell_milliseconds()
        self._bell = wake.listen(wake.place())
        self._workers: list[Worker] = []
        self._waiting: deque[Any] = deque()
        self._busy_at = time.monotonic()
        self._sent = False
        self._fork(self.parallelism)

    def sync(self) -> None:
        """Take in what the workers did; with nothing to do wait for that, or for a ring, before."""
        if not self._sent:
            self._wait()
        self._sent = False
        for worker in list(self._workers):
            self._hear(worker)
        self._hand_out()

    def end(self) -> None:
        """Let the tasks end that have begun, then the workers."""
        for worker in self._workers:
            _send(worker.pipe, None)
        for worker in list(self._workers):
            worker.process.join()
            self._hear(worker)
        os.close(self._bell)

    def terminate(self) -> None:
        """Leave the tasks to their supervisors, as Airflow's own executor does."""

    def _process_workloads(self, workload_items: Sequence[Any]) -> None:
        for work in workload_items:
            for queue in (self.queued_tasks, self.queued_callbacks, self.queued_connection_tests):
                queue.pop(work.key, None)
            self._waiting.append(work)
        self._hand_out()
        self._sent = True

    def _hand_out(self) -> None:
        while self._waiting:
            idle = next((worker for worker in self._workers if worker.work is None), None)
            if idle is None and len(self._workers) < self.parallelism:
                self._fork(1)
                continue
            if idle is None:
                return
            if _send(idle.pipe, self._waiting[0]):
                idle.work = self._waiting.popleft()
            else:
                self._gone(idle)

    def _wait(self) -> None:
        told: list[Any] = [self._bell, *(each.pipe for each in self._workers), *(each.ended for each in self._workers)]
        if wait(told, wait_s(time.monotonic() - self._busy_at)):
            self._busy_at = time.monotonic()
        wake.heard(self._bell)

    def _hear(self, worker: Worker) -> None:
        """Take in what a worker says; whatever it had in hand when it died has failed."""
        # Asked first: what it said before it ended is in the pipe then.
        gone = bool(wait([worker.ended], 0))
        try:
            while worker.pipe.poll():
                key, state, info, last = worker.pipe.recv()
                self.change_state(key, state, info, remove_running=last)
                worker.work = None if last else worker.work
        except (EOFError, OSError):
            gone = True
        if gone:
            self._gone(worker)

    def _gone(self, worker: Worker) -> None:
        self._workers.remove(worker)
        worker.process.join()
        if worker.work is not None:
            told = f"the worker {worker.process.pid} that had it ended with {worker.process.exitcode}"
            self.log.error("%s is lost: %s", worker.work.key, told)
            self.change_state(worker.work.key, worker.work.failure_state, told)
        worker.pipe.close()
        worker.process.close()
        os.close(worker.ended)

    def _fork(self, count: int) -> None:
        # What is there before a fork is not looked at by the workers' garbage collection: their memory stays shared.
        gc.freeze()
        try:
            for _ in range(count):
                self._fork_one()
        finally:
            gc.unfreeze()

    def _fork_one(self) -> None:
        ours, theirs = multiprocessing.Pipe()
        others = [each.pipe for each in self._workers] + [ours]
        server = get_execution_api_server_url(self.conf)
        process = multiprocessing.get_context("fork").Process(target=_work, args=(theirs, others, server))
        process.start()
        theirs.close()
        if process.pid is None:
            raise RuntimeError("a worker has not begun")
        self._workers.append(Worker(process, ours, os.pidfd_open(process.pid)))


def _work(pipe: Connection, others: Sequence[Connection], server: str) -> None:
    """Run what is handed over until there is nothing more, or the scheduler is gone."""
    # Ctrl-C is the scheduler's: it lets tasks end.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    for other in others:
        # Whoever held them would keep workers waiting for a scheduler that is gone.
        other.close()
    while (work := _next(pipe)) is not None:
        if work.running_state is not None:
            _send(pipe, (work.key, work.running_state, None, False))
        try:
            BaseExecutor.run_workload(
                work, server=server, proctitle=f"airflow worker: {work.display_name}", subprocess_logs_to_stdout=True
            )
            said: tuple[Any, str | None] = work.success_state, None
        except Exception as error:
            log.exception("%s cannot be run", work.key)
            said = work.failure_state, f"{type(error).__name__}: {error}"
        _send(pipe, (work.key, *said, True))


def _next(pipe: Connection) -> Any:
    try:
        return pipe.recv()
    except EOFError:
        return None


def _send(pipe: Connection, what: Any) -> bool:
    try:
        pipe.send(what)
    except OSError:
        return False
    return True
