"""Runs one program beside a Spark session, its own or a cluster's: the driver of the Spark engine's jobs.

    python -m operators.jobs.run_on_spark <job folder>

The program finds the session by `SparkSession.builder.getOrCreate()`.  Whoever ends the driver ends Spark's work.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from api.config import load
from api.engine_settings import CONNECT
from operators.errors import NotProvided
from operators.hooks import spark
from operators.jobs import supervise
from operators.jobs.run import begin, execute, failed, root_of, write

SCRATCH = "spark"
INTERRUPT_S = 0.7
NOT_ON_CLUSTER = (
    "a step on a cluster of Spark has the libraries of that cluster: leave its environment out, or MA_SPARK_URL"
)


def main(folder: Path) -> int:
    """Begin a session, run the program of the job in `folder`, end the session."""
    spec = begin(folder)
    url = load().engines.spark_url
    if root := root_of(spec):
        # Python of Spark's own workers imports the step's modules too.
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))

    def work() -> int:
        result = _on_spark(spec, folder, url)
        write(folder, result)
        return 0 if result["state"] == "SUCCEEDED" else 1

    return supervise.supervised(folder, spec, work)


def _on_spark(spec: Mapping[str, Any], folder: Path, url: str) -> dict[str, Any]:
    root = root_of(spec)
    try:
        if spec.get("environment") and url and not url.startswith("local"):
            raise NotProvided(NOT_ON_CLUSTER)
        (folder / SCRATCH).mkdir(exist_ok=True)
        session = spark.session(spec["job_id"], url=url, resources=spec["resources"], scratch=folder / SCRATCH)
        _bring_code(session, root, url, folder)
    except NotProvided as error:
        return failed("user", str(error), error, root)
    except Exception as error:
        return failed("system", f"no session of Spark: {type(error).__name__}: {error}", error, root)
    if url.startswith(CONNECT):
        signal.signal(signal.SIGTERM, lambda *_: _interrupt(session))
    try:
        return execute(spec)
    finally:
        spark.stop(session)
        shutil.rmtree(folder / SCRATCH, ignore_errors=True)


def _bring_code(session: Any, root: str, url: str, folder: Path) -> None:
    """Let the workers of a cluster import the step's modules; those of this machine have its files."""
    if not root or not url or url.startswith("local"):
        return
    archive = shutil.make_archive(str(folder / SCRATCH / "code"), "zip", root)
    session.addArtifacts(archive, pyfile=True)


def _interrupt(session: Any) -> None:
    """Tell a server to leave this driver's work, and end: it would go on with it for nobody."""
    calling = threading.Thread(target=session.interruptAll, daemon=True)
    calling.start()
    calling.join(INTERRUPT_S)
    os._exit(128 + signal.SIGTERM)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
