"""A user's code in the Airflow task's own process: what it may see, and how its work ends.  Starts no job.

A second process would cost a step a third of a second; what it would keep apart is kept apart here.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator

import psutil

GRACE_S = 0.5
EXIT = 143


class TaskProcess:
    """The process of one task."""

    def __init__(self) -> None:
        self._working = False

    @property
    def is_working(self) -> bool:
        """Whether a user's code runs in it now."""
        return self._working

    @contextlib.contextmanager
    def working(self) -> Iterator[None]:
        """Run a user's code inside: without the platform's token and Airflow's settings, which hold its keys."""
        hidden = {name: os.environ.pop(name) for name in list(os.environ) if is_hidden(name)}
        self._working = True
        try:
            yield
        finally:
            self._working = False
            os.environ.update(hidden)

    def end(self) -> None:
        """End what the code started; and, from the signal that kills the task, this process with the code in it.

        A time limit comes here too, after the code was left by an exception: then the process goes on to report it.
        """
        stop_children()
        if self._working:
            os._exit(EXIT)


def is_hidden(variable: str) -> bool:
    """Whether a variable of the environment is not for a user's code."""
    return variable == "MA_TOKEN" or variable.startswith("AIRFLOW__")


def stop_children() -> None:
    """Stop every process that this one started, and what those started."""
    children = psutil.Process().children(recursive=True)
    for child in children:
        _send(child, signal.SIGTERM)
    _, alive = psutil.wait_procs(children, timeout=GRACE_S)
    for child in alive:
        _send(child, signal.SIGKILL)


def _send(process: psutil.Process, number: signal.Signals) -> None:
    with contextlib.suppress(psutil.Error):
        process.send_signal(number)
