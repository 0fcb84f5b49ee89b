"""A manifest that cannot be built: the reason that its DAG gives is what the API server says of the resource."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from api.gen.michelangelo.api.v2 import pipeline_pb2, trigger_run_pb2
from api.kinds import kinds
from api.workflows import STEPS_TYPE, typed
from operators.templates.project import dags_of_project
from tests.api.controllers.conftest import World
from tests.robustness.fakes.airflow import FakeDag


class WorldOfRealDags(World):
    """Its Airflow shows what the operators build of the manifests, not what a fake makes of them."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.airflow._dag_of = self._dag_of  # type: ignore[method-assign]

    def _dag_of(self, manifest: Any) -> FakeDag:
        wanted = ".".join(manifest[part] for part in ("project", "pipeline", "name") if part in manifest)
        for dag in dags_of_project(manifest["project"]).values():
            if dag.dag_id == wanted:
                return FakeDag(wanted, f"{manifest['project']}.py", tuple(dag.tags), description=dag.description)
        raise AssertionError(f"there is no DAG of {json.dumps(manifest)}")


@pytest.fixture
async def world(home: Path) -> AsyncIterator[WorldOfRealDags]:
    made = WorldOfRealDags(home)
    made.start()
    await made.project()
    yield made
    await made.stop()


def of_steps(*steps: dict[str, Any]) -> Any:
    new = kinds()["Pipeline"].new("flights", "graph")
    new.spec.manifest.type = pipeline_pb2.PipelineManifest.PIPELINE_MANIFEST_TYPE_YAML
    new.spec.manifest.content.Pack(typed(STEPS_TYPE, {"steps": list(steps)}))
    return new


async def test_a_pipeline_whose_operator_does_not_exist_is_in_error_and_heals(world: WorldOfRealDags) -> None:
    await world.resources.create(of_steps({"name": "one", "operator": "trian"}))
    error = pipeline_pb2.PIPELINE_STATE_ERROR
    found = await world.until("Pipeline", "graph", lambda found: found.status.state == error)
    assert "no operator 'trian': use materialize_features" in found.status.error_message
    right = {"module": "flights", "feature_service": "late"}
    found.spec.CopyFrom(of_steps({"name": "one", "operator": "materialize_features", "with": right}).spec)
    await world.resources.update(found)
    ready = pipeline_pb2.PIPELINE_STATE_READY
    found = await world.until("Pipeline", "graph", lambda found: found.status.state == ready)
    assert found.status.error_message == ""


async def test_a_trigger_whose_dag_cannot_be_built_has_failed(
    world: WorldOfRealDags, monkeypatch: pytest.MonkeyPatch
) -> None:
    from operators.timetable import TriggerTimetable

    def refuse(_: TriggerTimetable) -> None:
        raise ValueError("this schedule cannot be")

    monkeypatch.setattr(TriggerTimetable, "validate", refuse)
    await world.resources.create(of_steps({"name": "one", "operator": "register_model", "with": REGISTER}))
    new = kinds()["TriggerRun"].new("flights", "nightly")
    new.spec.pipeline.namespace, new.spec.pipeline.name = "flights", "graph"
    new.spec.trigger.cron_schedule.cron = "0 3 * * *"
    await world.resources.create(new)
    failed = trigger_run_pb2.TRIGGER_RUN_STATE_FAILED
    found = await world.until("TriggerRun", "nightly", lambda found: found.status.state == failed)
    assert found.status.error_message == "this schedule cannot be"


REGISTER = {"dataset_uri": "d", "model_uri": "m", "report": "r", "model_name": "n"}
