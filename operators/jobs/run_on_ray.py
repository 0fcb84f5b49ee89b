"""Runs one program as a task of a Ray of its own: the driver of the Ray engine's jobs.  Submits and cancels nothing.

    python -m operators.jobs.run_on_ray <job folder>

The task writes to the job's log itself: what Ray forwards to a driver may come after the driver has ended.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from operators.jobs import evidence, supervise, traces
from operators.jobs.run import LOG, LONGEST_MESSAGE, begin, execute, root_of, write


def on_worker(spec: Mapping[str, Any], log: str) -> dict[str, Any]:
    """Run the program of `spec` in a Ray worker, everything that it prints to `log`."""
    sys.stdout.flush()
    sys.stderr.flush()
    descriptor = os.open(log, os.O_WRONLY | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(descriptor, stream)
    os.close(descriptor)
    if root := root_of(spec):
        sys.path.insert(0, root)
    try:
        return execute(spec)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()


def main(folder: Path) -> int:
    """Start Ray, run the program of the job in `folder` as a task, stop Ray."""
    spec = begin(folder)

    def work() -> int:
        result = _on_ray(spec, folder)
        write(folder, result)
        return 0 if result["state"] == "SUCCEEDED" else 1

    return supervise.supervised(folder, spec, work)


def _on_ray(spec: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Return what the program's worker gave, or how it was lost."""
    import ray

    ray.init(address="local", include_dashboard=False, log_to_driver=False)
    try:
        result: dict[str, Any] = ray.get(ray.remote(max_retries=0)(on_worker).remote(spec, str(folder / LOG)))
    except ray.exceptions.RayError as error:
        message = f"{type(error).__name__}: {' '.join(str(error).split())}"[:LONGEST_MESSAGE]
        told = {"kind": "system", "message": message, "exception": traces.described(error, root_of(spec))}
        return {"state": "FAILED", "error": evidence.masked(told)}
    finally:
        ray.shutdown()
    return result


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
