"""Names of runs that are computed, so that whoever computes them finds the same run.  Looks nothing up."""

from __future__ import annotations

import hashlib
from datetime import datetime


def adopted_name(dag_id: str, run_id: str, due: datetime) -> str:
    """Return the PipelineRun name of a run that began in Airflow: the same whoever asks, and when.

    due: the DAG run's `run_after`, UTC.
    """
    digest = hashlib.sha256(f"{dag_id}/{run_id}".encode()).hexdigest()[:8]
    return f"airflow-{due:%Y%m%d-%H%M%S}-{digest}"
