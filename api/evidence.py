"""What a job left in its folder, read as one value: how it began, its curve, how it ended, what it last printed.

Knows the names of the files and no more: `operators.jobs` writes them.  One that is missing or half-written is as none.
"""

from __future__ import annotations

import json
import os
import re
import sysconfig
from pathlib import Path
from typing import Any

BEGAN = "began.json"
CURVE = "curve.json"
ENDED = "ended.json"
RESULT = "result.json"
EXCEPTION = "exception.json"
LOG = "log"
PENDING = "pending.json"
"""What a job of a cluster waits for: reason and message, empty once it has begun."""
ENVIRONMENTS = ".environments"

MOST_LINES = 20
LONGEST_LINE = 200
MOST_POINTS = 40
READ_BYTES = 64 * 1024

PLATFORM = Path(__file__).resolve().parents[1]
OURS = tuple(str(PLATFORM / name) + os.sep for name in ("api", "operators", "serving", "plugins", "dags"))
INSTALLED = tuple(
    os.path.realpath(sysconfig.get_path(name)) + os.sep for name in ("stdlib", "platstdlib", "purelib", "platlib")
)
ELSEWHERE = re.compile(r"[/\\\\](site-packages|dist-packages|lib[/\\\\]python3\.\d+)[/\\\\]")


def is_users(file: str, root: str = "") -> bool:
    """Whether a file is the user's own: below `root`, or neither installed nor the platform's."""
    path = os.path.realpath(file)
    # Compiled code names its source by a relative path.
    if not os.path.isabs(file) or ELSEWHERE.search(path) or path.startswith((*OURS, *INSTALLED)):
        return False
    return not root or path.startswith(os.path.realpath(root) + os.sep) or not path.startswith(str(PLATFORM) + os.sep)


def read(folder: Path) -> dict[str, Any]:
    """Return the evidence of a job in `folder`, empty if it left none.

    began: time, environment, code, limits; curve: [seconds, MiB, CPU %] in order; ended: exit and counters;
    exception: the chain; stack: where the process stood when it was killed, innermost first; log: its last lines.
    """
    began, ended = _json(folder / BEGAN), _json(folder / ENDED)
    result = _json(folder / RESULT) or {}
    error = result.get("error") or {}
    found = {
        "job": folder.name,
        "began": began,
        "curve": thinned((_json(folder / CURVE) or {}).get("points") or []),
        "peak_mib": (_json(folder / CURVE) or {}).get("peak_mib"),
        "ended": ended,
        "exception": error.get("exception") or _json(folder / EXCEPTION),
        "stack": (ended or {}).pop("stack", None),
        "log": last_lines(_tail(folder / LOG)),
        "message": error.get("message"),
        "kind": error.get("kind"),
    }
    told = {name: value for name, value in found.items() if value}
    return told if began or ended or told.get("exception") or error else {}


def thinned(points: list[Any]) -> list[Any]:
    """Return at most `MOST_POINTS` of a curve, its end among them."""
    if len(points) <= MOST_POINTS:
        return points
    step = len(points) / MOST_POINTS
    return [points[len(points) - 1 - int(index * step)] for index in reversed(range(MOST_POINTS))]


def last_lines(text: str) -> list[str]:
    """Return the last lines of a log, each shortened, none of them empty."""
    lines = [line.rstrip() for line in text.splitlines() if line.strip()]
    return [line[:LONGEST_LINE] for line in lines[-MOST_LINES:]]


def _tail(path: Path) -> str:
    try:
        with path.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - READ_BYTES))
            return file.read().decode(errors="replace")
    except OSError:
        return ""


def _json(path: Path) -> Any | None:
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):
        return None
