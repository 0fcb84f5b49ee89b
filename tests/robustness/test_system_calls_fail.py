"""A system call that fails, or is the process's last, loses no acknowledged write (guarantee G1)."""

from __future__ import annotations

import asyncio
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from api.errors import ApiError
from tests.robustness.crash_loop import Known, compare, hear, left
from tests.robustness.faults import strace_inject
from tests.robustness.lanes import lanes
from tests.robustness.results import told

ROOT = Path(__file__).resolve().parents[2]


def run(path: Path, fault: str, when: int) -> list[str]:
    """Run a writer until it ends or dies; returns what it told."""
    files = [path, path.with_name(path.name + "-wal")]
    program = [sys.executable, "-m", "tests.robustness.faults.some_writes", f"sqlite:///{path}"]
    ran = subprocess.run(
        strace_inject.command(fault, when, files, program),
        cwd=ROOT,
        env={**os.environ},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    # The last line may have been cut.
    lines = ran.stdout.split("\n")[:-1]
    assert lines or "SIGKILL" in fault or ran.stderr, "the writer said nothing"
    return lines


@pytest.mark.skipif(not strace_inject.available(), reason="strace is not installed")
@pytest.mark.parametrize("points", lanes(p=4, c=1_000))
def test_every_acknowledged_write_is_there_after_a_system_call_failed(tmp_path: Path, points: int) -> None:
    pick, faults, began = random.Random(points), list[str](), time.monotonic()
    acknowledged = effects = fired = 0
    for number in range(points):
        fault = strace_inject.FAULTS[number % len(strace_inject.FAULTS)]
        path = tmp_path / f"{number}.db"
        known: dict[str, Known] = {}
        lines = run(path, fault, pick.randint(1, 40))
        fired += any(line.startswith("!") for line in lines) or not lines or lines[-1] != "."
        acknowledged += hear([line for line in lines if line[:1] in "?="], known)
        try:
            found, contradictions = asyncio.run(left(f"sqlite:///{path}"))
        except ApiError as error:
            faults.append(f"{fault}: the store does not open: {error.message}")
            continue
        lost, some = compare(known, found)
        faults += [f"{fault}: {text}" for text in contradictions + lost]
        effects += some
        for left_over in tmp_path.glob(f"{number}.db*"):
            left_over.unlink()
    told(
        "G1",
        "acknowledged writes survive failed system calls",
        store="SQLite",
        trials=points,
        failed=len(faults),
        figures=f"{fired} faults struck, {acknowledged:,} acknowledged, {effects} open with effect, "
        f"{time.monotonic() - began:.0f} s",
    )
    assert faults == []
    assert fired, "no fault was injected"
