"""A hundred thousand objects that are at rest cost a leader nothing: neither at its start nor while it stands by."""

from __future__ import annotations

import asyncio
import time
import uuid
from pathlib import Path
from typing import Any

import psutil
import pytest

from api.controllers.revision import REVISED
from api.gen.michelangelo.api.v2 import pipeline_run_pb2, revision_pb2
from api.kinds import kinds
from api.store.base import Key, Write
from api.store.values import SPEC_UPDATED_LABEL, UPDATED_LABEL
from tests.api.controllers.conftest import World

OBJECTS = 100_000
AT_ONCE = 256
DAY_S = 86_400
STAND_BY_S = 60.0


def at_rest(number: int) -> Any:
    """Return an object on which a controller has done its work: a run, a model or its revision."""
    kind = ("PipelineRun", "PipelineRun", "PipelineRun", "Model", "Revision")[number % 5]
    new = kinds()[kind].new(f"p-{number % 20}", f"o-{number}")
    new.metadata.uid, new.metadata.generation = str(uuid.uuid4()), 1
    new.metadata.creationTimestamp.FromSeconds(int(time.time()) - 10 * DAY_S)
    new.metadata.labels.update({SPEC_UPDATED_LABEL: "1", UPDATED_LABEL: "2"})
    if kind == "PipelineRun":
        new.status.state = pipeline_run_pb2.PIPELINE_RUN_STATE_SUCCEEDED
        new.status.end_time.FromSeconds(int(time.time()) - DAY_S)
        for step in range(6):
            new.status.steps.add(name=f"step-{step}", log_url="http://airflow/" + "x" * 100)
    elif kind == "Model":
        new.metadata.labels[REVISED] = "true"
    else:
        new.spec.content.value = b"x" * 2_000
        new.status.state = revision_pb2.REVISION_STATE_READY
    return new


async def fill(world: World) -> None:
    for project in range(20):
        await world.resources.create(kinds()["Project"].new(f"p-{project}", f"p-{project}"))
    for first in range(0, OBJECTS, AT_ONCE):
        writes = (Write(at_rest(number)) for number in range(first, min(first + AT_ONCE, OBJECTS)))
        await asyncio.gather(*(world.store.create(write) for write in writes))


async def until(world: World, key: Key) -> None:
    deadline = time.monotonic() + 60
    while (found := await world.resources.find(key)) is None or not found.status.last_update_time.seconds:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)


@pytest.mark.robustness
async def test_a_hundred_thousand_objects_at_rest_cost_nothing(tmp_path: Path) -> None:
    world, me = World(tmp_path), psutil.Process()

    def cpu_s() -> float:
        return sum(me.cpu_times()[:2])

    await fill(world)
    memory, began, used = me.memory_info().rss, time.monotonic(), cpu_s()
    world.start()
    await world.resources.create(kinds()["Project"].new("fresh", "fresh"))
    await until(world, Key("Project", "fresh", "fresh"))
    acted_s = time.monotonic() - began
    deadline = time.monotonic() + 60
    while world.manager.busy and time.monotonic() < deadline:  # noqa: ASYNC110
        await asyncio.sleep(0.05)
    start_s, start_cpu_s = time.monotonic() - began, cpu_s() - used
    await asyncio.sleep(5)
    began, used = time.monotonic(), cpu_s()
    await asyncio.sleep(STAND_BY_S)
    percent = 100 * (cpu_s() - used) / (time.monotonic() - began)
    grown_mib = (me.memory_info().rss - memory) / 2**20
    told = (
        f"{OBJECTS} objects: a change acted on {acted_s:.2f} s after the start, all looked at after {start_s:.2f} s "
        f"with {start_cpu_s:.2f} s of CPU time; standing by {percent:.2f} % of a core, {grown_mib:.0f} MiB"
    )
    print(told)
    await world.stop()
    assert start_cpu_s < 5, told
    assert percent <= 1, told
    assert grown_mib < 100, told
