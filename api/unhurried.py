"""Lets gRPC's own threads wait for the event loop's where it has no rest.

gRPC hands the loop's thread what it reads in steps, by threads that wake six times a call; each time the kernel stops
the loop for one that only brings it more to do, and a third of a busy server's time went into changing threads.  As
batch work (SCHED_BATCH, sched(7)) they run when the loop waits, and bring what has come until then at once.

A server that is not busy keeps them ordinary: where others use all cores they would wait for those, too, and a call
that takes half a millisecond took two.  Elsewhere than on Linux nothing is done.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import threading
import time
from collections.abc import AsyncIterator

# How often the loop's share of a core is looked at, and from which on it is busy, and until which it stays so.
LOOK_S = 0.25
BUSY = 0.5
CALM = 0.3
THREADS = "/proc/self/task"
# Python's part of gRPC has one thread, which hands on what the others did.
POLLER = "_poll_wrapper"

log = logging.getLogger(__name__)


class Unhurried:
    """The threads of this process that Python did not start, and the one of gRPC that it did."""

    def __init__(self) -> None:
        self.busy = False

    def follow(self, share: float) -> None:
        """Set how they are scheduled.  share: the part of the time in which the loop's thread ran.  Raises OSError."""
        before, self.busy = self.busy, share >= (CALM if self.busy else BUSY)
        if self.busy or before:
            self._schedule(os.SCHED_BATCH if self.busy else os.SCHED_OTHER)

    def _schedule(self, policy: int) -> None:
        ours = {thread.native_id for thread in threading.enumerate() if POLLER not in thread.name}
        for thread in {int(name) for name in os.listdir(THREADS)} - ours:
            with contextlib.suppress(ProcessLookupError):
                if os.sched_getscheduler(thread) != policy:
                    os.sched_setscheduler(thread, policy, os.sched_param(0))


async def _follow() -> None:
    found = Unhurried()
    try:
        # Whoever gave the whole process another policy knows better.
        while os.sched_getscheduler(0) == os.SCHED_OTHER:
            began_s, ran_s = time.monotonic(), time.thread_time()
            await asyncio.sleep(LOOK_S)
            found.follow((time.thread_time() - ran_s) / (time.monotonic() - began_s))
    except OSError as error:
        log.info("the threads of gRPC stay as they are: %s", error)


@contextlib.asynccontextmanager
async def unhurried() -> AsyncIterator[None]:
    """Follow how busy the running loop is, until the end."""
    task = asyncio.create_task(_follow()) if hasattr(os, "sched_setscheduler") else None
    try:
        yield
    finally:
        if task is not None:
            task.cancel()
            await asyncio.wait([task])
