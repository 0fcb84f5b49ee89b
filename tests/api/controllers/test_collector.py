"""Foreground waits, orphans are let go, and nothing lives on whose owners are gone."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from starlette.responses import PlainTextResponse

from api.kinds import kinds
from api.store.base import Key, Write
from tests.api.controllers.test_pipeline_run import begun


async def family(world: Any, name: str, *owners: Any, finalizer: str = "") -> Any:
    new = kinds()["ModelFamily"].new("flights", name)
    for owner in owners:
        new.metadata.ownerReferences.add(kind=owner.DESCRIPTOR.name, name=owner.metadata.name, uid=owner.metadata.uid)
    if finalizer:
        new.metadata.finalizers.append(finalizer)
    return await world.resources.create(new)


async def owned_run(world: Any, owner: Any) -> Any:
    """Return the DAG run of a PipelineRun that `owner` owns."""
    dag_run = await begun(world)
    world.airflow.advance(dag_run)
    await world.change(
        "PipelineRun",
        "one",
        lambda run: run.metadata.ownerReferences.add(
            kind="ModelFamily", name=owner.metadata.name, uid=owner.metadata.uid
        ),
    )
    return dag_run


async def test_a_foreground_delete_waits_until_what_is_owned_is_undone(world: Any) -> None:
    await world.ready()
    top = await family(world, "top")
    middle = await family(world, "middle", top)
    dag_run = await owned_run(world, middle)
    world.airflow.broken = PlainTextResponse("down", status_code=503)
    await world.resources.delete("ModelFamily", "flights", "top", foreground=True)
    await world.until("PipelineRun", "one", lambda run: run.metadata.HasField("deletionTimestamp"))
    await asyncio.sleep(0.2)
    for name in ("top", "middle"):
        held = await world.resources.get("ModelFamily", "flights", name)
        assert held.metadata.HasField("deletionTimestamp")
    world.airflow.broken = None
    await world.until_gone("ModelFamily", "top")
    assert dag_run.state == "failed"
    for key in (Key("ModelFamily", "flights", "middle"), Key("PipelineRun", "flights", "one")):
        assert await world.resources.find(key) is None


async def test_a_background_delete_does_not_wait(world: Any) -> None:
    await world.ready()
    dag_run = await owned_run(world, await family(world, "top"))
    world.airflow.broken = PlainTextResponse("down", status_code=503)
    await world.resources.delete("ModelFamily", "flights", "top")
    assert await world.resources.find(Key("ModelFamily", "flights", "top")) is None
    world.airflow.broken = None
    await world.until_gone("PipelineRun", "one")
    assert dag_run.state == "failed"


async def test_an_owner_with_work_left_lets_its_orphans_go_first(world: Any) -> None:
    await world.project()
    owner = await family(world, "owner", finalizer="a.example/work")
    await family(world, "orphan", owner)
    await world.resources.delete("ModelFamily", "flights", "owner", orphan=True)
    await world.until("ModelFamily", "orphan", lambda found: not found.metadata.ownerReferences)
    await world.resources.set_finalizer(owner, "a.example/work", present=False)
    await world.until_gone("ModelFamily", "owner")
    assert await world.resources.find(Key("ModelFamily", "flights", "orphan")) is not None


@pytest.mark.parametrize("leads_before", [True, False])
async def test_an_object_whose_owner_was_replaced_meanwhile_is_removed(world: Any, leads_before: bool) -> None:
    await world.project()
    owner = await family(world, "owner")
    child = kinds()["ModelFamily"].new("flights", "child")
    child.metadata.uid = "00000000-0000-4000-8000-000000000001"
    child.metadata.creationTimestamp.GetCurrentTime()
    child.metadata.ownerReferences.add(kind="ModelFamily", name="owner", uid="00000000-0000-4000-8000-000000000002")
    if leads_before:
        await world.until("Project", "flights", lambda found: found.status.state != 0)
    # As it stands when its owner was deleted and made anew between the check and the write.
    await world.store.create(Write(child))
    await world.until_gone("ModelFamily", "child")
    assert (await world.resources.get("ModelFamily", "flights", "owner")).metadata.uid == owner.metadata.uid
