"""Runs one program on an engine: reads `spec.json`, writes `result.json`.  Knows neither Airflow nor the API server.

    python -m operators.jobs.run <job folder>

The spec is {"job_id", "program", "args"}, and limits that `operators.jobs.supervise` keeps; the program is
`operators.jobs.<program>` with `run(args) -> {name: text}`.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil

from api.errors import FailedPrecondition, InvalidArgument, NotFound, PermissionDenied
from operators.errors import UserError
from operators.jobs import evidence, supervise, traces

SPEC = "spec.json"
RESULT = "result.json"
LOG = "log"
PROCESS = "process.json"
LOCK = "MA_JOB_LOCK"
LONGEST_MESSAGE = 2000
REFUSALS = (InvalidArgument, NotFound, FailedPrecondition, PermissionDenied)
"""What the API refuses once, it refuses again."""


def execute(spec: Mapping[str, Any]) -> dict[str, Any]:
    """Run the program of `spec` and return what `result.json` holds."""
    try:
        program = importlib.import_module(f"operators.jobs.{spec['program']}")
        outputs = {str(name): str(value) for name, value in program.run(spec["args"]).items()}
    except (UserError, *REFUSALS) as error:
        return failed("user", str(error), error, root_of(spec))
    except (Exception, SystemExit, KeyboardInterrupt) as error:
        traceback.print_exc()
        return failed("system", f"{type(error).__name__}: {error}", error, root_of(spec))
    return {"state": "SUCCEEDED", "outputs": outputs}


def root_of(spec: Mapping[str, Any]) -> str:
    """Return the folder of the user's code, empty if the job has none."""
    return str(spec["args"].get("run", {}).get("root_dir") or "")


def failed(kind: str, message: str, error: BaseException, root: str) -> dict[str, Any]:
    """Return what `result.json` holds of a job that failed, and say it.  kind: `user` or `system`."""
    print(f"failed ({kind}): {message}", file=sys.stderr, flush=True)
    told = {"kind": kind, "message": message[:LONGEST_MESSAGE], "exception": traces.described(error, root)}
    return {"state": "FAILED", "error": evidence.masked(told)}


def begin(folder: Path) -> Mapping[str, Any]:
    """Note this process as the job's, let go of the submitter's lock, and return the spec."""
    lock = os.environ.pop(LOCK, "")
    if lock:
        note_process(folder, os.getpid())
        os.close(int(lock))
    spec: Mapping[str, Any] = json.loads((folder / SPEC).read_text())
    if root := root_of(spec):
        sys.path.insert(0, root)
    return spec


def note_process(folder: Path, pid: int) -> None:
    """Write which process works on the job: its pid, and its start time because pids are used again."""
    _replace(folder / PROCESS, {"pid": pid, "started": psutil.Process(pid).create_time()})


def write(folder: Path, result: Mapping[str, Any]) -> None:
    """Write the result so that a reader sees all of it or nothing."""
    _replace(folder / RESULT, result)


def _replace(path: Path, content: Mapping[str, Any]) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(json.dumps(content))
    os.replace(temporary, path)


def main(folder: Path) -> int:
    """Run the job in `folder`; the exit status is 0 when it succeeded."""
    spec = begin(folder)

    def work() -> int:
        result = execute(spec)
        write(folder, result)
        return 0 if result["state"] == "SUCCEEDED" else 1

    return supervise.supervised(folder, spec, work)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
