"""What a side uses while nothing is asked of it: a window of time over all its processes.  Starts and stops nothing."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import psutil

from benchmarks.systems.processes import Usage, usage

SCHEDULER = "scheduler"

Processes = Callable[[], Mapping[str, list[psutil.Process]]]
"""The processes of a side by component."""


@dataclass(frozen=True)
class Window:
    """One window of one side: percent of one core, mebibytes, and the scheduler's part of the CPU time."""

    cpu_percent: float
    scheduler_percent: float
    memory_mib: float


def window(processes: Processes, window_s: float) -> Window:
    """Return what was used in the next `window_s` seconds."""
    begun, before = time.monotonic(), _used(processes)
    time.sleep(window_s)
    after = _used(processes)
    elapsed_s = time.monotonic() - begun

    def percent(names: Mapping[str, Usage]) -> float:
        return sum(after[name].cpu_s - before[name].cpu_s for name in names) / elapsed_s * 100

    memory = sum(part.memory_mib for part in after.values())
    return Window(percent(after), percent({SCHEDULER: after[SCHEDULER]}), memory)


def _used(processes: Processes) -> dict[str, Usage]:
    return {name: usage(found) for name, found in processes().items()}
