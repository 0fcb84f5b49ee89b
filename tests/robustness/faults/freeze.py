"""A process that stands still: the kernel's SIGSTOP, as a long collection of garbage or a paused machine looks."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

STOPPED_S = 30.0


def stopped(thread: Path) -> bool:
    """Whether a thread stands still, or is gone.  `thread`: its folder below /proc."""
    try:
        return (thread / "stat").read_text().rpartition(")")[2].split()[0] in "TtZX"
    except FileNotFoundError:
        return True


@contextlib.contextmanager
def frozen(pid: int) -> Iterator[None]:
    """Stop a process while the block runs.

    The signal waits for one of its threads to take it, and until then the others work on: on a busy machine for long.
    """
    os.kill(pid, signal.SIGSTOP)
    try:
        deadline = time.monotonic() + STOPPED_S
        while not all(stopped(thread) for thread in Path(f"/proc/{pid}/task").iterdir()):
            assert time.monotonic() < deadline, "a process does not stop"
            time.sleep(0.001)
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def pause(pid: int, seconds: float) -> None:
    """Stop a process for some seconds."""
    with frozen(pid):
        time.sleep(seconds)
