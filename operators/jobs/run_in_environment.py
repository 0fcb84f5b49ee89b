"""Goes on as a job's own program in the environment of its step, built first if it is not there.  Runs no step itself.

    python -m operators.jobs.run_in_environment <module> <job folder>

The process stays the same: who waits for the job, or stops it, sees one.  The build is no part of the step's timeout.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import NoReturn

from api.config import load
from operators.errors import NotProvided
from operators.jobs import environments
from operators.jobs.run import begin, failed, root_of, write


def main(module: str, folder: Path) -> int:
    """Become `module` in the environment; return 1 after a result that says why it cannot be built."""
    spec = begin(folder)
    try:
        python = environments.python_of(spec["environment"], load().environments_path)
    except NotProvided as error:
        write(folder, failed("user", str(error), error, root_of(spec)))
        return 1
    return _become(python, module, folder)


def _become(python: Path, module: str, folder: Path) -> NoReturn:
    found = environments.clean(os.environ)
    found["PATH"] = os.pathsep.join((str(python.parent), found.get("PATH", os.defpath)))
    variables = {**found, "VIRTUAL_ENV": str(python.parents[1])}
    os.execve(python, [str(python), "-m", module, str(folder)], variables)  # noqa: S606


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], Path(sys.argv[2])))
