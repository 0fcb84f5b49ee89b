"""How long tests wait for what is promised within a time: they run beside others, on machines that may be slower."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

SLOWER = 5.0
# For what comes in the end and has no promised time: a machine with three times as many processes as cores, whose disk
# others use too, may stand still for seconds.
PATIENCE_S = 60.0
# The term of a leader where no other is to take over: the disk may hold its renewal for longer than 15 s.
TERM_S = 120.0


def soon(promised_s: float) -> float:
    """Return the limit for what takes at most `promised_s` seconds on an idle machine."""
    return SLOWER * promised_s


async def eventually(look: Callable[[], Awaitable[T]], holds: Callable[[T], bool], timeout_s: float = PATIENCE_S) -> T:
    """Look again and again, and return what is as asked.

    In the end it fails, and says whether the whole event loop stood still or something on it.
    """
    began = looked = time.monotonic()
    count, longest_s = 0, 0.0
    while not holds(last := await look()):
        now = time.monotonic()
        count, longest_s, looked = count + 1, max(longest_s, now - looked), now
        slow = f"{count} looks, {longest_s:.2f} s between two at most"
        assert now - began < timeout_s, f"still {last}\n{slow}\n{under_way()}"
        await asyncio.sleep(0.01)
    return last


def under_way() -> str:
    """Return where every task of the event loop stands, for a test that waited in vain."""
    lines = []
    for task in asyncio.all_tasks():
        at = [f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno}" for frame in task.get_stack()]
        lines.append(f"{task.get_coro()}: {' '.join(at)}")
    return "\n".join(sorted(lines))
