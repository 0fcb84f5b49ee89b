"""Ten steps one after the other, each of which adds one: as a pipeline of ours and as a flow of Metaflow."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import venv
from collections.abc import Sequence
from pathlib import Path

from benchmarks.systems.processes import ROOT

METAFLOW = "metaflow==2.19.39"
COUNT = 10
OURS = """
from operators import pipeline, task


@task
def add(x: int) -> int:
    return x + 1


@pipeline
def ten(x: int = 0):
    for _ in range(10):
        x = add(x)
    return x


if __name__ == "__main__":
    assert ten.run() == 10
"""
HEAD = """
from metaflow import FlowSpec, step


class Ten(FlowSpec):
    @step
    def start(self):
        self.x = 1
        self.next(self.s2)
"""
MIDDLE = """
    @step
    def {name}(self):
        self.x += 1
        self.next(self.{following})
"""
TAIL = """
    @step
    def end(self):
        self.x += 1
        assert self.x == 10


if __name__ == "__main__":
    Ten()
"""


def write(folder: Path) -> tuple[Path, Path]:
    """Write both and return their files."""
    ours, peer = folder / "ten_ours.py", folder / "ten_metaflow.py"
    ours.write_text(OURS)
    names = [f"s{number}" for number in range(2, COUNT)]
    steps = [MIDDLE.format(name=name, following=after) for name, after in zip(names, [*names[1:], "end"], strict=True)]
    peer.write_text(HEAD + "".join(steps) + TAIL)
    return ours, peer


def with_metaflow(folder: Path) -> Path:
    """Return a Python that has Metaflow, installed into an environment of its own."""
    venv.create(folder / "metaflow", with_pip=True)
    python = folder / "metaflow" / "bin" / "python"
    subprocess.run([python, "-m", "pip", "install", "--quiet", METAFLOW], check=True, capture_output=True)
    return python


def timed(command: Sequence[str | Path], folder: Path) -> float:
    """Run a command to its end and return its seconds.  Raises CalledProcessError."""
    quiet = {"USERNAME": "bench", "METAFLOW_HOME": str(folder / "config"), "PYTHONPATH": str(ROOT)}
    begun = time.perf_counter()
    subprocess.run(command, cwd=folder, env={**os.environ, **quiet}, check=True, capture_output=True)
    return time.perf_counter() - begun


def in_this_process(file: Path) -> float:
    """Run ours once in this process and return its seconds."""
    if str(file.parent) not in sys.path:
        sys.path.insert(0, str(file.parent))
    import importlib

    ten = importlib.import_module(file.stem).ten
    begun = time.perf_counter()
    found = ten.run()
    took = time.perf_counter() - begun
    if found != COUNT:
        raise ValueError(f"ten steps returned {found}")
    return took
