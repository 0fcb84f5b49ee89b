"""How long the demo takes: `ma demo --exit`, from nothing to a prediction, with everything stopped at the end.

Measured in a home that does not exist, then again in the same home; the phases are those that the command tells.
With `--from-clone` also what a new user waits for: `git clone`, a virtual environment with everything in it, the demo.
Peer: none.  No other tool does these steps in one command; the second time stands beside the first.
Command: `python -m benchmarks demo [--from-clone]`
"""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from api.config import Config
from benchmarks.measuring.figures import Figure
from benchmarks.measuring.results import Measured
from benchmarks.systems import platform
from benchmarks.systems.processes import ROOT, DidNotStart
from benchmarks.workbench import Workbench

TITLE = "From nothing to a prediction"
PEER = "none; the second time stands beside the first"
ROUNDS = 5
PHASE = re.compile(r"^\[\s*([\dhms.]+)\] (.+)$", re.MULTILINE)
PART = re.compile(r"([\d.]+)([dhms])")
SECONDS: Mapping[str, float] = {"d": 86400, "h": 3600, "m": 60, "s": 1}
WHOLE = "done"
CLONE_S = 3600.0
OF_THIS_CALL = ("VIRTUAL_ENV", "PYTHONPATH", "MAKEFLAGS", "MAKELEVEL", "MFLAGS")
"""Variables of the environment, or of `make bench`, that a new user does not have."""


@dataclass(frozen=True)
class Demo:
    """One demo: seconds of the whole command and of each phase that it told."""

    whole_s: float
    phases_s: Mapping[str, float]


def measure(bench: Workbench) -> Measured:
    """Return the figures."""
    first, again = [], []
    for _ in range(bench.rounds_or(ROUNDS)):
        with platform.stopped_at_the_end(platform.configuration(bench.new_home())) as config:
            first.append(_demo(config))
            again.append(_demo(config))
    figures = [*_figures("in a new home", first), *_figures("again in the same home", again)]
    notes = ["Phases are as the command tells them: to a tenth of a second below 10 s, whole seconds above."]
    if bench.from_clone:
        clone_s, installed_s = _from_clone(bench.new_folder("clone"))
        figures.append(Figure("from git clone", "s", (clone_s,)))
        figures.append(Figure("  of that installing", "s", (installed_s,)))
        notes.append("From git clone was measured once; it depends on where packages come from.")
    return Measured(figures, notes)


def _demo(config: Config) -> Demo:
    begun = time.monotonic()
    printed = platform.ma(config, "demo", "--exit")
    whole_s = time.monotonic() - begun
    return Demo(whole_s, phases(printed))


def phases(printed: str) -> dict[str, float]:
    """Return the seconds of each phase that the command told, in its order, without the sum of all."""
    return {title: seconds(text) for text, title in PHASE.findall(printed) if title != WHOLE}


def seconds(text: str) -> float:
    """Return the seconds of a duration such as `0.4s`, `12s`, `1m54s`."""
    return sum(float(count) * SECONDS[unit] for count, unit in PART.findall(text))


def _figures(name: str, demos: Sequence[Demo]) -> list[Figure]:
    told = list(demos[0].phases_s)
    rows = [Figure(name, "s", tuple(demo.whole_s for demo in demos))]
    for title in told:
        values = tuple(demo.phases_s[title] for demo in demos if title in demo.phases_s)
        rows.append(Figure(f"  {title}", "s", values))
    return rows


def _from_clone(folder: Path) -> tuple[float, float]:
    """Return the seconds from `git clone` to the end of `make demo`, and those until everything was installed."""
    checkout, base = folder / "checkout", getattr(sys, "_base_executable", sys.executable)
    config = platform.configuration(checkout / ".ma", projects_root=checkout)
    with platform.stopped_at_the_end(config):
        return _installed_and_shown(config, folder, checkout, base)


def _installed_and_shown(config: Config, folder: Path, checkout: Path, base: str) -> tuple[float, float]:
    environ = {name: value for name, value in platform.environment(config).items() if name not in OF_THIS_CALL}
    begun = time.monotonic()
    _told(["git", "clone", "--quiet", str(ROOT), str(checkout)], folder, environ)
    _told(["make", "setup", f"PYTHON={base}"], checkout, environ)
    installed_s = time.monotonic() - begun
    _told(["make", "demo", "ARGS=--exit", f"PYTHON={base}"], checkout, environ)
    return time.monotonic() - begun, installed_s


def _told(argv: Sequence[str], folder: Path, environ: Mapping[str, str]) -> None:
    ended = subprocess.run(
        argv, cwd=folder, env=dict(environ), capture_output=True, text=True, timeout=CLONE_S, check=False
    )
    if ended.returncode:
        raise DidNotStart(f"{' '.join(argv)} ended with {ended.returncode}\n{ended.stdout}{ended.stderr}"[-4000:])
