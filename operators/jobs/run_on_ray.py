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

from operators.jobs.run import LOG, begin, execute, write


def on_worker(spec: Mapping[str, Any], log: str) -> dict[str, Any]:
    """Run the program of `spec` in a Ray worker, everything that it prints to `log`."""
    sys.stdout.flush()
    sys.stderr.flush()
    descriptor = os.open(log, os.O_WRONLY | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(descriptor, stream)
    os.close(descriptor)
    root = spec["args"].get("run", {}).get("root_dir")
    if root:
        sys.path.insert(0, root)
    try:
        return execute(spec)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()


def main(folder: Path) -> int:
    """Start Ray, run the program of the job in `folder` as a task, stop Ray."""
    import ray

    spec = begin(folder)
    ray.init(address="local", include_dashboard=False, log_to_driver=False)
    try:
        result = ray.get(ray.remote(max_retries=0)(on_worker).remote(spec, str(folder / LOG)))
    finally:
        ray.shutdown()
    write(folder, result)
    return 0 if result["state"] == "SUCCEEDED" else 1


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
