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
from collections.abc import Callable, Iterator

from benchmarks.measuring.figures import Figure
from benchmarks.measuring.results import Measured
from benchmarks.measuring.rounds import interleaved
from benchmarks.systems import platform, stock_airflow
from benchmarks.systems.standing import Processes, Window, window
from benchmarks.workbench import Workbench

TITLE = "Standing by: the whole platform, and Airflow alone"
PEER = "stock Airflow, four components with default settings"
VISITS = 2
WINDOWS = 3
SETTLE_S = 45.0


def measure(bench: Workbench) -> Measured:
    """Return the figures."""
    windows = bench.rounds_or(WINDOWS)

    def visit(side: Callable[[Workbench], contextlib.AbstractContextManager[Processes]]) -> list[Window]:
        with side(bench) as processes:
            time.sleep(min(SETTLE_S, bench.window_s))
            return [window(processes, bench.window_s) for _ in range(windows)]

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
            "Our scheduler waits to be woken; by itself it looks for work after a hundredth of the time that there was "
            "none, between 0.1 and 1 s. A stock one looks every second.",
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
