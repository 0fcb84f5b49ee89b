"""What it costs to run a pipeline of ten steps on a laptop, without a platform.

Ours: a script that calls `run()` of a pipeline; the command `ma pipeline test`; `run()` once more in one process.
Peer: Metaflow's local run of the same ten steps, `python flow.py run`, which starts a process for each step.
Command: `python -m benchmarks tryout`

Each step adds one to what the step before it returned.
"""

from __future__ import annotations

import sys
from pathlib import Path

from benchmarks.measuring.figures import Figure, Goal
from benchmarks.measuring.results import Measured
from benchmarks.measuring.rounds import interleaved
from benchmarks.systems import ten_steps
from benchmarks.workbench import Workbench

TITLE = "A pipeline of ten steps on a laptop"
PEER = "Metaflow's local run of the same steps"
ROUNDS = 10


def measure(bench: Workbench) -> Measured:
    """Return the figures."""
    folder = bench.new_folder("tryout")
    ours, peer = ten_steps.write(folder)
    metaflow = ten_steps.with_metaflow(folder)
    command: list[str | Path] = [Path(sys.executable).with_name("ma"), "pipeline", "test", ours]

    def script() -> float:
        return ten_steps.timed([sys.executable, ours], folder)

    def flow() -> float:
        return ten_steps.timed([metaflow, peer, "run"], folder)

    script(), flow()
    scripts, flows = interleaved(bench.rounds_or(ROUNDS), script, flow)
    commands = [ten_steps.timed(command, folder) for _ in scripts]
    warm = [ten_steps.in_this_process(ours) * 1000 for _ in [None, *scripts]][1:]
    return Measured(
        [
            Figure("script, start to end", "s", tuple(scripts), tuple(flows), goal=Goal("times", 20)),
            Figure("`ma pipeline test`", "s", tuple(commands), tuple(flows), goal=Goal("most", 0.6)),
            Figure("`run()` once more", "ms", tuple(warm), goal=Goal("most", 1000)),
        ],
        [
            "Metaflow runs each step in a process of its own; ours runs them in one, where a breakpoint stops them. "
            "Both store what each step returns.",
        ],
    )
