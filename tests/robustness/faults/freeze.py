"""A process that stands still: the kernel's SIGSTOP, as a long collection of garbage or a paused machine looks."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator


@contextlib.contextmanager
def frozen(pid: int) -> Iterator[None]:
    """Stop a process while the block runs."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def pause(pid: int, seconds: float) -> None:
    """Stop a process for some seconds."""
    with frozen(pid):
        time.sleep(seconds)
