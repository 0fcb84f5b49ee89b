"""Jobs on Ray.  `local`: a driver process with a Ray of its own, and the program as a Ray task.

The driver is a job of the local engine, so that submitting, adopting and cancelling are the same.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from operators.engines.local import LocalEngine
from operators.jobs.run import begin, execute, write


class RayEngine(LocalEngine):
    """Runs each job in a Ray instance of this machine."""

    module = "operators.engines.ray"


def _on_worker(spec: Mapping[str, Any]) -> dict[str, Any]:
    root = spec["args"].get("run", {}).get("root_dir")
    if root:
        sys.path.insert(0, root)
    return execute(spec)


def main(folder: Path) -> int:
    """Start Ray, run the program of the job in `folder` as a task, stop Ray."""
    import ray

    spec = begin(folder)
    ray.init(address="local", include_dashboard=False, log_to_driver=True)
    try:
        result = ray.get(ray.remote(max_retries=0)(_on_worker).remote(spec))
    finally:
        ray.shutdown()
    write(folder, result)
    return 0 if result["state"] == "SUCCEEDED" else 1


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
