"""How often the API server asks Airflow about a run whose tasks report one after the other."""

import asyncio
from typing import Any

import pytest

from api.gen.michelangelo.api.v2 import pipeline_run_pb2 as wire

SUCCEEDED = wire.PIPELINE_RUN_STATE_SUCCEEDED


async def begun(world: Any) -> Any:
    """Return the DAG run of a new PipelineRun."""
    await world.ready()
    await world.run("one")
    run = await world.until("PipelineRun", "one", lambda found: found.status.workflow_run_id != "")
    return world.airflow.runs["flights.train", run.status.workflow_run_id]


async def test_tasks_that_report_one_after_the_other_are_looked_at_together(
    world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    dag_run = await begun(world)
    looks, tasks = [], world.client.tasks

    async def looked(dag_id: str, run_id: str) -> Any:
        looks.append(run_id)
        return await tasks(dag_id, run_id)

    monkeypatch.setattr(world.client, "tasks", looked)
    world.airflow.advance(dag_run)
    for _ in range(40):
        await world.adopter.seen("flights.train", dag_run.run_id)
        await asyncio.sleep(0.005)
    world.airflow.finish(dag_run)
    await world.until("PipelineRun", "one", lambda found: found.status.state == SUCCEEDED)
    assert 1 <= len(looks) <= 20


async def test_an_end_is_looked_at_at_once(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("api.controllers.pipeline_run.BETWEEN_LOOKS_S", 3600.0)
    dag_run = await begun(world)
    world.airflow.finish(dag_run)
    await world.adopter.seen("flights.train", dag_run.run_id, True)
    await world.until("PipelineRun", "one", lambda found: found.status.state == SUCCEEDED)
