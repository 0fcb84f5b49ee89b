"""From a folder of Python to a manifest: packed, traced in a process of its own, stored.  Imports none of it here.

What is traced is what was packed, unpacked again: a pipeline that needs a file which was left out fails now, not at
its first run.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from api.cli.exits import Failure
from api.code_tar import CodeRefused, Packed, pack, unpack

TRACE = "operators.authoring.trace"
TRACE_S = 120.0
LONGEST_DIFF = 1024 * 1024
LONGEST_TOLD = 30


@dataclass(frozen=True)
class Code:
    """A folder of Python that was packed and traced.  `graph`: as JSON values."""

    packed: Packed
    graph: Mapping[str, Any]


def prepare(folder: Path, module: str, function: str) -> Code:
    """Pack a folder and trace a pipeline in it.  Raises Failure with a line for every fault."""
    try:
        packed = pack(folder)
    except CodeRefused as error:
        told = [f"  {one.path}: {one.told} ({one.reason})" for one in error.refusals[:LONGEST_TOLD]]
        raise Failure(f"the code in {folder} cannot be packed", *told) from None
    except NotADirectoryError as error:
        raise Failure(str(error)) from None
    with tempfile.TemporaryDirectory(prefix="ma-code-") as scratch:
        tar = Path(scratch) / "code.tar"
        tar.write_bytes(packed.data)
        return Code(packed, _traced(unpack(tar, packed.digest, Path(scratch)), module, function))


def _traced(folder: Path, module: str, function: str) -> Mapping[str, Any]:
    try:
        done = subprocess.run(  # noqa: S603
            # -P: what lies in the folder must not take the place of the platform's own modules.
            [sys.executable, "-P", "-m", TRACE, module, function],
            cwd=folder,
            env=_environment(folder),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=TRACE_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        told = f"importing {module} took longer than {TRACE_S:g} s: do the work in tasks, not when it is imported"
        raise Failure(told) from None
    try:
        # The last line: nothing that the user's code prints comes after it.
        found: Mapping[str, Any] = json.loads(done.stdout.strip().rpartition("\n")[2])
    except ValueError:
        said = done.stderr.strip().splitlines()[-LONGEST_TOLD:]
        raise Failure(f"{module}:{function} gave no graph", *(f"  {line}" for line in said)) from None
    if done.returncode:
        faults = [_fault(fault) for fault in found.get("faults", ())[:LONGEST_TOLD]]
        raise Failure(f"{module}:{function} is no pipeline that can run", *faults)
    return found


def _fault(fault: Mapping[str, Any]) -> str:
    where = f"{fault['file']}:{fault['line']}: " if fault.get("file") else ""
    path = f"{fault['path']}: " if fault.get("path") else ""
    return f"  {where}{path}{fault['message']} ({fault['reason']})"


def _environment(folder: Path) -> dict[str, str]:
    """Return what a user's code sees: neither our token nor anything of Airflow's."""
    kept = {name: value for name, value in os.environ.items() if "AIRFLOW" not in name and name != "MA_TOKEN"}
    return {**kept, "PYTHONPATH": os.pathsep.join((str(folder), str(Path(__file__).resolve().parents[2])))}


def commit(folder: Path) -> tuple[str, str]:
    """Return commit and branch of a folder whose files are those of the commit; empty when they are not, or no git."""
    if _git(folder, "status", "--porcelain", "--", ".") != "":
        return "", ""
    return _git(folder, "rev-parse", "HEAD") or "", _git(folder, "rev-parse", "--abbrev-ref", "HEAD") or ""


def difference(folder: Path) -> str:
    """Return how the files of a folder differ from their commit; empty if they do not, or are in no repository."""
    return (_git(folder, "diff", "HEAD", "--", ".") or "")[:LONGEST_DIFF]


def _git(folder: Path, *arguments: str) -> str | None:
    """Return what git prints, None where it cannot say anything."""
    try:
        done = subprocess.run(  # noqa: S603
            ["git", "-C", str(folder), *arguments],  # noqa: S607
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=30,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def told(folder: Path, code: Code) -> str:
    """Return what was packed, in words."""
    packed, steps = code.packed, len(code.graph.get("steps") or ())
    return (
        f"packed {len(packed.files)} files of {folder}, {len(packed.data)} bytes, {steps} steps: {packed.digest[:12]}"
    )
