"""Plants each known bug into a copy of the code and demands that the test which names it turns red.

python -m tests.robustness.seeded [01 02 ...]
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from tests.robustness.results import VARIABLE

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[2]
LONGEST_S = 300
FAILED = 1


@dataclass(frozen=True)
class Seed:
    """A bug: why it is one, and the test that sees it."""

    path: Path
    why: str
    test: str


def seeds(chosen: Collection[str] = ()) -> list[Seed]:
    """Return the bugs, or those whose numbers are given."""
    found = []
    for path in sorted(HERE.glob("*.patch")):
        text = path.read_text()
        test = re.search(r"^Test: (\S+)$", text, re.MULTILINE)
        assert test is not None, f"{path.name} names no test"
        if not chosen or path.name[:2] in chosen:
            found.append(Seed(path, text.splitlines()[0], test[1]))
    return found


def copied(folder: Path) -> None:
    """Copy the tree as it is, without what is generated or ignored."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).is_file():
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target)


def apply(seed: Seed, folder: Path, *options: str) -> str:
    """Plant a bug (or with `-R` take it out, with `--check` only try); return what is wrong with its patch."""
    ran = subprocess.run(
        ["git", "apply", "-C1", *options, str(seed.path)], cwd=folder, capture_output=True, text=True, check=False
    )
    return ran.stderr.strip() if ran.returncode else ""


def seen(seed: Seed, folder: Path) -> str:
    """Return what is wrong: the patch does not apply, or the test stays green; empty when it turns red."""
    if fault := apply(seed, folder):
        return fault
    try:
        ran = subprocess.run(
            [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "-p", "no:randomly", seed.test],
            cwd=folder,
            # What is found out about a bug says nothing about the code.
            env={name: value for name, value in os.environ.items() if name != VARIABLE},
            capture_output=True,
            text=True,
            timeout=LONGEST_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"no verdict within {LONGEST_S} s"
    finally:
        apply(seed, folder, "-R")
    return "" if ran.returncode == FAILED else f"exit code {ran.returncode}: {ran.stdout[-500:]}"


def main(chosen: Collection[str]) -> int:
    """Try the bugs; print a line each; return how many no test saw."""
    unseen = 0
    with tempfile.TemporaryDirectory(prefix="seeded-") as name:
        folder = Path(name)
        copied(folder)
        for seed in seeds(chosen):
            began = time.monotonic()
            fault = seen(seed, folder)
            unseen += bool(fault)
            print(f"{'NOT SEEN' if fault else 'seen'} {seed.path.stem} {time.monotonic() - began:.0f} s {seed.test}")
            if fault:
                print(fault)
            sys.stdout.flush()
    return unseen


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
