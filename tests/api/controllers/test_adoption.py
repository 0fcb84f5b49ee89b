"""Runs of any id and any conf that were started in Airflow, and one that cannot be adopted among others that can."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from api.admission import is_name
from api.errors import FailedPrecondition, InvalidArgument
from tests.patience import eventually

ADOPTED = "michelangelo.airflow/adopted-run"


async def resynced(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Look at the recent runs once, with nobody reporting any."""
    asked = asyncio.Event()
    recent = world.client.recent_runs

    async def counted(since: Any) -> Any:
        if asked.is_set():
            await asyncio.Event().wait()
        found = await recent(since)
        asked.set()
        return found

    monkeypatch.setattr("api.controllers.adoption.RESYNC_S", 0.01)
    monkeypatch.setattr(world.client, "recent_runs", counted)
    looking = asyncio.create_task(world.adopter.resync())
    await asked.wait()
    await asyncio.sleep(0.2)
    looking.cancel()
    await asyncio.gather(looking, return_exceptions=True)


async def adopted(world: Any) -> set[str]:
    return {item.metadata.annotations[ADOPTED] for item in (await world.resources.list("PipelineRun")).items}


async def until_adopted(world: Any, run_id: str) -> None:
    await eventually(lambda: adopted(world), lambda known: run_id in known)


@pytest.mark.parametrize(
    "run_id",
    ["manual__größe \U0001f600", "x" * 250, ".", "..", "...", "manual__2026-11-21T04:00:00.123456+00:00", "A_B", " "],
)
async def test_a_run_of_any_id_is_adopted_under_a_legal_name(world: Any, run_id: str) -> None:
    await world.ready()
    world.airflow.begin("flights.train", run_id)
    await until_adopted(world, run_id)
    (item,) = (await world.resources.list("PipelineRun")).items
    assert is_name(item.metadata.name)


@pytest.mark.parametrize(
    "conf",
    [
        {},
        {"rows": None},
        {"": 1},
        {"a b": {"c": [1, {"d": None}]}},
        {"rows": 10**18},
        {"ma": "mine"},
        {"x": "{{ 7*7 }}"},
    ],
)
async def test_a_run_of_any_conf_is_adopted(world: Any, conf: dict[str, Any]) -> None:
    await world.ready()
    world.airflow.begin("flights.train", "manual__odd", conf)
    await until_adopted(world, "manual__odd")


async def test_a_run_that_cannot_be_adopted_does_not_keep_others_waiting(
    world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    await world.ready()
    world.airflow._watchers.clear()
    for number in range(4):
        world.airflow.begin("flights.train", f"manual__{number}")
    resources = world.adopter._platform.resources
    create = resources.create
    refusals: dict[str, Exception] = {
        "manual__0": InvalidArgument("no"),
        "manual__1": ValueError("an answer that nobody expected"),
        "manual__2": FailedPrecondition("its project is being deleted"),
    }

    async def refusing(resource: Any, **options: Any) -> Any:
        if refusal := refusals.get(resource.metadata.annotations.get(ADOPTED, "")):
            raise refusal
        return await create(resource, **options)

    monkeypatch.setattr(resources, "create", refusing)
    await resynced(world, monkeypatch)
    assert await adopted(world) == {"manual__3"}
