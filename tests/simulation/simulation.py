"""One hour of a platform: users, two processes that lead in turn, an Airflow, a seed that decides what goes wrong."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import random
import tempfile
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from unittest import mock

from api.admitters import ADMITTERS
from api.calls import Call
from api.config import Config
from api.controllers import controllers_of
from api.controllers.adoption import Adopter
from api.controllers.leadership import Leadership
from api.controllers.pipeline_run import PipelineRunController
from api.controllers.platform import Platform
from api.controllers.runtime import Manager, Term
from api.errors import ApiError
from api.gen.michelangelo.api.v2 import pipeline_pb2
from api.kinds import kinds
from api.manifests import Manifests
from api.resources import Resources
from api.store import sqlite
from api.store.base import Key
from api.workflows import TEMPLATE_TYPE, typed
from tests.robustness.fakes import airflow as fake_airflow
from tests.robustness.fakes.backend import FakeBackend
from tests.simulation.airflow import Client, SimulatedAirflow, Weather
from tests.simulation.checks import CheckedStore, Checks
from tests.simulation.virtual import EPOCH_S, Process, VirtualLoop, virtual_time

HOUR_S = 3600.0
LEASE_S = 15.0
CALM_S = 200.0
# Where files are cheap: what a power failure does is shown elsewhere.
MEMORY = Path("/dev/shm")


@dataclass(frozen=True)
class Outcome:
    """What became of a seed.  `digest`: of its trace, the same for the same seed."""

    seed: int
    broken: tuple[str, ...]
    digest: str
    runs: int
    changes: int
    refused: int
    terms: int


class Node:
    """A process that may lead.  It is frozen, killed and started again."""

    def __init__(self, name: str, world: World) -> None:
        self.name, self._world = name, world
        self.past: list[Process] = []
        self.terms = 0
        self.start()

    def start(self) -> None:
        world = self._world
        self.process = Process(f"{self.name}{len(self.past)}")
        self.past.append(self.process)
        self.adopter: Adopter | None = None
        self._client = Client(world.airflow, world.weather, world.loop, world.rng)
        self.manager = Manager(
            Resources(world.store, ADMITTERS),
            self._begin,
            ttl_s=LEASE_S,
            holder=self.process.name,
            clock=world.loop.time,
            rng=random.Random(world.rng.random()),
        )
        self.process.task(world.loop, self.manager.run())

    def _begin(self, leadership: Leadership) -> Term:
        self.terms += 1
        self._world.say(f"{self.process.name} leads, epoch {leadership.lease.epoch}")
        platform = Platform(
            self._world.config,
            leadership.resources,
            leadership.guard(self._client),
            leadership.guard(Manifests(self._world.config)),
            leadership.guard(self._world.backend),
            self.manager.wake,
            self._world.now,
        )
        runs = PipelineRunController(platform)
        self.adopter = Adopter(platform, runs)
        return Term(controllers_of(platform, runs), (self.adopter.resync,))

    def hear(self, dag_id: str, run_id: str) -> None:
        """Get a report of Airflow's listener."""
        if self.adopter is not None and self.manager.leading and not self.process.frozen:
            self.process.task(self._world.loop, _tell(self.adopter, dag_id, run_id))


class World:
    """Everything of one seed."""

    def __init__(self, seed: int, loop: VirtualLoop, rng: random.Random, folder: Path) -> None:
        self.seed, self.loop, self.rng = seed, loop, rng
        self._trace = hashlib.sha256()
        self.said: list[str] = []
        self.config = Config(home=folder, projects_root=folder)
        paths = {"dags_path": self.config.dags_path, "manifests_path": self.config.manifests_path}
        self.airflow = SimulatedAirflow(loop, rng, self.say, **paths)
        self.airflow.template("train")
        self.weather = Weather(rng)
        self.backend = FakeBackend()
        self.store = CheckedStore(folder / "store.db")
        self.checks = Checks(self.store, self.airflow)
        self.users = Resources(self.store, ADMITTERS).of(Call(force=True))
        self.airflow.listen(self._report)
        self.nodes: list[Node] = []

    def say(self, text: str) -> None:
        """Add to the trace."""
        self.said.append(f"{self.loop.time():9.3f} {text}")
        self._trace.update(self.said[-1].encode())

    def now(self) -> Any:
        """Return the time of day."""
        return datetime.fromtimestamp(EPOCH_S + self.loop.time(), UTC)

    def _report(self, dag_id: str, run_id: str) -> None:
        """Have a change of a run told: never, once or twice, now or after others."""
        for _ in range(self.rng.choices((0, 1, 2), (20, 65, 15))[0]):
            node = self.rng.choice(self.nodes)
            late_s = self.rng.choice((0.01, 0.2, self.rng.uniform(1, 40)))
            self.loop.outside(late_s, lambda node=node: node.hear(dag_id, run_id))  # type: ignore[misc]

    # What users do.

    async def prepare(self) -> None:
        await self.users.create(kinds()["Project"].new("p", "p"))
        for name in ("train", "other"):
            new = kinds()["Pipeline"].new("p", name)
            new.spec.manifest.type = pipeline_pb2.PipelineManifest.PIPELINE_MANIFEST_TYPE_YAML
            new.spec.manifest.file_path = "train"
            new.spec.manifest.content.Pack(typed(TEMPLATE_TYPE, {}))
            await self.users.create(new)

    async def act(self) -> None:
        """Do an hour's work."""
        plans = [self._a_run(number) for number in range(self.rng.randint(4, 8))]
        plans += [self._a_run_in_airflow(number) for number in range(self.rng.randint(0, 2))]
        plans += [self._a_change_of_mind(), self._a_model()]
        await asyncio.gather(*plans)

    async def _wait(self, least_s: float, most_s: float) -> None:
        await asyncio.sleep(self.rng.uniform(least_s, most_s))

    async def _a_run(self, number: int) -> None:
        name, pipeline = f"run-{number}", self.rng.choice(("train", "train", "other"))
        await self._wait(1, 3000)
        for _ in range(self.rng.choice((1, 1, 1, 2))):
            with contextlib.suppress(ApiError):
                new = kinds()["PipelineRun"].new("p", name)
                new.spec.pipeline.name = pipeline
                made = await self.users.create(new)
                self.say(f"create {name} {made.metadata.uid}")
            if self.rng.random() < 0.3:
                await self._wait(0, self.rng.choice((5, 150)))
                await self._kill(name)
            while self.rng.random() < 0.3:
                await self._wait(0, self.rng.choice((5, 150, 600)))
                await self._retry(name)
            if self.rng.random() < 0.4:
                await self._wait(0, self.rng.choice((5, 150)))
                await self._delete("PipelineRun", name)

    async def _kill(self, name: str) -> None:
        with contextlib.suppress(ApiError):
            run = await self.users.get("PipelineRun", "p", name)
            run.spec.kill = True
            await self.users.update(run)
            self.say(f"kill {name}")

    async def _retry(self, name: str) -> None:
        with contextlib.suppress(ApiError):
            run = await self.users.get("PipelineRun", "p", name)
            run.spec.retry_info.activity_id = self.rng.choice(("first", "second", "nobody"))
            await self.users.update(run)
            self.say(f"retry {name}")

    async def _delete(self, kind: str, name: str) -> None:
        with contextlib.suppress(ApiError):
            await self.users.delete(kind, "p", name)
            self.say(f"delete {kind} {name}")

    async def _a_run_in_airflow(self, number: int) -> None:
        await self._wait(60, 3000)
        with contextlib.suppress(KeyError):
            self.airflow.begin("p.train", f"manual__{number}")

    async def _a_change_of_mind(self) -> None:
        await self._wait(100, 3000)
        for text in "abc"[: self.rng.randint(1, 3)]:
            with contextlib.suppress(ApiError):
                pipeline = await self.users.get("Pipeline", "p", "other")
                pipeline.spec.description = text
                await self.users.update(pipeline)
            await self._wait(1, 60)
        if self.rng.random() < 0.3:
            await self._delete("Pipeline", "other")

    async def _a_model(self) -> None:
        await self._wait(1, 3000)
        model = kinds()["Model"].new("p", "late-1")
        model.spec.deployable_artifact_uri.append("file:///late-1")
        with contextlib.suppress(ApiError):
            await self.users.create(model)
            await self._wait(0, 300)
            if self.rng.random() < 0.5:
                await self._delete("Model", "late-1")

    # What goes wrong.

    async def change_weather(self) -> None:
        """Have Airflow and the network to it be bad for a while, now and then."""
        while True:
            await self._wait(30, 400)
            self.weather.bad = self.rng.choice((0, 5, 30, 70))
            self.weather.down = self.rng.random() < 0.25
            self.say(f"weather {self.weather.bad} {'down' if self.weather.down else ''}")
            await self._wait(5, 120)
            self.weather.bad, self.weather.down = 0, False

    async def trouble(self) -> None:
        """Freeze and kill processes, now and then."""
        while True:
            await self._wait(60, 500)
            node = self.rng.choice(self.nodes)
            kills = self.rng.random() < 0.5
            self.say(f"{'kill' if kills else 'freeze'} {node.process.name}")
            if kills:
                node.process.dead = True
                await self._wait(0.5, 60)
                node.start()
            else:
                node.process.frozen = True
                await self._wait(0.5, 60)
                self.loop.thaw(node.process)

    async def live(self) -> Outcome:
        """Live through the hour, come to rest, and judge."""
        self.nodes += [Node("a", self), Node("b", self)]
        following = asyncio.create_task(self.checks.follow())
        await self.prepare()
        troubles = [asyncio.create_task(work()) for work in (self.change_weather, self.trouble)]
        acting = asyncio.create_task(self.act())
        await asyncio.sleep(HOUR_S)
        await acting
        for task in troubles:
            task.cancel()
        await asyncio.gather(*troubles, return_exceptions=True)
        await self._calm()
        await self.checks.at_the_end()
        if self.rng.random() < 0.5:
            await self._end_project()
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
        outcome = self._outcome()
        for node in self.nodes:
            for process in node.past:
                await self.loop.bury(process)
        return outcome

    async def _calm(self) -> None:
        self.weather.bad, self.weather.down = 0, False
        for node in self.nodes:
            if node.process.dead:
                node.start()
            elif node.process.frozen:
                self.loop.thaw(node.process)
        await asyncio.sleep(CALM_S)
        known = {item.metadata.uid for item in (await self.users.list("PipelineRun")).items}
        for run in list(self.airflow.runs.values()):
            if run.state in ("queued", "running") and run.conf.get("ma", {}).get("owner_uid", "") in {"", *known}:
                self.airflow.finish(run)
        await asyncio.sleep(60)

    async def _end_project(self) -> None:
        await self.users.delete("Project", "p", "p")
        await asyncio.sleep(CALM_S)
        left = [f"{kind} {one.metadata.name}" for kind in kinds() for one in (await self.users.list(kind)).items]
        files = [path.name for path in self.config.dags_path.glob("*")]
        dags = [name for name, dag in self.airflow.dags.items() if name.startswith("p.") and not dag.is_stale]
        if left or files or dags or await self.users.find(Key("Project", "p", "p")) is not None:
            self.checks.broken.append(f"left of the deleted project: {left} {files} {dags}")

    def _outcome(self) -> Outcome:
        return Outcome(
            seed=self.seed,
            broken=tuple(self.store.broken + self.checks.broken),
            digest=self._trace.hexdigest(),
            runs=len(self.airflow.posts),
            changes=self.checks.changes,
            refused=self.store.refused,
            terms=sum(node.terms for node in self.nodes),
        )


async def _tell(adopter: Adopter, dag_id: str, run_id: str) -> None:
    # A report that cannot be acted on is no more than a lost one.
    with contextlib.suppress(Exception):
        await adopter.seen(dag_id, run_id)


def simulate(seed: int) -> tuple[Outcome, list[str]]:
    """Run one seed; returns what became of it, and its trace."""
    rng = random.Random(seed)
    loop = VirtualLoop(rng)
    with (
        tempfile.TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None) as folder,
        virtual_time(loop, rng, fake_airflow),
        # Both processes hear of each other's writes at once: they have one store.
        mock.patch.object(sqlite, "POLL_S", 2 * HOUR_S),
    ):
        world: World | None = None

        async def whole() -> Outcome:
            nonlocal world
            world = World(seed, loop, rng, Path(folder))
            try:
                return await world.live()
            finally:
                await world.store.close()

        try:
            return loop.run_until_complete(whole()), world.said if world else []
        finally:
            loop.close()
