"""Memory and CPU of a job while it lives, and what the kernel says of memory.  Reads /proc and cgroups; stops nobody.

One look costs less than 1 ms of CPU with what it writes; looks get rarer with time, at last one in two seconds.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil

MIB = 2**20
FIRST_PERIOD_S = 0.1
LONGEST_PERIOD_S = 2.0
MOST_POINTS = 96
FINE_POINTS = 32
UNLIMITED = 2**60
GROUPS = Path("/sys/fs/cgroup")


def tree(pid: int) -> list[int]:
    """Return a process and all that descend from it, as far as the kernel lists children."""
    found, left = [], [pid]
    while left:
        one = left.pop()
        found.append(one)
        with contextlib.suppress(OSError, ValueError):
            for thread in os.listdir(f"/proc/{one}/task"):
                left += map(int, Path(f"/proc/{one}/task/{thread}/children").read_text().split())
    return found


class Curve:
    """Looks at a process and its children.  Points are (seconds since it began, MiB resident, CPU seconds so far)."""

    def __init__(self, pid: int, path: Path | None = None) -> None:
        self._pid = pid
        self._path = path
        self._began = time.monotonic()
        self._points: list[tuple[float, float, float]] = []
        # A process that did something else before is not told of it, nor of what its children did.
        self._cpu = {one: _spent(one) for one in tree(pid)}
        self._spent = sum(self._cpu.values())
        self.peak_mib = 0.0
        self.period_s = FIRST_PERIOD_S

    def look(self) -> float:
        """Add a point and return the MiB that are in use; what is kept on disk survives a kill."""
        resident = 0.0
        for pid in tree(self._pid):
            with contextlib.suppress(psutil.Error, OSError):
                process = psutil.Process(pid)
                times = process.cpu_times()
                resident += process.memory_info().rss / MIB
                self._cpu[pid] = times.user + times.system
        if resident:
            self.peak_mib = max(self.peak_mib, resident)
            self._points.append((time.monotonic() - self._began, resident, sum(self._cpu.values())))
            self._thin()
            self._write()
        return resident

    def end(self, peak_mib: float, cpu_s: float) -> None:
        """Add what the kernel says of a process that has ended: a short one was gone before anybody looked."""
        self.peak_mib = max(self.peak_mib, peak_mib)
        if not self._points:
            self._points.append((time.monotonic() - self._began, peak_mib, cpu_s))
        self._write()

    def _thin(self) -> None:
        if len(self._points) > MOST_POINTS:
            self._points[:-FINE_POINTS] = self._points[:-FINE_POINTS:2]
            self.period_s = min(2 * self.period_s, LONGEST_PERIOD_S)

    def _write(self) -> None:
        if self._path is None:
            return
        # A disk that is full must not end the one who looks.
        with contextlib.suppress(OSError):
            temporary = self._path.with_name(f".{self._path.name}.{os.getpid()}")
            temporary.write_text(json.dumps({"peak_mib": round(self.peak_mib, 1), "points": list(self.rows())}))
            os.replace(temporary, self._path)

    def rows(self) -> Iterator[tuple[float, float, float]]:
        """Yield (seconds, MiB, per cent of one CPU since the row before)."""
        before = (0.0, 0.0, self._spent)
        for point in self._points:
            # The kernel counts in hundredths of a second: a look right after another would see a multiple of that.
            share = 100 * (point[2] - before[2]) / max(point[0] - before[0], FIRST_PERIOD_S)
            yield round(point[0], 2), round(point[1], 1), round(max(share, 0.0), 0)
            before = point


def _spent(pid: int) -> float:
    """Return the CPU seconds of a process so far, 0 if it is gone."""
    with contextlib.suppress(psutil.Error, OSError):
        times = psutil.Process(pid).cpu_times()
        return float(times.user + times.system)
    return 0.0


def memory_limit(declared_mib: int = 0) -> dict[str, Any]:
    """Return the smallest limit on this process's memory: {"mib", "set_by"}."""
    found = [(psutil.virtual_memory().total / MIB, "the machine")]
    if declared_mib:
        found.append((declared_mib, "the job"))
    soft, _ = resource.getrlimit(resource.RLIMIT_AS)
    if 0 <= soft < UNLIMITED:
        found.append((soft / MIB, "ulimit -v"))
    for path in _group_files("memory.max", "memory.limit_in_bytes"):
        with contextlib.suppress(OSError, ValueError):
            limit = int(path.read_text())
            if limit < UNLIMITED:
                found.append((limit / MIB, f"cgroup {path.name}"))
    mib, set_by = min(found)
    return {"mib": round(mib, 1), "set_by": set_by}


def oom_kills() -> dict[str, int]:
    """Return how often the kernel has killed for want of memory: in this process's cgroup, and on the machine."""
    found = {}
    for path in _group_files("memory.events", "memory.oom_control"):
        if (count := _counter(path, "oom_kill")) is not None:
            found["cgroup"] = count
            break
    if (count := _counter(Path("/proc/vmstat"), "oom_kill")) is not None:
        found["machine"] = count
    return found


def _counter(path: Path, name: str) -> int | None:
    with contextlib.suppress(OSError, ValueError):
        for line in path.read_text().splitlines():
            key, _, value = line.partition(" ")
            if key == name:
                return int(value)
    return None


def _group_files(second: str, first: str) -> Iterator[Path]:
    """Yield the files of this process's memory cgroup and of those above it: cgroup version 2 `second`, 1 `first`."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/cgroup").read_text().splitlines():
            _, controllers, name = line.split(":", 2)
            if controllers and "memory" not in controllers.split(","):
                continue
            base, file = (GROUPS / "memory", first) if controllers else (GROUPS, second)
            folder = base / name.lstrip("/")
            while True:
                if (folder / file).is_file():
                    yield folder / file
                if folder == base:
                    break
                folder = folder.parent
