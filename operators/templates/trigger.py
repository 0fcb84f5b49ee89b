"""The DAG of a TriggerRun: a schedule, and what creates a PipelineRun for each parameter entry at each instant."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any
from urllib.parse import quote, unquote

import pendulum
from airflow.sdk import DAG, task
from airflow.sdk.exceptions import AirflowSkipException

from operators.start_runs import StartRunsOperator, Tick, start_date
from operators.timetable import TriggerTimetable

RETRY_DELAY = timedelta(seconds=10)


def trigger_dag(manifest: Mapping[str, Any], *, dag_id: str, tags: list[str]) -> DAG:
    """Return the DAG of a trigger's manifest.  One instant after another: none begins before the last has ended."""
    settings: dict[str, Any] = {
        "start_date": start_date(manifest),
        "end_date": pendulum.parse(manifest["end"]) if manifest.get("end") else None,
        "catchup": manifest.get("type") == "backfill",
        "max_active_runs": 1,
        "auto_register": False,
        "tags": tags,
        "doc_md": f"Starts pipeline **{manifest['pipeline']}** of project **{manifest['project']}** on its schedule.",
    }
    if manifest.get("rerun"):
        return _paced(DAG(dag_id, schedule="@once", **settings), manifest)
    schedule = TriggerTimetable(
        cron=manifest["cron"],
        interval_s=manifest["interval_s"],
        timezone=manifest.get("timezone", "UTC"),
        missed=manifest.get("missed", "runOnce"),
    )
    # Here, not when Airflow does it: an error there is one of the project's whole file.
    schedule.validate()
    dag = DAG(dag_id, schedule=schedule, **settings)
    paced = int(manifest["max_concurrency"]) > 0 or manifest.get("batch") or manifest.get("only", "all") != "all"
    return _paced(dag, manifest) if paced else _at_once(dag, manifest)


def _paced(dag: DAG, manifest: Mapping[str, Any]) -> DAG:
    """One task creates one run after another, as many at a time as are allowed."""
    with dag:
        StartRunsOperator(task_id="start_runs", manifest=manifest, retries=3, retry_delay=RETRY_DELAY)
    return dag


def _at_once(dag: DAG, manifest: Mapping[str, Any]) -> DAG:
    """A mapped task creates the runs of an instant side by side."""

    @task(retries=3, retry_delay=RETRY_DELAY)
    def create_run(entry: str, **context: Any) -> str:
        """Create the PipelineRun of one entry, or find it."""
        return create(Tick.of(manifest, context), unquote(entry))

    with dag:
        # Airflow renders what a task is mapped over: quoted, an entry's name holds nothing to render.
        create_run.expand(entry=[quote(entry) for entry in sorted(manifest["parameters"])])
    return dag


def create(tick: Tick, entry: str) -> str:
    """Create the run of one entry of a tick and return its name.  Raises AirflowSkipException when nothing is due."""
    from operators.hooks.michelangelo import client

    with client() as api:
        if reason := tick.held_back(api):
            raise AirflowSkipException(f"{tick.stamp}: {reason}")
        return tick.create(api, entry)
