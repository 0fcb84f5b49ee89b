"""`python -m benchmarks [NAME ...]`: runs benchmarks one after another, prints their tables, keeps their results.

Without names it runs all of them.  It judges no figure: whether a goal is met stands in the table, and the exit status
says only whether everything ran.
"""

from __future__ import annotations

import argparse
import importlib
import signal
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.measuring import document, machine, tables
from benchmarks.measuring.results import SUFFIX, Result, read
from benchmarks.workbench import Workbench

NAMES = ("serving", "resources", "watch", "apply", "run", "steps", "events", "tryout", "idle", "demo")
ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what was asked for; 1 if a benchmark failed."""
    options = _parser().parse_args(arguments)
    if options.markdown is not None:
        document.fill(options.markdown, _kept(options.out, options.names))
        return 0
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    quiet = machine.load()[0] <= machine.QUIET_LOAD
    if not quiet:
        _say(f"warning: the load of the last minute is {machine.load()[0]:.2f}: figures will only show that it works")
    status = 0
    with tempfile.TemporaryDirectory(prefix="ma-bench-") as folder:
        bench = _bench(options, Path(folder))
        for name in options.names or NAMES:
            if quiet:
                machine.settle()
            status |= _run(name, bench, options.out)
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", choices=[*NAMES, []], help=f"any of {', '.join(NAMES)}")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the results, a JSON file a benchmark")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="run nothing: write results into a document")
    parser.add_argument("--rounds", type=int, default=0, help="rounds of each benchmark; default: its own number")
    parser.add_argument("--home", type=Path, help="serving: a home on which `ma demo` has run; default: one is made")
    parser.add_argument("--pipelines", type=int, default=1000, help="apply: pipelines in other projects (%(default)s)")
    parser.add_argument("--projects", type=int, default=20, help="apply: the other projects (%(default)s)")
    parser.add_argument("--window-s", type=float, default=60.0, help="idle: seconds of a window (%(default)g)")
    parser.add_argument("--objects", type=int, default=1_000_000, help="resources: in the large store (%(default)s)")
    parser.add_argument("--watchers", type=int, default=500, help="watch: how many (%(default)s)")
    parser.add_argument("--from-clone", action="store_true", help="demo: also from `git clone`, with installing")
    return parser


def _bench(options: argparse.Namespace, folder: Path) -> Workbench:
    return Workbench(
        folder=folder,
        say=_say,
        rounds=options.rounds,
        home=options.home.absolute() if options.home else None,
        pipelines=options.pipelines,
        projects=options.projects,
        window_s=options.window_s,
        objects=options.objects,
        watchers=options.watchers,
        from_clone=options.from_clone,
    )


def _run(name: str, bench: Workbench, out: Path) -> int:
    """Run one benchmark; a failure is told and does not stop the others."""
    _say(f"{name}: begins at {datetime.now(UTC):%H:%M:%S} UTC")
    before = machine.load()
    module: Any = importlib.import_module(f"benchmarks.{name}")
    try:
        measured = module.measure(bench)
    except Exception:
        traceback.print_exc()
        return 1
    result = Result(
        name=name,
        title=module.TITLE,
        peer=module.PEER,
        command=f"python -m benchmarks {name}",
        measured_at=datetime.now(UTC).isoformat(timespec="seconds"),
        revision=_revision(),
        machine=machine.here(),
        load_before=before,
        load_after=machine.load(),
        figures=tuple(measured.figures),
        notes=tuple(measured.notes),
    )
    print(f"\n{tables.text(result)}\n", flush=True)
    _say(f"{name}: kept in {result.write(out)}")
    return 0


def _kept(folder: Path, names: Sequence[str]) -> list[Result]:
    """Return the results in a folder, all of them or those asked for."""
    return [read(path) for path in sorted(folder.glob(f"*{SUFFIX}")) if not names or path.stem in names]


def _revision() -> str:
    """Return the commit that was measured, with `+` if files differ from it."""
    described = subprocess.run(
        ["git", "describe", "--always", "--dirty=+"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return described.stdout.strip() or "unknown"


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
