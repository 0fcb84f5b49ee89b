"""No acknowledged write is lost when the writing process is killed in the middle of it (guarantee G1)."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.robustness.lanes import lanes
from tests.robustness.results import told
from tests.robustness.stores import Place

ROOT = Path(__file__).resolve().parents[2]
LONGEST_S = 900


def crash_loop(url: str, kills: int, seed: int) -> dict[str, Any]:
    """Run the loop in a process of its own, which forks and so must not have threads."""
    ran = subprocess.run(
        [sys.executable, "-m", "tests.robustness.crash_loop", url, str(kills), str(seed)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=LONGEST_S,
        check=False,
    )
    assert ran.stdout, ran.stderr[-2000:]
    report: dict[str, Any] = json.loads(ran.stdout)
    return report


SIZES = {"SQLite": (200, 1_000), "PostgreSQL": (25, 300), "etcd": (25, 300)}


@pytest.mark.parametrize("lane", lanes(p=0, c=1))
def test_every_acknowledged_write_is_there_after_kill_9(any_place: Place, lane: int) -> None:
    kills = SIZES[any_place.name][lane]
    # A file of its own for every few lives: to read a long log again and again takes longer than all else.
    report = crash_loop(any_place.url.replace("store.db", "store-{}.db"), kills, seed=kills)
    figures = f"{report['acknowledged']:,} acknowledged, {report['open']:,} open with effect, {report['seconds']:.0f} s"
    told(
        "G1",
        "acknowledged writes survive kill -9 of the writer",
        store=any_place.name,
        trials=report["kills"],
        failed=len(report["faults"]),
        figures=figures,
    )
    assert report["faults"] == []
    assert report["kills"] == kills
    assert report["acknowledged"] > kills
    assert report["open"], "some kill must hit between the commit and its answer, or the loop kills too gently"
