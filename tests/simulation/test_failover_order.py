"""A new leader begins what waits before it looks at what runs, however much runs (guarantees G8, G9).

In virtual time, over the simulated network: two to a hundred milliseconds a request.
"""

from __future__ import annotations

import asyncio
import random
import tempfile
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from api.controllers.pipeline_run import run_id
from api.controllers.run_report import has_ended
from api.gen.michelangelo.api.v2 import pipeline_pb2
from api.gen.michelangelo.api.v2 import pipeline_run_pb2 as wire
from api.kinds import kinds
from api.store.base import Write
from tests.robustness.fakes import airflow as fake_airflow
from tests.robustness.fakes.airflow import FakeAirflow
from tests.simulation.simulation import MEMORY, Node, World
from tests.simulation.virtual import EPOCH_S, VirtualLoop, virtual_time

FEW, MANY = 300, 2_000
ENDED = 50
NEW_PER_S = 5
POLL_S = 10.0
LONGEST_S = 120.0
READY = pipeline_pb2.PIPELINE_STATE_READY


@dataclass(frozen=True)
class Taken:
    """Seconds since the new leader began: until all that waited was begun, until all that had ended was told.

    newest_s: the longest that a run waited which was created afterwards.
    """

    begun_s: float
    told_s: float
    newest_s: float


class Failover:
    """A platform without a leader: `running` runs run, as many wait as a tenth of them, some ended meanwhile."""

    def __init__(self, world: World, running: int) -> None:
        self.world, self.running = world, running
        world.airflow.begin = lambda *given: FakeAirflow.begin(world.airflow, *given)  # type: ignore[method-assign]
        # No report arrives: whatever is told is found by looking.
        world.airflow._watchers.clear()

    def _run(self, name: str) -> Any:
        new = kinds()["PipelineRun"].new("p", name)
        new.metadata.uid = str(uuid.uuid4())
        new.metadata.creationTimestamp.FromSeconds(int(EPOCH_S))
        new.spec.pipeline.name = "train"
        return new

    async def prepare(self) -> None:
        """Have a leader make the pipeline ready and die; then fill the store."""
        first = Node("first", self.world)
        await self.world.prepare()
        while (await self.world.users.get("Pipeline", "p", "train")).status.state != READY:  # noqa: ASYNC110
            await asyncio.sleep(0.1)
        await self.world.loop.bury(first.process)
        for number in range(self.running):
            await self._begun(f"a-{number}", number < ENDED)
        self.waiting = []
        for number in range(self.running // 10):
            self.waiting.append(await self.world.store.create(Write(self._run(f"z-{number}"))))

    async def _begun(self, name: str, ended: bool) -> None:
        run = self._run(name)
        conf = {"ma": {"owner_uid": run.metadata.uid, "namespace": "p", "pipeline_run": name}}
        found = self.world.airflow.begin("p.train", run_id(run), conf)
        self.world.airflow.advance(found)
        self.world.airflow.advance(found)
        run.metadata.finalizers.append("michelangelo.airflow/dag-run")
        run.status.state = wire.PIPELINE_RUN_STATE_RUNNING
        run.status.workflow_id, run.status.workflow_run_id = "p.train", found.run_id
        if ended:
            self.world.airflow.finish(found)
        await self.world.store.create(Write(run))

    async def take_over(self) -> Taken:
        loop, posts = self.world.loop, self.world.airflow.posts
        self.world.nodes.append(Node("a", self.world))
        while not self.world.nodes[0].manager.leading:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        began = loop.time()
        wanted, newer, waits = {run_id(run) for run in self.waiting}, dict[str, float](), dict[str, float]()
        begun_s = told_s = LONGEST_S
        while LONGEST_S in (begun_s, told_s) and loop.time() < began + LONGEST_S:
            made = await self.world.users.create(self._run(f"n-{len(newer)}"))
            newer[run_id(made)] = loop.time()
            await asyncio.sleep(1 / NEW_PER_S)
            posted = {run for _, run in posts}
            if wanted <= posted:
                begun_s = min(begun_s, loop.time() - began)
            if await self._told():
                told_s = min(told_s, loop.time() - began)
            for run in newer.keys() - waits.keys():
                if run in posted:
                    waits[run] = loop.time() - newer[run]
        late = [loop.time() - newer[run] for run in newer.keys() - waits.keys()]
        return Taken(begun_s, told_s, max([*waits.values(), *late]))

    async def _told(self) -> bool:
        found = [await self.world.users.get("PipelineRun", "p", f"a-{number}") for number in range(ENDED)]
        return all(has_ended(run) for run in found)


def failover(running: int) -> Taken:
    rng = random.Random(4)
    loop = VirtualLoop(rng)

    async def whole(folder: Path) -> Taken:
        world = World(4, loop, rng, folder)
        try:
            one = Failover(world, running)
            await one.prepare()
            return await one.take_over()
        finally:
            for node in world.nodes:
                await loop.bury(node.process)
            await world.store.close()

    with (
        tempfile.TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None) as folder,
        virtual_time(loop, rng, fake_airflow),
    ):
        try:
            return loop.run_until_complete(whole(Path(folder)))
        finally:
            loop.close()


@pytest.mark.parametrize("running", [FEW, pytest.param(MANY, marks=pytest.mark.robustness)])
def test_what_waits_is_begun_before_what_runs_is_looked_at(running: int) -> None:
    taken = failover(running)
    print(f"{running} runs run and {running // 10} wait: {taken}")
    assert taken.begun_s < 2 * POLL_S
    assert taken.told_s < 2 * POLL_S
    assert taken.newest_s < POLL_S
