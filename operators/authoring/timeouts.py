"""Ends a task that takes too long: by an alarm in the main thread, as Airflow does.  Never while somebody debugs."""

from __future__ import annotations

import contextlib
import ctypes
import signal
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any


class TaskTimeout(Exception):
    """A task took longer than its time limit."""


@contextlib.contextmanager
def limited(timeout_s: float | None, what: str) -> Iterator[None]:
    """Raise TaskTimeout in the block after so many seconds; None never does.

    Elsewhere than in the main thread a call into C is only left when it returns.
    """
    if timeout_s is None:
        yield
    elif threading.current_thread() is threading.main_thread():
        with _alarm(timeout_s, what):
            yield
    else:
        with _watched(timeout_s, what):
            yield


@contextlib.contextmanager
def _alarm(timeout_s: float, what: str) -> Iterator[None]:
    def ring(number: int, frame: FrameType | None) -> None:
        if _is_debugged(frame):
            signal.setitimer(signal.ITIMER_REAL, timeout_s)
            return
        raise TaskTimeout(_told(timeout_s, what))

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, timeout_s)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@contextlib.contextmanager
def _watched(timeout_s: float, what: str) -> Iterator[None]:
    thread, ended = threading.get_ident(), threading.Lock()
    rang = False

    def ring() -> None:
        nonlocal rang
        if ended.acquire(blocking=False):
            rang = True
            ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), ctypes.py_object(TaskTimeout))

    timer = threading.Timer(timeout_s, ring)
    timer.daemon = True
    timer.start()
    try:
        yield
    except TaskTimeout as error:
        # What is raised from outside is a class: it cannot carry a message.
        raise (TaskTimeout(_told(timeout_s, what)) if rang else error) from None
    finally:
        timer.cancel()
        ended.acquire(blocking=False)


def _told(timeout_s: float, what: str) -> str:
    return f"step {what!r} took longer than its timeout of {timeout_s:g} s"


def _is_debugged(frame: Any) -> bool:
    """Whether a debugger waits somewhere above: then time is the person's."""
    import sys

    bdb = sys.modules.get("bdb")
    while bdb is not None and frame is not None:
        if isinstance(frame.f_locals.get("self"), bdb.Bdb):
            return True
        frame = frame.f_back
    return False
