"""An event loop whose time jumps, and processes on it that can be frozen and killed.  No thread, no clock, no chance.

A process is a context: every callback that its tasks cause belongs to it.  A frozen process does nothing, its timers
neither, while time goes on for all others; a killed one never does anything again, not even what stands in `finally`.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import heapq
import random
import selectors
import time
import uuid
from collections.abc import Callable, Iterator
from datetime import datetime, tzinfo
from typing import Any
from unittest import mock

from google.protobuf.internal import well_known_types

EPOCH_S = 1_800_000_000.0
WHO: contextvars.ContextVar[Process | None] = contextvars.ContextVar("who", default=None)


class Stuck(AssertionError):
    """Nothing will ever happen again."""


class Dead(Exception):
    """A killed process reached for the world."""


class Process:
    """One process.  `name` is for the trace."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.frozen = False
        self.dead = False
        self.over = False
        self.tasks: list[asyncio.Task[Any]] = []
        self.held: list[asyncio.Handle] = []

    def task(self, loop: asyncio.AbstractEventLoop, work: Any) -> asyncio.Task[Any]:
        """Start a task that belongs to this process."""
        context = contextvars.copy_context()
        context.run(WHO.set, self)
        self.tasks.append(context.run(loop.create_task, work))
        return self.tasks[-1]


class _Now(selectors.DefaultSelector):
    """Waits for nobody: tells the loop how long it would have."""

    jump: Callable[[float | None], None]

    def select(self, timeout: float | None = None) -> list[Any]:
        if timeout is None or timeout > 0:
            self.jump(timeout)
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    """Time begins at 0.  What is given to a thread is done at once; its result arrives a moment later."""

    def __init__(self, rng: random.Random) -> None:
        selector = _Now()
        super().__init__(selector)
        selector.jump = self._jump
        self._rng = rng
        self._at = 0.0
        self._outside = contextvars.Context()
        self.set_exception_handler(lambda *_: None)

    def time(self) -> float:
        return self._at

    def _jump(self, timeout: float | None) -> None:
        if timeout is None:
            raise Stuck("nobody waits for anything that will happen")
        self._at += timeout

    def _write_to_self(self) -> None:
        pass

    def _call_soon(self, callback: Any, args: Any, context: Any) -> Any:
        handle = _Handle(callback, args, self, context)
        self._ready.append(handle)  # type: ignore[attr-defined]
        return handle

    def call_at(self, when: float, callback: Any, *args: Any, context: Any = None) -> Any:  # type: ignore[override]
        timer = _Timer(when, callback, args, self, context)
        heapq.heappush(self._scheduled, timer)  # type: ignore[attr-defined]
        timer._scheduled = True  # type: ignore[attr-defined]
        return timer

    def call_soon_threadsafe(self, callback: Any, *args: Any, context: Any = None) -> Any:  # type: ignore[override]
        """What a thread tells the loop belongs to no process that may freeze."""
        return self.call_soon(callback, *args, context=self._outside)

    def run_in_executor(self, executor: Any, func: Any, *args: Any) -> Any:  # type: ignore[override]
        future: asyncio.Future[Any] = self.create_future()
        try:
            result, error = func(*args), None
        except Exception as raised:
            result, error = None, raised
        self.call_later(self._rng.uniform(0.0005, 0.01), deliver, future, result, error, context=self._outside)
        return future

    def outside(self, delay_s: float, callback: Callable[[], object]) -> None:
        """Call back later, whoever lives then."""
        self.call_later(delay_s, callback, context=self._outside)

    def thaw(self, process: Process) -> None:
        """Let a frozen process go on: what was due meanwhile is done now, in any order."""
        process.frozen = False
        self._rng.shuffle(process.held)
        self._ready.extend(process.held)  # type: ignore[attr-defined]
        process.held = []

    async def bury(self, process: Process) -> None:
        """Let go of what a process holds, without it reaching anything any more."""
        process.dead = process.over = True
        self.thaw(process)
        for task in process.tasks:
            task.cancel()
        await asyncio.gather(*process.tasks, return_exceptions=True)


def deliver(future: asyncio.Future[Any], result: Any, error: Exception | None) -> None:
    """Give a future its result or its error, unless it has one or nobody waits any more."""
    if future.done():
        return
    if error is not None:
        future.set_exception(error)
    else:
        future.set_result(result)


class _Held:
    _context: Any

    def _run(self) -> None:
        who = self._context.get(WHO)
        if who is not None and not who.over and (who.frozen or who.dead):
            who.held.append(self)
        else:
            super()._run()  # type: ignore[misc]


class _Handle(_Held, asyncio.Handle):
    pass


class _Timer(_Held, asyncio.TimerHandle):
    pass


class _Datetime(datetime):
    @classmethod
    def now(cls, tz: tzinfo | None = None) -> datetime:  # type: ignore[override]
        return datetime.fromtimestamp(time.time(), tz)


def _stamp(self: Any) -> None:
    self.FromNanoseconds(time.time_ns())


@contextlib.contextmanager
def virtual_time(loop: VirtualLoop, rng: random.Random, *modules: Any) -> Iterator[None]:
    """Replace the clocks and the uids of this process by the loop's time and by chance of the seed.

    modules: those that read the time of day as `datetime.now`.
    """
    fakes: list[tuple[Any, str, Any]] = [
        (time, "monotonic", loop.time),
        (time, "time", lambda: EPOCH_S + loop.time()),
        (time, "time_ns", lambda: int((EPOCH_S + loop.time()) * 1_000_000) * 1_000),
        (uuid, "uuid4", lambda: uuid.UUID(int=rng.getrandbits(128), version=4)),
        (well_known_types.Timestamp, "GetCurrentTime", _stamp),
        *((module, "datetime", _Datetime) for module in modules),
    ]
    with contextlib.ExitStack() as stack:
        for owner, name, fake in fakes:
            stack.enter_context(mock.patch.object(owner, name, fake))
        yield
