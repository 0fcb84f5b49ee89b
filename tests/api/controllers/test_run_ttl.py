"""Runs are kept as long as they, their pipeline or their project say; what others refer to stays."""

from datetime import timedelta
from typing import Any

import pytest

from api.audit import read
from api.errors import InvalidArgument
from api.kinds import kinds
from api.store.base import Key
from api.ttl import TTL, parsed
from tests.api.controllers.test_pipeline_run import SUCCEEDED, begun
from tests.api.controllers.test_retention import until_left


def keeps(text: str) -> Any:
    return lambda found: found.metadata.labels.update({TTL: text})


async def ended(world: Any, *names: str) -> None:
    for name in names:
        world.airflow.finish(await begun(world, name))
        await world.until("PipelineRun", name, lambda found: found.status.state == SUCCEEDED)


async def later(world: Any, **by: int) -> None:
    world.ahead = timedelta(**by)
    world.manager.wake(Key("Project", "flights", "flights"))


async def test_a_run_goes_when_its_time_has_come(world: Any) -> None:
    await world.ready()
    await ended(world, "kept", "short", "long")
    await world.change("PipelineRun", "short", keeps("2h"))
    await world.change("PipelineRun", "long", keeps("2d"))
    await later(world, hours=1)
    await until_left(world, "PipelineRun", {"kept", "short", "long"})
    await later(world, hours=3)
    await until_left(world, "PipelineRun", {"kept", "long"})
    entries = [read(record.body) for record in await world.store.audit(0, 1000)]
    removed = [entry.subject for entry in entries if entry.verb == "Delete"]
    assert removed == ["system:retention"]


async def test_the_nearest_says_how_long(world: Any) -> None:
    await world.ready()
    await ended(world, "plain", "own")
    await world.change("PipelineRun", "own", keeps("30d"))
    await world.change("Project", "flights", keeps("1h"))
    await world.change("Pipeline", "train", keeps("10d"))
    await later(world, days=5)
    await until_left(world, "PipelineRun", {"plain", "own"})
    await later(world, days=20)
    await until_left(world, "PipelineRun", {"own"})


async def test_a_run_that_another_goes_on_from_or_that_goes_on_stays(world: Any) -> None:
    await world.ready()
    await world.change("Project", "flights", keeps("1h"))
    await ended(world, "source", "other")
    new = kinds()["PipelineRun"].new("flights", "resumed")
    new.spec.pipeline.name = "train"
    new.spec.resume.pipeline_run.name = "source"
    await world.resources.create(new)
    await world.until("PipelineRun", "resumed", lambda found: found.status.workflow_run_id != "")
    await later(world, days=400)
    await until_left(world, "PipelineRun", {"source", "resumed"})


@pytest.mark.parametrize("text", ["7", "0d", "1w", "-1d", "7D", "99999999999d", "1.5h", "d", "999999d"])
async def test_a_time_that_is_none_is_refused(world: Any, text: str) -> None:
    assert parsed(text) is None
    await world.ready()
    await ended(world, "one")
    with pytest.raises(InvalidArgument) as refused:
        await world.change("PipelineRun", "one", keeps(text))
    (fault,) = refused.value.violations
    assert (fault.field, fault.reason) == (f"metadata.labels[{TTL}]", "BAD_TTL")


def test_every_unit_is_read() -> None:
    assert [parsed(text) for text in ("90s", "30m", "12h", "7d")] == [
        timedelta(seconds=90),
        timedelta(minutes=30),
        timedelta(hours=12),
        timedelta(days=7),
    ]
