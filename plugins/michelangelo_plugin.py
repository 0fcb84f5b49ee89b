"""Airflow plugin: reports run and task states to the API server, and registers the triggers' timetable.

Airflow never waits for us: a report goes into a bounded queue and is posted by a thread over plain HTTP with a short
time limit.  What is lost is healed by the API server's resync.  gRPC must not be loaded here: the scheduler forks.
"""

from __future__ import annotations

import atexit
import json
import logging
import os
import queue
import threading
import time
import urllib.request
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from airflow.listeners import hookimpl
from airflow.plugins_manager import AirflowPlugin

from api.config import load
from operators.one_writer import OneWriterMiddleware
from operators.timetable import TriggerTimetable
from operators.wake import WakeMiddleware

MOST_WAITING = 1000
MOST_TOGETHER = 100
TIMEOUT_S = 1.0
FLUSH_S = 0.3
RUN_FIELDS = ("dag_id", "run_id")
TASK_FIELDS = (*RUN_FIELDS, "task_id", "map_index", "try_number")

log = logging.getLogger(__name__)


class Reporter:
    """Posts reports from one thread a process; a forked child starts its own."""

    def __init__(self) -> None:
        self._pid = 0
        self._waiting: queue.Queue[dict[str, Any]] = queue.Queue(MOST_WAITING)

    def report(self, event: dict[str, Any]) -> None:
        """Queue a report; drop it when the queue is full."""
        if self._pid != os.getpid():
            self._pid = os.getpid()
            self._waiting = queue.Queue(MOST_WAITING)
            threading.Thread(target=self._post_forever, args=(self._waiting,), daemon=True).start()
            atexit.register(self.flush)
        try:
            self._waiting.put_nowait({**event, "at": datetime.now(UTC).isoformat()})
        except queue.Full:
            return

    def flush(self) -> None:
        """Wait a moment for what is queued: a task's process ends right after its last report."""
        if self._pid != os.getpid():
            return
        deadline = time.monotonic() + FLUSH_S
        while self._waiting.unfinished_tasks and time.monotonic() < deadline:
            time.sleep(0.01)

    def _post_forever(self, waiting: queue.Queue[dict[str, Any]]) -> None:
        while True:
            events = [waiting.get()]
            while len(events) < MOST_TOGETHER and not waiting.empty():
                events.append(waiting.get_nowait())
            try:
                self._post(events)
            except Exception:
                log.debug("%d reports were not delivered", len(events), exc_info=True)
            finally:
                for _ in events:
                    waiting.task_done()

    def _post(self, events: Sequence[dict[str, Any]]) -> None:
        config = load()
        request = urllib.request.Request(  # noqa: S310
            f"{config.api_http_url}/internal/airflow/events",
            data=json.dumps({"events": events}, default=str).encode(),
            headers={"Authorization": f"Bearer {config.token}", "Content-Type": "application/json"},
        )
        # What the shell says of proxies must not lead the token elsewhere.
        handlers: list[urllib.request.BaseHandler] = [urllib.request.ProxyHandler({})]
        if (tls := config.tls.client_context()) is not None:
            handlers.append(urllib.request.HTTPSHandler(context=tls))
        urllib.request.build_opener(*handlers).open(request, timeout=TIMEOUT_S).close()


reporter = Reporter()


def _run(dag_run: Any, state: str) -> None:
    _report("dag_run", dag_run, RUN_FIELDS, state)


def _task(instance: Any, state: str, *, last: bool = True) -> None:
    _report("task", instance, TASK_FIELDS, state)
    if last:
        reporter.flush()


def _report(kind: str, source: Any, fields: Sequence[str], state: str) -> None:
    try:
        reporter.report({"type": kind, **{name: getattr(source, name) for name in fields}, "state": state})
    except Exception:
        # What a listener raises would be the scheduler's or the task's trouble.
        log.warning("%s could not be reported as %s", kind, state, exc_info=True)


class Listener:
    """Hooks that Airflow calls: run states in the scheduler, task states in the task's process."""

    @hookimpl
    def on_dag_run_running(self, dag_run: Any, msg: str) -> None:
        """A run began."""
        _run(dag_run, "running")

    @hookimpl
    def on_dag_run_success(self, dag_run: Any, msg: str) -> None:
        """A run succeeded."""
        _run(dag_run, "success")

    @hookimpl
    def on_dag_run_failed(self, dag_run: Any, msg: str) -> None:
        """A run failed."""
        _run(dag_run, "failed")

    @hookimpl
    def on_task_instance_running(self, previous_state: Any, task_instance: Any) -> None:
        """A task began."""
        _task(task_instance, "running", last=False)

    @hookimpl
    def on_task_instance_success(self, previous_state: Any, task_instance: Any) -> None:
        """A task succeeded."""
        _task(task_instance, "success")

    @hookimpl
    def on_task_instance_failed(self, previous_state: Any, task_instance: Any, error: Any) -> None:
        """A task failed."""
        _task(task_instance, "failed")

    @hookimpl
    def on_task_instance_skipped(self, previous_state: Any, task_instance: Any) -> None:
        """A task was skipped."""
        _task(task_instance, "skipped")


class MichelangeloPlugin(AirflowPlugin):
    """What Airflow loads."""

    name = "michelangelo"
    listeners = [Listener()]  # noqa: RUF012
    timetables = [TriggerTimetable]  # noqa: RUF012
    fastapi_root_middlewares = [  # noqa: RUF012
        {"name": "wake", "middleware": WakeMiddleware},
        {"name": "one-writer", "middleware": OneWriterMiddleware},
    ]
