"""How long tests wait for what is promised within a time: they run beside others, on machines that may be slower."""

from __future__ import annotations

import asyncio
from pathlib import Path

SLOWER = 5.0
# For what comes in the end and has no promised time: a machine with three times as many processes as cores, whose disk
# others use too, may stand still for seconds.
PATIENCE_S = 60.0


def soon(promised_s: float) -> float:
    """Return the limit for what takes at most `promised_s` seconds on an idle machine."""
    return SLOWER * promised_s


def under_way() -> str:
    """Return where every task of the event loop stands, for a test that waited in vain."""
    lines = []
    for task in asyncio.all_tasks():
        at = [f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno}" for frame in task.get_stack()]
        lines.append(f"{task.get_coro()}: {' '.join(at)}")
    return "\n".join(sorted(lines))
