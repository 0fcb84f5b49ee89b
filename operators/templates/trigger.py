"""The DAG of a TriggerRun: a schedule and one mapped task, which creates a PipelineRun for each parameter entry."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote, unquote

import pendulum
from airflow.sdk import DAG, task
from airflow.sdk.exceptions import AirflowFailException

from operators.timetable import TriggerTimetable

LABEL = "pipelinerun.michelangelo/"
# Two entries of one digest would be one run: at 48 bits a million entries an instant are still told apart.
DIGEST_LENGTH = 12
RETRY_DELAY = timedelta(seconds=10)


def run_name(trigger: str, instant: datetime, entry: str) -> str:
    """Return the name of the run of one entry at one instant: the same however often the task is repeated."""
    moment = instant.astimezone(UTC)
    digest = hashlib.sha256(f"{trigger}/{moment.isoformat()}/{entry}".encode()).hexdigest()[:DIGEST_LENGTH]
    return f"{trigger[:180]}-{moment:%Y%m%d-%H%M%S}-{digest}"


def trigger_dag(manifest: Mapping[str, Any], *, dag_id: str, tags: list[str]) -> DAG:
    """Return the DAG of a trigger's manifest."""
    schedule = TriggerTimetable(cron=manifest["cron"], interval_s=manifest["interval_s"])
    # Here, not when Airflow does it: an error there is one of the project's whole file.
    schedule.validate()
    dag = DAG(
        dag_id,
        schedule=schedule,
        start_date=pendulum.parse(manifest["start"]),  # type: ignore[arg-type,unused-ignore]
        catchup=False,
        max_active_runs=1,
        auto_register=False,
        tags=tags,
        doc_md=f"Starts pipeline **{manifest['pipeline']}** of project **{manifest['project']}** on its schedule.",
    )

    @task(max_active_tis_per_dagrun=manifest["max_concurrency"] or None, retries=3, retry_delay=RETRY_DELAY)
    def create_run(entry: str, **context: Any) -> str:
        """Create the PipelineRun of one entry, or find it."""
        # A run that a person starts need not have a logical date.
        moment = context.get("logical_date") or context["dag_run"].run_after
        return create(manifest, unquote(entry), moment)

    with dag:
        # Airflow renders what a task is mapped over: quoted, an entry's name holds nothing to render.
        create_run.expand(entry=[quote(entry) for entry in sorted(manifest["parameters"])])
    return dag


def create(manifest: Mapping[str, Any], entry: str, moment: datetime) -> str:
    """Create the PipelineRun of `entry` at `moment` and return its name; one that exists is the same run.

    Raises AirflowFailException if the API refuses the values: it would refuse them again.
    """
    from api.errors import AlreadyExists, InvalidArgument, NotFound
    from api.kinds import kinds
    from operators.hooks.michelangelo import client

    name = run_name(manifest["name"], moment, entry)
    run = kinds()["PipelineRun"].new(manifest["project"], name)
    run.metadata.labels.update(
        {
            f"{LABEL}triggered-by": manifest["name"],
            f"{LABEL}source-trigger": manifest["name"],
            f"{LABEL}execution-timestamp": moment.astimezone(UTC).strftime("%Y%m%dT%H%M%SZ"),
            f"{LABEL}parameter-id": entry,
            f"{LABEL}pipeline-name": manifest["pipeline"],
            f"{LABEL}environment": "production",
        }
    )
    run.spec.pipeline.namespace, run.spec.pipeline.name = manifest["project"], manifest["pipeline"]
    run.spec.actor.name = f"trigger:{manifest['name']}"
    given = inputs(manifest["parameters"][entry])
    if given:
        run.spec.input.update(given)
    with client() as api:
        try:
            api.create(run)
        except AlreadyExists:
            return name
        except (InvalidArgument, NotFound) as error:
            raise AirflowFailException(f"entry {entry!r} of trigger {manifest['name']}: {error.message}") from error
    return name


def inputs(entry: Mapping[str, Any]) -> dict[str, Any]:
    """Return a run's input of a parameter entry: kw_args over parameter_map, whose values are text."""
    given = {key: value for key, value in entry.items() if key != "parameter_map"}
    values = {**entry.get("parameter_map", {}), **entry.get("kw_args", {})}
    return {**given, **({"kw_args": values} if values else {})}
