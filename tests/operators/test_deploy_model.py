"""The rollout stage over a real API server with its controllers: it asks, waits and says what the deployment says."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk import DAG
from airflow.sdk.exceptions import AirflowFailException, TaskDeferred

from api.errors import Conflict
from api.gen.michelangelo.api.v2 import deployment_pb2 as wire
from api.gen.michelangelo.api.v2 import revision_pb2
from api.kinds import kinds
from api.server import grpc_server
from api.store.base import Key
from operators import deploy_model
from operators.deploy_model import DeployModelOperator
from operators.hooks import michelangelo
from operators.hooks.michelangelo import MichelangeloHook, client, rollout
from operators.templates import params
from operators.triggers import RolloutTrigger
from tests.api.controllers.conftest import World
from tests.operators.airflow_here import Run
from tests.patience import PATIENCE_S


def stage(deployment: str = "late", model: str = "one") -> Run:
    def build() -> DAG:
        described = {"project": "flights", "pipeline": "train"}
        with DAG("flights.train", schedule=None, params=params.hidden(described)) as dag:
            DeployModelOperator(task_id="deploy_model", deployment=deployment, model=model)
        return dag

    return Run(build)


async def fired(waiting: TaskDeferred) -> Any:
    _, arguments = waiting.trigger.serialize()
    return (await asyncio.wait_for(anext(aiter(RolloutTrigger(**arguments).run())), PATIENCE_S)).payload


async def deferred(run: Run) -> TaskDeferred:
    with pytest.raises(TaskDeferred) as found:
        await asyncio.to_thread(run.execute, "deploy_model")
    return found.value


async def through(run: Run) -> Any:
    waiting = await deferred(run)
    event = await fired(waiting)
    return await asyncio.to_thread(run.resume, "deploy_model", waiting, event)


class PausedWorld(World):
    """Controllers that can stop and begin again."""

    async def pause(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self.manager = self.another_manager(lease_ttl_s=0.2)


@pytest.fixture
async def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[PausedWorld]:
    made = PausedWorld(tmp_path)
    made.start()
    async with grpc_server(made.resources, 0) as port:
        monkeypatch.setenv("MA_HOME", str(tmp_path))
        monkeypatch.setenv("MA_API_PORT", str(port))
        monkeypatch.setattr(michelangelo, "TIMEOUT_S", 5.0)
        monkeypatch.setattr(deploy_model, "REVISION_WAIT_S", 2.0)
        await made.project()
        await made.resources.create(kinds()["InferenceServer"].new("flights", "local"))
        deployment = kinds()["Deployment"].new("flights", "late")
        deployment.spec.inference_server.name = "local"
        deployment.spec.strategy.rolling.increment_percentage = 100
        await made.resources.create(deployment)
        yield made
    await made.stop()


async def registered(world: PausedWorld, name: str) -> None:
    model = kinds()["Model"].new("flights", name)
    model.spec.deployable_artifact_uri.append(f"file:///{name}")
    await world.resources.create(model)
    await world.until("Revision", name, lambda found: found.status.state == revision_pb2.REVISION_STATE_READY)


async def test_a_model_is_rolled_out_and_the_stage_ends_when_it_answers(world: PausedWorld) -> None:
    await registered(world, "one")
    run = stage()
    assert await through(run) == {"deployment": "late", "revision": "one"}
    found = await world.resources.get("Deployment", "flights", "late")
    assert found.status.stage == wire.DEPLOYMENT_STAGE_ROLLOUT_COMPLETE
    assert found.status.current_revision.name == "one"
    assert run.xcoms["deploy_model", "inputs"] == {"deployment": "late", "model": "one"}
    assert run.xcoms["deploy_model", "revision"] == "one"


async def test_a_retry_of_a_rollout_that_is_done_rolls_nothing_out(world: PausedWorld) -> None:
    await registered(world, "one")
    await through(stage())
    before = await world.resources.get("Deployment", "flights", "late")
    assert await through(stage()) == {"deployment": "late", "revision": "one"}
    assert len(world.backend.applied) == 1
    after = await world.resources.get("Deployment", "flights", "late")
    assert after.metadata.generation == before.metadata.generation


async def test_a_model_that_does_not_load_fails_the_stage_for_good_and_the_old_one_answers(world: PausedWorld) -> None:
    await registered(world, "one")
    await registered(world, "two")
    await through(stage())
    world.backend.broken.add("file:///two")
    run = stage(model="two")
    with pytest.raises(AirflowFailException, match=r"deployment late refused two: model\.onnx differs"):
        await through(run)
    assert run.xcoms["deploy_model", "verdict"]["kind"] == "user"
    assert (await world.resources.get("Deployment", "flights", "late")).status.current_revision.name == "one"


async def test_the_failure_of_an_earlier_rollout_is_not_taken_for_this_ones(world: PausedWorld) -> None:
    await registered(world, "one")
    world.backend.broken.add("file:///one")
    with pytest.raises(AirflowFailException):
        await through(stage())
    await registered(world, "two")
    assert await through(stage(model="two")) == {"deployment": "late", "revision": "two"}


async def test_a_model_that_does_not_exist_fails_the_stage_for_good_and_is_named(world: PausedWorld) -> None:
    run = stage(model="none")
    with pytest.raises(AirflowFailException, match=r"'none'.*does not exist"):
        await asyncio.to_thread(run.execute, "deploy_model")
    assert run.xcoms["deploy_model", "verdict"]["kind"] == "user"


async def test_a_model_whose_revision_is_a_moment_late_is_waited_for(
    world: PausedWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deploy_model, "REVISION_WAIT_S", 10.0)
    rolling = asyncio.ensure_future(through(stage()))
    await asyncio.sleep(0.3)
    await registered(world, "one")
    assert await rolling == {"deployment": "late", "revision": "one"}


async def test_a_revision_that_is_no_model_fails_the_stage_also_after_another_failure(world: PausedWorld) -> None:
    await registered(world, "one")
    world.backend.broken.add("file:///one")
    with pytest.raises(AirflowFailException, match=r"model\.onnx differs"):
        await through(stage())
    await world.pipeline()
    pipeline = await world.until("Pipeline", "train", lambda found: bool(found.status.latest_revision.name))
    revision = pipeline.status.latest_revision.name
    with pytest.raises(AirflowFailException, match="no model that can be served"):
        await through(stage(model=revision))


async def test_a_status_that_was_written_before_the_wish_decides_nothing(world: PausedWorld) -> None:
    """Between the wish and the controller's next look the status still tells of the last rollout."""
    await world.pipeline()
    pipeline = await world.until("Pipeline", "train", lambda found: bool(found.status.latest_revision.name))
    with pytest.raises(AirflowFailException):
        await through(stage(model=pipeline.status.latest_revision.name))
    await registered(world, "one")
    await world.pause()
    waiting = await deferred(stage())
    found = await world.resources.get("Deployment", "flights", "late")
    assert found.status.stage == wire.DEPLOYMENT_STAGE_ROLLOUT_FAILED
    assert await asyncio.to_thread(rollout, "flights", "late", "one") == (None, "")
    world.start()
    assert await fired(waiting) == {"complete": True, "message": ""}


async def test_a_rollout_that_another_one_overtook_fails(world: PausedWorld) -> None:
    await registered(world, "one")
    await registered(world, "two")
    waiting = await deferred(stage())
    await through(stage(model="two"))
    event = await fired(waiting)
    assert event == {"complete": False, "message": "another revision, 'two', was desired meanwhile"}


async def test_a_deployment_that_nobody_applied_is_named_with_what_to_do(world: PausedWorld) -> None:
    run = stage(deployment="nowhere")
    with pytest.raises(AirflowFailException, match=r"nowhere.*apply the Deployment"):
        await asyncio.to_thread(run.execute, "deploy_model")
    assert run.xcoms["deploy_model", "verdict"]["kind"] == "user"


def test_without_a_deployment_nothing_is_rolled_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MA_API_PORT", "9")
    assert stage(deployment="").execute("deploy_model") == {"deployment": "", "revision": "one"}


async def test_a_writer_in_between_does_not_fail_the_rollout(
    world: PausedWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    await registered(world, "one")
    await interfere(world, monkeypatch, times=2)
    assert await through(stage()) == {"deployment": "late", "revision": "one"}


async def interfere(world: PausedWorld, monkeypatch: pytest.MonkeyPatch, *, times: int) -> None:
    """Let somebody else write the deployment between the stage's read and its write."""
    from api.client import Client

    get: Callable[..., Any] = Client.get
    loop = asyncio.get_running_loop()
    left = [times]

    async def label() -> None:
        while True:
            found = await world.resources.get("Deployment", "flights", "late")
            found.metadata.labels["seen"] = str(left[0])
            # The controller writes too.
            with contextlib.suppress(Conflict):
                await world.resources.update(found)
                return

    def read(self: Client, kind: str, namespace: str, name: str) -> Any:
        found = get(self, kind, namespace, name)
        if kind == "Deployment" and left[0] > 0:
            left[0] -= 1
            asyncio.run_coroutine_threadsafe(label(), loop).result(5)
        return found

    monkeypatch.setattr(Client, "get", read)


async def test_the_hook_gives_a_client_of_this_platform(world: PausedWorld) -> None:
    def read() -> Any:
        with MichelangeloHook().get_conn() as api, client() as same:
            return api.get("Project", "flights", "flights"), same.get("Project", "flights", "flights")

    one, other = await asyncio.to_thread(read)
    # Its controller may write the status between the two.
    assert (one.metadata.uid, one.spec) == (other.metadata.uid, other.spec)
    assert (await world.resources.find(Key("Project", "flights", "flights"))) is not None
