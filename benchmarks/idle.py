"""What it costs to stand by: CPU time and memory of everything that runs while nothing is asked for.

Ours: the whole platform of `ma up`, six components and their supervisor.
Peer: stock Airflow, four components with default settings, in a home of its own.  It has no API of ours, serves no
predictions and keeps no features; it is what a user of Airflow runs anyway.
Command: `python -m benchmarks idle [--window-s 60]`

The two never run at the same time: memory that both map would count half for each.  Memory is PSS, so that pages that
the processes of one side share count once.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import psutil

from benchmarks.measuring.figures import Figure
from benchmarks.measuring.results import Measured
from benchmarks.measuring.rounds import interleaved
from benchmarks.systems import platform, stock_airflow
from benchmarks.systems.processes import Usage, usage
from benchmarks.workbench import Workbench

TITLE = "Standing by: the whole platform, and Airflow alone"
PEER = "stock Airflow, four components with default settings"
VISITS = 2
WINDOWS = 3
SETTLE_S = 45.0
SCHEDULER = "scheduler"

Processes = Callable[[], Mapping[str, list[psutil.Process]]]


@dataclass(frozen=True)
class Window:
    """One window of one side: percent of one core, mebibytes, and the scheduler's part of the CPU time."""

    cpu_percent: float
    scheduler_percent: float
    memory_mib: float


def measure(bench: Workbench) -> Measured:
    """Return the figures."""
    windows = bench.rounds_or(WINDOWS)

    def visit(side: Callable[[Workbench], contextlib.AbstractContextManager[Processes]]) -> list[Window]:
        with side(bench) as processes:
            time.sleep(min(SETTLE_S, bench.window_s))
            return [_window(processes, bench.window_s) for _ in range(windows)]

    our_visits, peer_visits = interleaved(VISITS, lambda: visit(_ours), lambda: visit(_peer))
    ours = [window for visited in our_visits for window in visited]
    peer = [window for visited in peer_visits for window in visited]

    def both(name: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
        return tuple(getattr(one, name) for one in ours), tuple(getattr(one, name) for one in peer)

    return Measured(
        [
            Figure("CPU, percent of one core", "%", *both("cpu_percent")),
            Figure("  of that the scheduler", "%", *both("scheduler_percent")),
            Figure("memory (PSS)", "MiB", *both("memory_mib")),
        ],
        [
            f"A round is {bench.window_s:g} s; each side is started {VISITS} times, in turns, and first left alone "
            f"for {min(SETTLE_S, bench.window_s):g} s.",
            "Our scheduler looks for work every 0.1 s, a stock one every second.",
        ],
    )


@contextlib.contextmanager
def _ours(bench: Workbench) -> Iterator[Processes]:
    with platform.running(bench.new_home()) as config:
        yield lambda: platform.processes(config)


@contextlib.contextmanager
def _peer(bench: Workbench) -> Iterator[Processes]:
    with stock_airflow.running(bench.new_folder("airflow") / "home") as leaders:
        yield lambda: stock_airflow.processes(leaders)


def _window(processes: Processes, window_s: float) -> Window:
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
