"""The machine under the figures: its cores and how busy it was.  Changes nothing on it."""

from __future__ import annotations

import os
import platform
import time
from dataclasses import dataclass
from pathlib import Path

import psutil

QUIET_LOAD = 1.0
"""More than this as load of the last minute, before a benchmark begins: its figures are only a check that it works."""
LONGEST_S = 300.0
LOOK_S = 5.0


@dataclass(frozen=True)
class Machine:
    """Where figures were measured."""

    cores: int
    processor: str
    memory_gib: float
    python: str
    kernel: str


def here() -> Machine:
    """Return this machine."""
    return Machine(
        cores=psutil.cpu_count() or 1,
        processor=_processor(),
        memory_gib=round(psutil.virtual_memory().total / 2**30, 1),
        python=platform.python_version(),
        kernel=platform.release(),
    )


def load() -> tuple[float, float, float]:
    """Return the load averages of 1, 5 and 15 minutes."""
    return os.getloadavg()


def settle() -> None:
    """Wait until the load of the benchmark before has faded, `LONGEST_S` at most: one that stays is somebody else's."""
    deadline = time.monotonic() + LONGEST_S
    while load()[0] > QUIET_LOAD and time.monotonic() < deadline:
        time.sleep(LOOK_S)


def _processor() -> str:
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.is_file() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())
