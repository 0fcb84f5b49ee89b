"""Retention removes what is old, and never what serves, what is referred to, or the last good ones."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from api.audit import read
from api.controllers import retention
from api.controllers.retention import DRY_RUN, PLAN
from api.gen.michelangelo.api.v2 import deployment_pb2 as deployments
from api.gen.michelangelo.api.v2 import inference_server_pb2 as servers
from api.kinds import kinds
from api.store.base import Key
from tests.api.controllers.test_pipeline_run import begun
from tests.api.controllers.test_serving import complete, deployment, desire, model
from tests.patience import eventually


async def keep(world: Any, change: Callable[[Any], None], *, dry: bool = False, days_later: int = 40) -> None:
    """Set what a project keeps, when so many days have gone by."""
    world.ahead = timedelta(days=days_later)

    def configure(project: Any) -> None:
        change(project.spec.retention_config)
        if dry:
            project.metadata.annotations[DRY_RUN] = "true"

    await world.change("Project", "flights", configure)


def models_for(days: int) -> Callable[[Any], None]:
    return lambda config: setattr(config.model_retention, "retention_in_days", days)


async def names(world: Any, kind: str = "Model") -> set[str]:
    return {item.metadata.name for item in (await world.resources.list(kind)).items}


async def until_left(world: Any, kind: str, wanted: set[str]) -> None:
    await eventually(lambda: names(world, kind), lambda left: left == wanted)


async def made(world: Any, *of: str) -> None:
    for name in of:
        await model(world, name)
        # Which of two models is newer is told by the second.
        stored = await world.store.get(Key("Model", "flights", name))
        assert stored.metadata.creationTimestamp.seconds


async def test_old_models_go_with_their_revisions_but_for_the_last_good_three(
    world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "_made", lambda resource: int(resource.metadata.resourceVersion))
    monkeypatch.setattr(retention, "_us", lambda moment: 10**18)
    await world.project()
    await made(world, *(f"late-{number}" for number in range(6)), "other-1")
    await keep(world, models_for(30))
    await until_left(world, "Model", {"late-3", "late-4", "late-5", "other-1"})
    await until_left(world, "Revision", {"late-3", "late-4", "late-5", "other-1"})
    removed = [read(record.body) for record in await world.store.audit(0, 1000)]
    assert {(entry.subject, entry.verb, entry.name) for entry in removed} >= {("system:retention", "Delete", "late-0")}


async def test_a_damaged_model_is_none_of_the_last_good(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "_made", lambda resource: int(resource.metadata.resourceVersion))
    monkeypatch.setattr(retention, "_us", lambda moment: 10**18)
    await world.project()
    await made(world, "late-0", "late-1", "late-2", "late-3")
    bad = kinds()["Model"].new("flights", "late-4")
    await world.resources.create(bad)
    await keep(world, models_for(30))
    await until_left(world, "Model", {"late-1", "late-2", "late-3", "late-4"})


async def test_young_models_stay(world: Any) -> None:
    await world.project()
    await made(world, *(f"late-{number}" for number in range(5)))
    await keep(world, models_for(30), days_later=29)
    await asyncio.sleep(0.3)
    assert len(await names(world)) == 5


async def test_a_model_that_serves_stays_however_old(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "GOOD_ONES_KEPT", 0)
    await world.project()
    await made(world, "late-1", "late-2", "late-3")
    await deployment(world, "late-1")
    await world.until("Deployment", "late", complete("late-1"))
    world.backend.slow.add("file:///late-2")
    await desire(world, "late-2")
    await keep(world, models_for(30))
    await until_left(world, "Model", {"late-1", "late-2"})


async def test_old_runs_go_unless_a_model_that_stays_came_from_them(
    world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    await world.ready()
    for name in ("one", "two", "three"):
        dag_run = await begun(world, name)
        if name != "three":
            world.airflow.finish(dag_run)
            await world.until("PipelineRun", name, lambda found: found.status.HasField("end_time"))
    new = kinds()["Model"].new("flights", "late-1")
    new.spec.deployable_artifact_uri.append("file:///late-1")
    new.spec.source_pipeline_run.name = "two"
    await world.resources.create(new)
    await keep(world, models_for(30))
    await until_left(world, "PipelineRun", {"two", "three"})
    monkeypatch.setattr(retention, "GOOD_ONES_KEPT", 0)
    await keep(world, models_for(29))
    await until_left(world, "Model", set())
    await until_left(world, "PipelineRun", {"three"})


async def test_a_dry_run_lists_what_would_go_and_removes_nothing(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "GOOD_ONES_KEPT", 1)
    await world.project()
    await made(world, "late-1", "other-1", "other-2")
    monkeypatch.setattr(retention, "_made", lambda resource: int(resource.metadata.resourceVersion))
    monkeypatch.setattr(retention, "_us", lambda moment: 10**18)
    await keep(world, models_for(30), dry=True)
    project = await world.until("Project", "flights", lambda found: PLAN in found.metadata.annotations)
    assert json.loads(project.metadata.annotations[PLAN]) == {"Model": {"count": 1, "first": ["other-1"]}}
    assert await names(world) == {"late-1", "other-1", "other-2"}
    await world.change("Project", "flights", lambda found: found.metadata.annotations.pop(DRY_RUN))
    await keep(world, models_for(29))
    await until_left(world, "Model", {"late-1", "other-2"})
    await world.until("Project", "flights", lambda found: PLAN not in found.metadata.annotations)


async def test_deployments_and_servers_that_serve_nothing_go_after_their_time(world: Any) -> None:
    await world.project()
    await made(world, "late-1")
    await deployment(world, "late-1")
    await world.until("Deployment", "late", complete("late-1"))

    def both(config: Any) -> None:
        config.online_deployment_retention.retention_in_days = 7
        config.endpoint_retention.retention_in_days = 7

    await keep(world, both, days_later=8)
    await asyncio.sleep(0.2)
    assert await names(world, "Deployment") == {"late"}
    await desire(world, "")
    await world.until("Deployment", "late", lambda found: found.status.state == deployments.DEPLOYMENT_STATE_EMPTY)
    await world.change("InferenceServer", "local", lambda found: setattr(found.spec.decom_spec, "decommission", True))
    gone = servers.INFERENCE_SERVER_STATE_DELETED
    await world.until("InferenceServer", "local", lambda found: found.status.state == gone)
    world.ahead = timedelta(days=16)
    await world.change("Project", "flights", lambda found: setattr(found.spec, "description", "look again"))
    await until_left(world, "Deployment", set())
    await world.change("Project", "flights", lambda found: setattr(found.spec, "description", "and again"))
    await until_left(world, "InferenceServer", set())


async def test_a_project_without_retention_keeps_all(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "GOOD_ONES_KEPT", 0)
    await world.project()
    await made(world, "late-1")
    await keep(world, lambda config: config.model_retention.SetInParent(), days_later=4000)
    await asyncio.sleep(0.2)
    assert await names(world) == {"late-1"}
