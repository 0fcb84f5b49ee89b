"""Runs that bring their pipeline along, and runs of drafts: a DAG of their own, and nothing registered."""

import json
from pathlib import Path
from typing import Any

from api.blobs import opened
from api.config import Config
from api.controllers.platform import Platform
from api.controllers.run_dags import RunDags
from api.external import External
from api.gen.michelangelo.api.v2 import pipeline_pb2
from api.gen.michelangelo.api.v2 import pipeline_run_pb2 as wire
from api.kinds import kinds
from api.pipeline_dags import dag_of
from api.resources import Resources
from api.store.sqlite import SqliteStore
from api.workflows import STEPS_TYPE, content, typed

SUCCEEDED = wire.PIPELINE_RUN_STATE_SUCCEEDED


def fill(spec: pipeline_pb2.PipelineSpec, *names: str) -> None:
    steps = [{"name": name, "operator": "train"} for name in names]
    spec.manifest.content.Pack(typed(STEPS_TYPE, {"steps": steps}), deterministic=True)


async def begun(world: Any, name: str) -> Any:
    run = await world.until("PipelineRun", name, lambda found: found.status.workflow_run_id != "")
    return world.airflow.runs[run.status.workflow_id, run.status.workflow_run_id], run


async def test_a_run_that_brings_its_pipeline_along_registers_nothing(world: Any) -> None:
    await world.project()
    new = kinds()["PipelineRun"].new("flights", "try")
    fill(new.spec.pipeline_spec, "a", "b")
    await world.resources.create(new)
    dag_run, run = await begun(world, "try")
    assert dag_run.dag_id == dag_of(run)
    assert [task for task, _ in dag_run.tasks] == ["a", "b"]
    source = run.status.source_pipeline
    assert source.pipeline.spec == new.spec.pipeline_spec
    assert not source.HasField("draft_pipeline")
    world.airflow.finish(dag_run)
    await world.until("PipelineRun", "try", lambda found: found.status.state == SUCCEEDED)
    for kind in ("Pipeline", "Revision"):
        assert not (await world.resources.list(kind)).items
    await world.runs.dags.sweep(0)
    assert not list((world.config.manifests_path / "flights").glob("*.json"))


async def test_a_draft_runs_as_it_was_when_the_run_was_made(world: Any) -> None:
    await world.project()
    draft = kinds()["Draft"].new("flights", "idea")
    fill(draft.spec.content, "a")
    draft = await world.resources.create(draft)
    world.airflow.parses = False
    new = kinds()["PipelineRun"].new("flights", "try")
    new.spec.draft.name = "idea"
    await world.resources.create(new)
    fill(draft.spec.content, "b")
    await world.resources.update(draft)
    world.airflow.parses = True
    dag_run, run = await begun(world, "try")
    assert [task for task, _ in dag_run.tasks] == ["a"]
    source = run.status.source_pipeline
    assert source.HasField("draft_pipeline")
    assert not source.HasField("pipeline")
    assert content(source.draft_pipeline.spec)[1]["steps"][0]["name"] == "a"
    (path,) = (world.config.manifests_path / "flights").glob("*.json")
    assert json.loads(path.read_text())["steps"][0]["name"] == "a"


async def test_a_large_graph_keeps_its_dag_while_it_runs(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "store.db")
    resources = Resources(store, external=External(opened(str(tmp_path / "blobs"))))
    await resources.create(kinds()["Project"].new("flights", "flights"))
    new = kinds()["PipelineRun"].new("flights", "large")
    fill(new.spec.pipeline_spec, *(f"step-{number}" for number in range(50)))
    run = await resources.create(new)
    (light,) = (await resources.list("PipelineRun")).items
    assert dag_of(light) != dag_of(run), "a list leaves large values out"
    nothing: Any = None
    platform = Platform(Config(tmp_path, tmp_path), resources, nothing, nothing, nothing, lambda key: None)
    assert await RunDags(platform).active() == {dag_of(run)}
    await store.close()
