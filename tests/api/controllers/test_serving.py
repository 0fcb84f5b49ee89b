"""Deployments roll out, keep what serves when a version is broken, and drain."""

from typing import Any

from api.gen.michelangelo.api import conditions_pb2
from api.gen.michelangelo.api.v2 import deployment_pb2 as wire
from api.gen.michelangelo.api.v2 import inference_server_pb2 as servers
from api.gen.michelangelo.api.v2 import revision_pb2
from api.kinds import kinds
from api.store.base import Key


async def model(world: Any, name: str) -> None:
    new = kinds()["Model"].new("flights", name)
    new.spec.deployable_artifact_uri.append(f"file:///{name}")
    await world.resources.create(new)
    await world.until("Revision", name, lambda found: found.status.state == revision_pb2.REVISION_STATE_READY)


async def deployment(world: Any, revision: str) -> None:
    server = kinds()["InferenceServer"].new("flights", "local")
    await world.resources.create(server)
    new = kinds()["Deployment"].new("flights", "late")
    new.spec.inference_server.name = "local"
    new.spec.strategy.rolling.increment_percentage = 100
    new.spec.desired_revision.name = revision
    await world.resources.create(new)


async def desire(world: Any, revision: str) -> None:
    new = await world.resources.get("Deployment", "flights", "late")
    new.spec.desired_revision.name = revision
    if not revision:
        new.spec.ClearField("desired_revision")
    await world.resources.update(new)


def complete(revision: str) -> Any:
    def holds(found: Any) -> bool:
        status = found.status
        done = bool(status.stage == wire.DEPLOYMENT_STAGE_ROLLOUT_COMPLETE)
        return done and bool(status.current_revision.name == revision)

    return holds


def failed(found: Any) -> bool:
    return bool(found.status.stage == wire.DEPLOYMENT_STAGE_ROLLOUT_FAILED)


async def test_a_model_is_rolled_out_by_the_revision_of_its_name(world: Any) -> None:
    await world.project()
    await model(world, "one")
    await deployment(world, "one")
    found = await world.until("Deployment", "late", complete("one"))
    assert found.status.state == wire.DEPLOYMENT_STATE_HEALTHY
    assert not found.status.HasField("candidate_revision")
    assert world.backend.applied[0].artifact_uri == "file:///one"
    server = await world.until(
        "InferenceServer", "local", lambda found: found.status.state == servers.INFERENCE_SERVER_STATE_SERVING
    )
    assert server.status.observed_generation == 1


async def test_a_broken_version_leaves_the_old_one_and_says_why(world: Any) -> None:
    await world.project()
    await model(world, "one")
    await model(world, "two")
    world.backend.broken.add("file:///two")
    await deployment(world, "one")
    await world.until("Deployment", "late", complete("one"))
    await desire(world, "two")
    found = await world.until("Deployment", "late", failed)
    assert found.status.state == wire.DEPLOYMENT_STATE_HEALTHY
    assert found.status.current_revision.name == "one"
    assert found.status.candidate_revision.name == "two"
    assert "model.onnx differs" in found.status.message
    assert found.status.conditions_snapshot[0].reason == "INTEGRITY_FAILED"
    await desire(world, "one")
    found = await world.until("Deployment", "late", complete("one"))
    assert found.status.message == ""


async def test_a_refused_version_is_tried_again_when_the_deployment_changes(world: Any) -> None:
    await world.project()
    await model(world, "one")
    world.backend.broken.add("file:///one")
    await deployment(world, "one")
    await world.until("Deployment", "late", failed)
    tried = len(world.backend.applied)
    world.backend.broken.clear()
    found = await world.resources.get("Deployment", "flights", "late")
    found.spec.owner.name = "somebody"
    await world.resources.update(found)
    await world.until("Deployment", "late", complete("one"))
    assert len(world.backend.applied) == tried + 1


async def test_a_revision_that_is_no_model_fails_the_rollout(world: Any) -> None:
    ready = await world.ready()
    await deployment(world, ready.status.latest_revision.name)
    found = await world.until("Deployment", "late", failed)
    assert "no model" in found.status.message
    assert world.backend.applied == []


async def test_a_deployment_without_a_revision_is_emptied(world: Any) -> None:
    await world.project()
    await model(world, "one")
    await deployment(world, "one")
    await world.until("Deployment", "late", complete("one"))
    await desire(world, "")
    found = await world.until("Deployment", "late", lambda found: found.status.state == wire.DEPLOYMENT_STATE_EMPTY)
    assert not found.status.HasField("current_revision")
    assert await world.backend.observe("flights.late") is None


async def test_a_deleted_deployment_is_drained_first(world: Any) -> None:
    await world.project()
    await model(world, "one")
    await deployment(world, "one")
    await world.until("Deployment", "late", complete("one"))
    await world.resources.delete("Deployment", "flights", "late")
    await world.until_gone("Deployment", "late")
    assert await world.backend.observe("flights.late") is None


async def test_a_server_that_went_away_is_said_and_healed(world: Any) -> None:
    await world.project()
    await model(world, "one")
    world.backend.down = True
    await deployment(world, "one")
    found = await world.until("Deployment", "late", lambda found: "does not answer" in found.status.message)
    assert found.status.state == wire.DEPLOYMENT_STATE_UNHEALTHY
    world.backend.down = False
    await world.until("Deployment", "late", complete("one"))


async def test_a_server_that_forgot_gets_its_deployments_again(world: Any) -> None:
    await world.project()
    await model(world, "one")
    await deployment(world, "one")
    found = await world.until("Deployment", "late", complete("one"))
    world.backend.restart()
    world.manager.wake(Key("Deployment", "flights", "late"))
    await world.until("Deployment", "late", lambda _: len(world.backend.applied) == 2)
    found = await world.until("Deployment", "late", complete("one"))
    assert found.status.conditions[0].status == conditions_pb2.CONDITION_STATUS_TRUE
