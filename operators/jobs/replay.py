"""Runs the job of an earlier run once more, here: its code, arguments and inputs as they were, its outputs nowhere.

    python -m operators.jobs.replay <job folder> [--pdb] [--keep]

Nothing is registered and nothing overwritten: home is a scratch folder, and the API server cannot be reached from it.
The exit status is 0 when the program succeeded, 1 when it raised.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import json
import os
import re
import shutil
import sys
import tempfile
import traceback
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from api import evidence as left
from operators.errors import UserError
from operators.jobs import code_kept, environments, evidence, traces
from operators.jobs.run import SPEC, root_of

SUCCEEDED, RAISED, UNUSABLE = 0, 1, 2
NOWHERE_PORT = "9"
IN_ENVIRONMENT = "MA_REPLAY_IN_ENVIRONMENT"
COPIED = ("features",)
"""What a program may change in place is copied; all else that it reads has an absolute reference, or is a value."""
VALUES = Path("artifacts", "values")
DIGEST = re.compile(r"sha256:([0-9a-f]{64})")


@dataclass(frozen=True)
class Capsule:
    """What is needed to run a job again.  `root`: the user's code as it was; `notes`: what is not as it was."""

    spec: Mapping[str, Any]
    found: Mapping[str, Any]
    root: str
    notes: Sequence[str]


def opened(folder: Path, scratch: Path) -> Capsule:
    """Return the capsule of the job in `folder`, its code copied into `scratch`.  Raises OSError, ValueError."""
    spec = json.loads((folder / SPEC).read_text())
    found = left.read(folder)
    began = found.get("began") or {}
    root, notes = _code(began.get("code") or {}, root_of(spec), folder.parent / code_kept.FOLDER, scratch / "code")
    now = evidence.environment(folder.parent / left.ENVIRONMENTS)
    for name, value in (began.get("environment") or {}).items():
        if now.get(name) != value:
            notes.append(f"{name} is not as it was: {str(value)[:19]} then, {now.get(name, '')[:19]} now")
    if "run" in spec["args"]:
        spec["args"] = {**spec["args"], "run": {**spec["args"]["run"], "root_dir": root}}
    return Capsule(spec, found, root, notes)


def _code(noted: Mapping[str, Any], root: str, kept: Path, place: Path) -> tuple[str, list[str]]:
    digest = str(noted.get("digest") or "").removeprefix("sha256:")
    if not root:
        return "", []
    if not digest or not (kept / digest).is_dir():
        return root, [f"the code of the run was not kept ({noted.get('left_out', 'unknown why')}): today's is used"]
    shutil.copytree(kept / digest, place)
    today = code_kept.keep(root, kept)
    changed = sorted(
        name
        for name in {*noted.get("files", {}), *today.get("files", {})}
        if noted.get("files", {}).get(name) != today.get("files", {}).get(name)
    )
    told = f"the project's code has changed since ({', '.join(changed[:5])}): the run's own is used"
    return str(place), [told] if changed else []


@contextlib.contextmanager
def scratch_home(folder: Path) -> Iterator[Path]:
    """Make this process work in a scratch folder; what the job's home holds and may be changed is copied into it."""
    scratch = Path(tempfile.mkdtemp(prefix="ma-replay-"))
    home = scratch / "home"
    home.mkdir()
    for name in COPIED:
        if (folder.parent.parent / name).is_dir():
            shutil.copytree(folder.parent.parent / name, home / name)
    with contextlib.suppress(OSError):
        _link_values((folder / SPEC).read_text(), folder.parent.parent / VALUES, home / VALUES)
    os.environ.update(MA_HOME=str(home), MA_API_PORT=NOWHERE_PORT, MA_API_HTTP_PORT=NOWHERE_PORT)
    for name in ("MA_TOKEN", "MA_STORE_URL"):
        os.environ.pop(name, None)
    yield scratch


def _link_values(text: str, there: Path, here: Path) -> None:
    """Show the stored values that a text refers to, and those they refer to, in a store of their own."""
    left_over: list[str] = [text]
    seen: set[str] = set()
    while left_over:
        for digest in set(DIGEST.findall(left_over.pop())) - seen:
            seen.add(digest)
            for path in (there / "sha256" / digest[:2]).glob(f"{digest[2:]}*"):
                place = here / path.relative_to(there)
                place.parent.mkdir(parents=True, exist_ok=True)
                place.symlink_to(path)
                if path.suffix == ".json":
                    left_over.append(path.read_text())


def in_environment(folder: Path) -> None:
    """Go on in the environment that the job ran in, if it had its own.  Raises NotProvided, OSError, ValueError."""
    environment = json.loads((folder / SPEC).read_text()).get("environment")
    if environment and IN_ENVIRONMENT not in os.environ:
        python = environments.python_of(environment, folder.parent.parent / "environments")
        found = {**environments.clean(os.environ), IN_ENVIRONMENT: "1"}
        os.execve(python, [str(python), "-m", "operators.jobs.replay", *sys.argv[1:]], found)  # noqa: S606


def run(capsule: Capsule, *, debug: bool) -> tuple[int, dict[str, Any] | None]:
    """Run the program; return the exit status and the exception that it raised."""
    if capsule.root:
        sys.path.insert(0, capsule.root)
    try:
        program = importlib.import_module(f"operators.jobs.{capsule.spec['program']}")
        outputs = program.run(capsule.spec["args"])
    except (Exception, SystemExit) as error:
        traceback.print_exc()
        raised = traces.described(error, capsule.root)
        sys.stderr.flush()
        if debug:
            import pdb

            pdb.post_mortem(_innermost(error))
            print()
        return RAISED, raised
    for name, value in outputs.items():
        print(f"{name}: {value}")
    return SUCCEEDED, None


def _innermost(error: BaseException) -> Any:
    """Return the traceback of the first cause: there it went wrong."""
    while error.__cause__ is not None and error.__cause__.__traceback__ is not None:
        error = error.__cause__
    return error.__traceback__


def compared(capsule: Capsule, raised: Mapping[str, Any] | None) -> str:
    """Return in a line how what happened here compares with what happened in the run."""
    then = capsule.found.get("exception")
    if raised is None:
        return "it succeeded here" + (f": the run's {_text(then, '')} did not come again" if then else "")
    here = _text(raised, capsule.root)
    if not then:
        return f"{here}: the run noted no exception"
    there = _text(then, str((capsule.found.get("began") or {}).get("code", {}).get("root") or ""))
    return f"reproduced: {here}, as in the run" if here == there else f"another failure: {here}; in the run {there}"


def _text(exception: Mapping[str, Any] | None, root: str) -> str:
    """Return `KeyError at flights.py:31`; a path below `root` is told from there."""
    if not exception:
        return ""
    cause = exception["chain"][-1]
    place = exception.get("at") or (cause["frames"] or [{}])[-1]
    file = os.path.realpath(place["file"]) if place.get("file") else "?"
    base = os.path.realpath(root) + os.sep if root else ""
    return f"{cause['type']} at {file.removeprefix(base) if base else file}:{place.get('line', '?')}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Replay the job of a folder; the last line says whether the same happened."""
    parser = argparse.ArgumentParser(prog="python -m operators.jobs.replay", description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--pdb", action="store_true", help="stop in the debugger where it failed")
    parser.add_argument("--keep", action="store_true", help="keep the scratch folder, and say where it is")
    given = parser.parse_args(arguments)
    folder = given.folder.resolve()
    if arguments is None:
        try:
            in_environment(folder)
        except (UserError, OSError, ValueError) as error:
            print(f"this job cannot be replayed: {error}", file=sys.stderr)
            return UNUSABLE
    with scratch_home(folder) as scratch:
        try:
            capsule = opened(folder, scratch)
        except (OSError, ValueError, KeyError) as error:
            print(f"this job cannot be replayed: {error}", file=sys.stderr)
            return UNUSABLE
        for note in capsule.notes:
            print(f"note: {note}", flush=True)
        try:
            status, raised = run(capsule, debug=given.pdb)
        finally:
            if given.keep:
                print(f"kept: {scratch}")
            else:
                shutil.rmtree(scratch, ignore_errors=True)
        print(compared(capsule, raised), flush=True)
        return status


if __name__ == "__main__":
    sys.exit(main())
