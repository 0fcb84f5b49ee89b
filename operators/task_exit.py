"""Waits for a task's process as Airflow does, and sees its end at once: `sdk.coordinators` of the embedded Airflow.

Airflow's supervisor waits for the sockets of the process.  Where they close a moment before the process is gone, it
waits for a whole `workers.min_heartbeat_interval` more, and a place of the executor with it.  Here the process itself
is waited for too, and it does not outlive a worker that was killed (docs/adr/0007).
"""

from __future__ import annotations

import ctypes
import os
import selectors
import signal
import time
from collections.abc import Callable
from os import PathLike
from typing import Any

from airflow.sdk.execution_time.coordinator import BaseCoordinator
from airflow.sdk.execution_time.supervisor import ActivitySubprocess

PR_SET_PDEATHSIG = 1
"""Source: prctl(2)."""


class TaskCoordinator(BaseCoordinator):
    """Runs Python tasks."""

    def execute_task(
        self, *, what: Any, dag_rel_path: str | PathLike[str], bundle_info: Any, client: Any, **kwargs: Any
    ) -> BaseCoordinator.ExecutionResult:
        """Start a task's process and wait for its end."""
        process = ActivitySubprocess.start(
            what=what,
            dag_rel_path=dag_rel_path,
            bundle_info=bundle_info,
            client=client,
            target=bound(kwargs.pop("target", task_main)),
            **kwargs,
        )
        # That it began has just been told: a heartbeat at once would say the same.
        process._last_heartbeat_attempt = time.monotonic()
        end = ProcessEnd(process.pid)
        try:
            process.selector.register(end, selectors.EVENT_READ, (_no_more, process.selector.unregister))
            return self.ExecutionResult(process.wait(), process.final_state)
        finally:
            end.close()


def task_main() -> None:
    """Run the task that the supervisor tells of."""
    from airflow.sdk.execution_time.task_runner import main

    main()  # type: ignore[no-untyped-call]


def bound(target: Callable[[], None]) -> Callable[[], None]:
    """Return `target` as one that is told to end when the worker that supervises it dies: nobody else would tell it."""
    worker = os.getpid()

    def run() -> None:
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
        if os.getppid() == worker:
            target()

    return run


class ProcessEnd:
    """Becomes readable when a child has ended.  Airflow's supervisor closes what it has read to the end."""

    def __init__(self, pid: int) -> None:
        self._descriptor = os.pidfd_open(pid)

    def fileno(self) -> int:
        """Return the descriptor, -1 once it is closed."""
        return self._descriptor

    def close(self) -> None:
        """Close it, if it is open."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
        self._descriptor = -1


def _no_more(_: ProcessEnd) -> bool:
    """Tell the supervisor that nothing more is to be read."""
    return False
