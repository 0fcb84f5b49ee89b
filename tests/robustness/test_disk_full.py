"""A full disk: writes say so, reads and deletes go on, nothing breaks, and space is all it takes (guarantee G20)."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.robustness.faults.fulldisk import namespace
from tests.robustness.lanes import lanes
from tests.robustness.results import told

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.skipif(
    namespace() is None, reason="a small volume needs a namespace of mounts, which this user may not make"
)
@pytest.mark.parametrize("points", lanes(p=20, c=100))
def test_a_full_disk_refuses_writes_and_nothing_else(tmp_path: Path, points: int) -> None:
    began, alone = time.monotonic(), namespace()
    assert alone is not None
    program = [
        sys.executable,
        "-m",
        "tests.robustness.full_disk_loop",
        str(tmp_path / "volume"),
        str(points),
        str(points),
    ]
    ran = subprocess.run([*alone, *program], cwd=ROOT, capture_output=True, text=True, check=False)
    *faults, last = ran.stdout.splitlines() or [""]
    told(
        "G20",
        "a full disk refuses writes by name; reads, a delete and the lease go on",
        store="SQLite",
        trials=points,
        failed=len(faults),
        figures=f"{time.monotonic() - began:.0f} s",
    )
    assert faults == []
    assert (ran.returncode, last) == (0, "done"), ran.stderr
