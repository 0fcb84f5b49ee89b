"""The processes of a job: found by a mark in their environment, in whatever session they are.  Knows no results.

A program's children may leave its process group and its session (Ray's do); the mark goes with them all the same.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable

import psutil

MARK = "MA_JOB"
LOOK_S = 0.02
KILL_S = 2.0


def marked(mark: str) -> list[psutil.Process]:
    """Return the living processes that carry `mark`."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.environ().get(MARK) == mark and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def stop(processes: Callable[[], list[psutil.Process]], grace_s: float) -> None:
    """Ask processes to end, and kill those that have not after `grace_s`, with what they started meanwhile.

    One that ends loses its environment before it is gone, and with it the mark: who was seen once is waited for.
    They are asked in the order in which `processes` names them.
    """
    seen: dict[psutil.Process, None] = {}

    def left() -> list[psutil.Process]:
        seen.update(dict.fromkeys(processes()))
        return [process for process in seen if _lives(process)]

    _send(left(), signal.SIGTERM)
    deadline = time.monotonic() + grace_s
    while left() and time.monotonic() < deadline:
        time.sleep(LOOK_S)
    deadline = time.monotonic() + KILL_S
    while (stubborn := left()) and time.monotonic() < deadline:
        _send(stubborn, signal.SIGKILL)
        time.sleep(LOOK_S)


def _lives(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _send(processes: list[psutil.Process], number: signal.Signals) -> None:
    for process in processes:
        # psutil compares the start time first: a pid that was recycled meanwhile gets no signal.
        with contextlib.suppress(psutil.Error):
            process.send_signal(number)


def living(pid: int, started: float) -> psutil.Process | None:
    """Return the process `pid` if it lives and is the one that began at `started` (seconds since 1970)."""
    try:
        process = psutil.Process(pid)
        same = abs(process.create_time() - started) < 0.05
        return process if same and process.status() != psutil.STATUS_ZOMBIE else None
    except psutil.Error:
        return None


def session(pid: int) -> list[psutil.Process]:
    """Return the living processes of the session that `pid` leads."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if os.getsid(process.pid) == pid and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found
