"""How Airflow's scheduler is woken: a named pipe that the executor waits on and Airflow's API server writes to.

The scheduler looks for work again and again and sleeps in between.  What makes work for it comes by the API server: a
run that is created, a task that ended, a change by hand.  So the server says so.  A byte that is lost costs a moment,
no work: the scheduler looks all the same.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Awaitable, Callable, MutableMapping
from pathlib import Path
from typing import Any

from api.config import load

NAME = "scheduler.wake"
READS = ("GET", "HEAD", "OPTIONS")
ENDS = "/state"
"""How the path ends by which a task's process tells how the task ended."""
ENOUGH = 65536

Scope = MutableMapping[str, Any]
App = Callable[[Scope, Any, Any], Awaitable[None]]


def place() -> Path:
    """Return where the pipe of this platform is."""
    return load().run_path / NAME


def listen(path: Path) -> int:
    """Make the pipe if there is none, and return a descriptor that can be read when somebody rang."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(FileExistsError):
        os.mkfifo(path, 0o600)
    # Open for writing too: a pipe that nobody writes to any more would be at its end for ever.
    return os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)


def heard(descriptor: int) -> bool:
    """Take what was rung since the last time; False if nobody did."""
    try:
        return bool(os.read(descriptor, ENOUGH))
    except BlockingIOError:
        return False


def ring(path: Path) -> bool:
    """Wake whoever listens; False if nobody does, or it has been rung often enough."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        return os.write(descriptor, b".") == 1
    except OSError:
        return False
    finally:
        os.close(descriptor)


class WakeMiddleware:
    """Rings after each request to Airflow's API server that may have made work; answers none itself."""

    def __init__(self, app: App) -> None:
        self._app = app
        self._path = place()

    async def __call__(self, scope: Scope, receive: Any, send: Any) -> None:
        """Let the request through, and ring when its changes are written."""
        try:
            await self._app(scope, receive, send)
        finally:
            if makes_work(scope):
                ring(self._path)


def makes_work(scope: Scope) -> bool:
    """Whether a request may have made work for the scheduler: a task that ended, or a change by a user."""
    if scope["type"] != "http" or scope["method"] in READS:
        return False
    path = str(scope["path"])
    return path.endswith(ENDS) if path.startswith("/execution/") else path.startswith("/api/")
