"""Jobs on Spark: a driver process with a session, on this machine or of a cluster.  Imports no pyspark itself.

The driver is a job of the local engine, so that submitting, adopting and cancelling are the same.
"""

from __future__ import annotations

import shutil

from operators.engines.local import LocalEngine
from operators.jobs.run_on_spark import SCRATCH


class SparkEngine(LocalEngine):
    """Runs each job beside a Spark session of its own."""

    module = "operators.jobs.run_on_spark"

    def cancel(self, job_id: str) -> None:
        """Stop the job with its JVM, and remove what it spilled."""
        super().cancel(job_id)
        shutil.rmtree(self._folder / job_id / SCRATCH, ignore_errors=True)
