"""A project says whether it can be used and how far it has come, and takes along all that lives in it."""

from __future__ import annotations

from typing import Any

import pytest

from api.errors import FailedPrecondition
from api.gen.michelangelo.api.v2 import project_pb2 as wire
from api.kinds import kinds
from api.store.base import Key
from tests.api.controllers.test_pipeline_run import begun
from tests.api.controllers.test_serving import complete, deployment, model
from tests.api.controllers.test_trigger_run import trigger


async def test_a_project_is_ready_in_development_with_the_tier_it_was_given(world: Any) -> None:
    new = kinds()["Project"].new("flights", "flights")
    new.spec.tier = 2
    await world.resources.create(new)
    project = await world.until("Project", "flights", lambda found: found.status.state == wire.PROJECT_STATE_READY)
    assert project.status.phase == wire.PROJECT_PHASE_DEVELOPMENT
    assert project.status.error_message == ""
    assert project.status.last_update_time.seconds > 0
    assert project.spec.tier == 2
    seen = [
        change.resource.status.state
        for change in await changes(world)
        if change.key.kind == "Project" and change.resource.status.state
    ]
    assert seen[0] == wire.PROJECT_STATE_PROVISIONING
    assert seen[-1] == wire.PROJECT_STATE_READY


async def changes(world: Any) -> list[Any]:
    newest, found = await world.resources.revision(), []
    async for change in world.resources.watch(None, 0):
        found.append(change)
        if change.revision >= newest:
            break
    return found


async def test_the_phase_follows_from_the_deployments(world: Any) -> None:
    await world.project()
    await model(world, "one")
    world.backend.slow.add("file:///one")
    await deployment(world, "one")
    await world.until("Project", "flights", lambda found: found.status.phase == wire.PROJECT_PHASE_STAGING)
    world.backend.slow.clear()
    await world.until("Deployment", "late", complete("one"))
    await world.until("Project", "flights", lambda found: found.status.phase == wire.PROJECT_PHASE_PRODUCTION)
    await world.resources.delete("Deployment", "flights", "late")
    await world.until("Project", "flights", lambda found: found.status.phase == wire.PROJECT_PHASE_DEVELOPMENT)


async def test_a_project_outside_of_the_root_is_an_error_that_is_told(world: Any) -> None:
    new = kinds()["Project"].new("flights", "flights")
    new.spec.root_dir = "../elsewhere"
    await world.resources.create(new)
    project = await world.until("Project", "flights", lambda found: found.status.state == wire.PROJECT_STATE_ERROR)
    assert "leaves the projects' root" in project.status.error_message
    await world.change("Project", "flights", lambda found: setattr(found.spec, "root_dir", ""))
    project = await world.until("Project", "flights", lambda found: found.status.state == wire.PROJECT_STATE_READY)
    assert project.status.error_message == ""


async def test_a_project_whose_files_cannot_be_written_is_an_error_without_a_path(world: Any) -> None:
    world.config.dags_path.write_text("in the way")
    await world.project()
    project = await world.until("Project", "flights", lambda found: found.status.state == wire.PROJECT_STATE_ERROR)
    assert project.status.error_message.startswith("its files cannot be written")
    assert str(world.config.home) not in project.status.error_message


async def test_a_deleted_project_waits_until_all_in_it_is_undone(world: Any) -> None:
    await world.ready()
    await model(world, "one")
    await deployment(world, "one")
    await world.until("Deployment", "late", complete("one"))
    await world.resources.create(trigger())
    dag_run = await begun(world)
    world.airflow.advance(dag_run)
    world.airflow.advance(dag_run)
    world.backend.down = True
    await world.resources.delete("Project", "flights", "flights")
    project = await world.until(
        "Project", "flights", lambda found: found.status.phase == wire.PROJECT_PHASE_DECOMMISSION
    )
    assert project.metadata.HasField("deletionTimestamp")
    with pytest.raises(FailedPrecondition, match="is being deleted"):
        await world.pipeline("another")
    await world.until_gone("Pipeline", "train")
    assert await world.resources.find(Key("Project", "flights", "flights")) is not None, "a deployment still answers"
    world.backend.down = False
    await world.until_gone("Project", "flights")
    assert dag_run.state == "failed"
    assert await world.backend.observe("flights.late") is None
    assert not [item for kind in kinds() for item in (await world.resources.list(kind)).items]
    assert not list(world.config.dags_path.glob("*.py"))
    assert not (world.config.manifests_path / "flights").exists()
