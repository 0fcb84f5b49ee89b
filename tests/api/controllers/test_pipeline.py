"""From an applied Project and Pipeline to a DAG in Airflow, and back."""

import json
import time
from typing import Any

import pytest
from starlette.responses import HTMLResponse

from api.errors import FailedPrecondition, InvalidArgument
from api.gen.michelangelo.api import typed_struct_pb2
from api.gen.michelangelo.api.v2 import pipeline_pb2, project_pb2, revision_pb2
from api.kinds import kinds
from api.workflows import STEPS_TYPE, plain, typed
from tests.patience import eventually, soon

READY, BUILDING, ERROR = (
    pipeline_pb2.PIPELINE_STATE_READY,
    pipeline_pb2.PIPELINE_STATE_BUILDING,
    pipeline_pb2.PIPELINE_STATE_ERROR,
)


async def test_a_project_becomes_ready_and_has_its_file(world: Any) -> None:
    await world.project()
    project = await world.until(
        "Project", "flights", lambda found: found.status.state == project_pb2.PROJECT_STATE_READY
    )
    assert project.status.phase == project_pb2.PROJECT_PHASE_DEVELOPMENT
    assert project.status.last_update_time.seconds > 0
    text = (world.config.dags_path / "flights.py").read_text()
    assert "DAG" in text
    assert "airflow" in text.lower()


async def test_an_applied_pipeline_is_a_dag_within_a_second(world: Any) -> None:
    await world.project()
    began = time.monotonic()
    await world.pipeline(rows=5)
    pipeline = await world.until("Pipeline", "train", lambda found: found.status.state == READY)
    assert time.monotonic() - began < soon(1)
    assert "flights.train" in world.airflow.dags
    name = pipeline.status.latest_revision.name
    assert name.startswith("pipeline-train-")
    assert len(name) == len("pipeline-train-") + 12
    registered = typed_struct_pb2.TypedStruct()
    assert pipeline.status.registered_workflow.Unpack(registered)
    assert registered.value["dag_id"] == "flights.train"
    assert "ma" not in plain(registered.value)["params_schema"]
    revision = await world.until(
        "Revision", name, lambda found: found.status.state == revision_pb2.REVISION_STATE_READY
    )
    snapshot = pipeline_pb2.Pipeline()
    assert revision.spec.content.Unpack(snapshot)
    assert snapshot.spec == pipeline.spec
    assert revision.metadata.ownerReferences[0].uid == pipeline.metadata.uid


async def test_a_request_to_parse_that_airflow_drops_is_made_again(world: Any) -> None:
    await world.ready()
    world.airflow.lost_requests = 1
    began = time.monotonic()
    await world.pipeline("second")
    await world.until("Pipeline", "second", lambda found: found.status.state == READY)
    assert time.monotonic() - began < 9, "before all is looked at again"


async def test_the_next_leader_mends_what_a_loss_of_power_left_of_the_files(world: Any) -> None:
    await world.ready()
    await world.end()
    paths = [world.config.dags_path / "flights.py", world.config.manifests_path / "flights" / "train.json"]
    whole = [path.read_bytes() for path in paths]
    for path in paths:
        path.write_bytes(b"\0" * 100)

    async def read() -> list[bytes]:
        return [path.read_bytes() for path in paths]

    world.start()
    await eventually(read, lambda found: found == whole)


async def test_a_commit_names_the_revision(world: Any) -> None:
    await world.project()
    new = kinds()["Pipeline"].new("flights", "train")
    new.spec.manifest.file_path = "train"
    new.spec.commit.git_ref, new.spec.commit.branch = "0123456789abcdef0123", "main"
    await world.resources.create(new)
    pipeline = await world.until("Pipeline", "train", lambda found: found.status.state == READY)
    assert pipeline.status.latest_revision.name == "pipeline-train-0123456789ab"


async def test_a_changed_pipeline_gets_a_new_revision_and_keeps_the_old(world: Any) -> None:
    first = await world.ready()
    changed = await world.resources.get("Pipeline", "flights", "train")
    changed.spec.description = "other"
    await world.resources.update(changed)
    old = first.status.latest_revision.name
    second = await world.until("Pipeline", "train", lambda found: found.status.latest_revision.name != old)
    assert second.status.state == READY
    assert await world.resources.get("Revision", "flights", old)
    manifest = json.loads((world.config.manifests_path / "flights" / "train.json").read_text())
    assert manifest["revision"] == second.status.latest_revision.name


async def test_an_unknown_template_is_an_error_with_the_nearest_name_and_heals(world: Any) -> None:
    await world.project()
    await world.pipeline(template="trian")
    found = await world.until("Pipeline", "train", lambda found: found.status.state == ERROR)
    assert "did you mean 'train'" in found.status.error_message
    with pytest.raises(FailedPrecondition, match="cannot run"):
        await world.run("early")
    found.spec.manifest.file_path = "train"
    await world.resources.update(found)
    await world.until("Pipeline", "train", lambda found: found.status.state == READY)


async def test_a_template_that_appears_a_little_later_is_waited_for(world: Any) -> None:
    template = world.airflow.dags.pop("train")
    world.airflow.template("other")
    await world.project()
    await world.pipeline()
    found = await world.until("Pipeline", "train", lambda found: found.status.state == BUILDING)
    assert "still be reading" in found.status.error_message
    world.airflow.dags["train"] = template
    await world.until("Pipeline", "train", lambda found: found.status.state == READY)


async def test_wrong_template_values_are_all_told_at_once(world: Any) -> None:
    await world.project()
    await world.pipeline(rows=0, rowz=3)
    found = await world.until("Pipeline", "train", lambda found: found.status.state == ERROR)
    assert "content.rows" in found.status.error_message
    assert "content.rowz" in found.status.error_message
    assert "flights.train" not in world.airflow.dags


async def test_a_pipeline_waits_while_airflow_is_down_or_answers_html(world: Any) -> None:
    world.airflow.broken = HTMLResponse("<html>proxy error</html>", status_code=502)
    await world.project()
    await world.pipeline()
    found = await world.until("Pipeline", "train", lambda found: found.status.state == BUILDING)
    assert "proxy error" in found.status.error_message
    world.airflow.broken = HTMLResponse("<html>welcome</html>", status_code=201)
    await world.until("Pipeline", "train", lambda found: "welcome" in found.status.error_message)
    world.airflow.broken = None
    await world.until("Pipeline", "train", lambda found: found.status.state == READY)


async def test_a_deleted_pipeline_leaves_nothing_in_airflow(world: Any) -> None:
    await world.ready()
    await world.resources.delete("Pipeline", "flights", "train")
    await world.until_gone("Pipeline", "train")
    assert "flights.train" not in world.airflow.dags
    assert not list((world.config.manifests_path / "flights").glob("*"))


async def test_a_deleted_project_takes_everything_with_it(world: Any) -> None:
    await world.ready()
    await world.run("one")
    await world.until("PipelineRun", "one", lambda found: found.status.workflow_run_id != "")
    await world.resources.delete("Project", "flights", "flights")
    await world.until_gone("Project", "flights")
    for kind in ("Pipeline", "PipelineRun", "Revision"):
        assert not (await world.resources.list(kind)).items
    assert not (world.config.dags_path / "flights.py").exists()


async def test_an_unchanged_pipeline_costs_airflow_nothing(world: Any) -> None:
    await world.ready()
    manifest = world.config.manifests_path / "flights" / "train.json"
    before = manifest.stat().st_mtime_ns
    await world.until("Pipeline", "train", lambda _: not world.manager.busy)
    asked = world.airflow.requests
    again = await world.resources.get("Pipeline", "flights", "train")
    again.metadata.labels["team"] = "a"
    await world.resources.update(again)
    await world.until("Pipeline", "train", lambda found: found.metadata.labels.get("team") == "a")
    assert manifest.stat().st_mtime_ns == before
    assert world.airflow.requests == asked


@pytest.mark.parametrize(
    ("steps", "told"),
    [
        ([], "at least one step"),
        (
            [{"name": "a", "operator": "train", "needs": ["b"]}, {"name": "b", "operator": "train", "needs": ["a"]}],
            "a -> b -> a",
        ),
        ([{"name": "a", "operator": "train", "needs": ["a"]}], "needs itself"),
        ([{"name": "a", "operator": "train", "needs": ["c"]}], "'c', which is no step"),
        ([{"name": "a", "operator": "train"}, {"name": "a", "operator": "train"}], "of an earlier step too"),
        ([{"name": "a", "operator": "train", "retries": 1000}], "from 0 to 10"),
        ([{"name": "a", "operator": "train", "retries": -1}], "from 0 to 10"),
        ([{"name": f"s{n}", "operator": "train"} for n in range(10_001)], "at most 10000"),
    ],
)
async def test_a_graph_that_cannot_be_built_is_refused(world: Any, steps: list[Any], told: str) -> None:
    await world.project()
    await world.until("Project", "flights", lambda found: found.status.state == project_pb2.PROJECT_STATE_READY)
    new = kinds()["Pipeline"].new("flights", "graph")
    new.spec.manifest.content.Pack(typed(STEPS_TYPE, {"steps": steps}))
    before = await world.resources.revision()
    with pytest.raises(InvalidArgument) as refused:
        await world.resources.create(new)
    assert told in refused.value.message
    assert refused.value.violations[0].field.startswith("spec.manifest.content")
    assert await world.resources.revision() == before


async def test_a_revision_says_the_commit_of_its_pipeline(world: Any) -> None:
    await world.project()
    new = kinds()["Pipeline"].new("flights", "train")
    new.spec.manifest.file_path = "train"
    new.spec.commit.git_ref, new.spec.commit.branch = "0123456789ABCDEF", "main"
    await world.resources.create(new)
    pipeline = await world.until("Pipeline", "train", lambda found: found.status.latest_revision.name != "")
    assert pipeline.status.latest_revision.name == "pipeline-train-0123456789ab"
    revision = await world.resources.get("Revision", "flights", pipeline.status.latest_revision.name)
    assert (revision.spec.git_commit.git_ref, revision.spec.git_commit.branch) == ("0123456789ABCDEF", "main")
    assert revision.metadata.ownerReferences[0].uid == pipeline.metadata.uid
