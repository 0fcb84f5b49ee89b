"""Names of runs that are computed, so that whoever computes them finds the same run.  Looks nothing up."""

from __future__ import annotations

import hashlib
from datetime import datetime

# A job's id names a folder and a lock beside it: file names have at most 255 bytes.
LONGEST_TASK = 100


def adopted_name(dag_id: str, run_id: str, due: datetime) -> str:
    """Return the PipelineRun name of a run that began in Airflow: the same whoever asks, and when.

    due: the DAG run's `run_after`, UTC.
    """
    digest = hashlib.sha256(f"{dag_id}/{run_id}".encode()).hexdigest()[:8]
    return f"airflow-{due:%Y%m%d-%H%M%S}-{digest}"


def job_name(dag_id: str, run_id: str, task_id: str, map_index: int = -1) -> str:
    """Return the id of a task's job: the same for every try.  map_index: -1 for a task that is not mapped."""
    name = f"{dag_id}/{run_id}/{task_id}/{map_index}"
    return f"{task_id[:LONGEST_TASK]}-{hashlib.sha256(name.encode()).hexdigest()[:16]}"
