"""`ma pipeline dags`: DAGs of Airflow that are tagged for the platform, and what became of each.  Writes nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from typing import Any

from api.airflow import Airflow
from api.cli import output
from api.cli.context import client, configuration, say
from api.client import Client
from api.controllers.plain_dags import tagged
from api.gen.michelangelo.api.v2 import pipeline_pb2
from api.pipeline_dags import plain_dag
from api.plain_dags import fault_of, name_taken, place_of


def show() -> None:
    """Print a row a tag.  Raises ApiError if Airflow or the API server does not answer."""
    found = asyncio.run(_ask(configuration().airflow_url))
    if not found:
        say("no DAG in Airflow has a tag michelangelo:PROJECT/PIPELINE")
        return
    with client() as api:
        output.table(["TAG", "DAG", "FILE", "STATE", "WHY"], [list(_row(api, *each)) for each in sorted(found.items())])


async def _ask(url: str) -> dict[str, Sequence[Any]]:
    airflow = Airflow(url)
    try:
        return await tagged(airflow)
    finally:
        await airflow.close()


def _row(api: Client, tag: str, dags: Sequence[Any]) -> Iterator[str]:
    yield tag
    yield ", ".join(dag.dag_id for dag in dags)
    yield ", ".join(dag.file for dag in dags)
    yield from _became(api, tag, dags)


def _became(api: Client, tag: str, dags: Sequence[Any]) -> tuple[str, str]:
    """Return the state of a tag's Pipeline and why it is so."""
    place, fault = place_of(tag), fault_of(tag, dags)
    if fault or place is None:
        return "NONE", fault
    project, name = place
    if api.find("Project", project, project) is None:
        return "NONE", f"UNKNOWN_PROJECT: there is no Project {project!r} for you: apply it, or mend the tag"
    pipeline = api.find("Pipeline", project, name)
    if pipeline is None:
        return "NONE", "it was seen just now: look again"
    if not plain_dag(pipeline):
        return "NONE", name_taken(dags[0], project, name)
    state = pipeline_pb2.PipelineState.Name(pipeline.status.state).removeprefix("PIPELINE_STATE_")
    return state, pipeline.status.error_message
