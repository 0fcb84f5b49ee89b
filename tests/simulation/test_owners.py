"""Random owners, random deletes and a collector that is killed: what is left is what a model of ten lines says (G11).

Background, foreground and orphan; finalizers whose effect must have happened before the object is gone.
"""

from __future__ import annotations

import asyncio
import random
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from api.calls import Call
from api.config import Config
from api.controllers.collector import REMOVAL_S, Collector
from api.controllers.leadership import Leadership
from api.controllers.platform import Platform
from api.controllers.runtime import Manager, Term
from api.errors import ApiError, NotFound
from api.kinds import Resource, kinds
from api.manifests import Manifests
from api.resources import Resources
from api.store import sqlite
from api.store.base import Change, ChangeType, Key, Write
from api.store.sqlite import SqliteStore
from tests.robustness.fakes import airflow as fake_airflow
from tests.robustness.fakes.backend import FakeBackend
from tests.robustness.results import told
from tests.simulation.airflow import Client, SimulatedAirflow, Weather
from tests.simulation.simulation import MEMORY
from tests.simulation.virtual import Process, VirtualLoop, virtual_time

FINALIZER = "a.example/work"
POLICIES = ("background", "background", "foreground", "orphan")
KINDS = ("ModelFamily", "Model")
REST_S = 40.0


@dataclass
class Model:
    """What ought to be left: owners by name, in the order of deletes, each at rest before the next."""

    owners: dict[str, set[str]] = field(default_factory=dict)

    def delete(self, name: str, policy: str) -> None:
        if name not in self.owners:
            return
        del self.owners[name]
        for child in [child for child, owners in self.owners.items() if name in owners]:
            self.owners.get(child, set()).discard(name)
            if policy != "orphan" and not self.owners.get(child, {""}):
                self.delete(child, policy)


class Finalizing:
    """Does the work of a finalizer, then takes it away; may be killed between the two."""

    kind = "ModelFamily"
    unsettled = None

    def __init__(self, resources: Resources, done: set[str], rng: random.Random) -> None:
        self._resources, self._done, self._rng = resources, done, rng

    def settled(self, resource: Resource) -> bool:
        return not resource.metadata.HasField("deletionTimestamp")

    async def related(self, change: Change) -> Sequence[Key]:
        return ()

    async def reconcile(self, key: Key) -> float | None:
        found = await self._resources.find(key)
        if found is None or self.settled(found) or FINALIZER not in found.metadata.finalizers:
            return None
        await asyncio.sleep(self._rng.uniform(0, 3))
        self._done.add(found.metadata.uid)
        await asyncio.sleep(self._rng.uniform(0, 1))
        await self._resources.set_finalizer(found, FINALIZER, present=False)
        return None


def _now() -> datetime:
    return datetime.fromtimestamp(time.time(), UTC)


class World:
    def __init__(self, loop: VirtualLoop, rng: random.Random, folder: Path) -> None:
        self.loop, self.rng = loop, rng
        self.store = SqliteStore(folder / "store.db")
        self.users = Resources(self.store).of(Call(force=True))
        self.config = Config(home=folder, projects_root=folder)
        self.airflow = SimulatedAirflow(loop, rng, lambda _: None)
        self.model, self.done, self.waiting = Model(), set[str](), dict[str, str]()
        self.broken: list[str] = []
        self.kills = 0
        self.past: list[Process] = []

    def start(self) -> None:
        """Begin to collect, in a new process."""
        process = Process(f"collector-{len(self.past)}")
        self.past.append(process)

        def begin(leadership: Leadership) -> Term:
            client = Client(self.airflow, Weather(self.rng), self.loop, self.rng)
            manifests, backend = Manifests(self.config), FakeBackend()
            platform = Platform(self.config, leadership.resources, client, manifests, backend, manager.wake, _now)
            return Term((Collector(platform), Finalizing(leadership.resources, self.done, self.rng)))

        manager = Manager(self.users, begin, ttl_s=3, holder=process.name, clock=self.loop.time, rng=self.rng)
        process.task(self.loop, manager.run())

    async def build(self, count: int) -> None:
        """Create objects of which most are owned by one to three that came before."""
        await self.users.create(kinds()["Project"].new("p", "p"))
        made: list[Any] = []
        for number in range(count):
            new = kinds()[self.rng.choice(KINDS)].new("p", f"o-{number}")
            owners = self.rng.sample(made, min(len(made), self.rng.choice((0, 1, 1, 2, 3))))
            for owner in owners:
                named = {"kind": owner.DESCRIPTOR.name, "name": owner.metadata.name, "uid": owner.metadata.uid}
                new.metadata.ownerReferences.add(**named)
            if new.DESCRIPTOR.name == "ModelFamily" and self.rng.random() < 0.4:
                new.metadata.finalizers.append(FINALIZER)
            made.append(await self.users.create(new))
            self.model.owners[made[-1].metadata.name] = {owner.metadata.name for owner in owners}

    async def follow(self) -> None:
        """Check that nothing goes before its finalizer has worked, nor before what it was to wait for."""
        held: set[str] = set()
        async for change in self.store.watch(KINDS, 0):
            metadata = change.resource.metadata
            if FINALIZER in metadata.finalizers:
                held.add(metadata.uid)
            if change.type is ChangeType.DELETED and metadata.uid in held and metadata.uid not in self.done:
                self.broken.append(f"{change.key} went before its finalizer had worked")

    async def delete(self, name: str, policy: str) -> None:
        for kind in KINDS:
            try:
                foreground, orphan = policy == "foreground", policy == "orphan"
                await self.users.delete(kind, "p", name, foreground=foreground, orphan=orphan)
            except NotFound:
                continue
        self.model.delete(name, policy)

    async def compare(self, after: str) -> None:
        left = {item.metadata.name for kind in KINDS for item in (await self.users.list(kind)).items}
        if left != set(self.model.owners):
            more, less = sorted(left - set(self.model.owners)), sorted(set(self.model.owners) - left)
            self.broken.append(f"after {after}: left although they should be gone {more}, gone {less}")

    async def live(self, objects: int, deletes: int, kills: int) -> Sequence[str]:
        following = asyncio.create_task(self.follow())
        self.start()
        await self.build(objects)
        deadly = set(self.rng.sample(range(deletes), kills))
        for number in range(deletes):
            name, policy = f"o-{self.rng.randrange(objects)}", self.rng.choice(POLICIES)
            await self.delete(name, policy)
            if number in deadly:
                await asyncio.sleep(self.rng.uniform(0, 4))
                self.past[-1].dead = True
                self.start()
            await asyncio.sleep(REST_S)
            await self.compare(f"delete {number} of {name}, {policy}")
            if self.broken:
                break
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
        broken = list(self.broken)
        await self.end()
        return broken

    async def go_on(self, objects: int) -> Sequence[str]:
        """Have every object half removed, as a server leaves it that stopped, and collect."""
        await self.build(objects)
        families = (await self.users.list("ModelFamily")).items
        for item in families:
            if not item.metadata.finalizers:
                item.metadata.deletionTimestamp.seconds = int(time.time())
                await self.store.update(Write(item, item.metadata.resourceVersion))
                self.model.delete(item.metadata.name, "background")
        self.start()
        await asyncio.sleep(REMOVAL_S / 2)
        if len((await self.users.list("ModelFamily")).items) < len(families):
            self.broken.append("a removal was taken from the server that was at it")
        await asyncio.sleep(REMOVAL_S / 2 + REST_S)
        await self.compare("all removals")
        await self.end()
        return self.broken

    async def end(self) -> None:
        for process in self.past:
            await self.loop.bury(process)
        await self.store.close()


def live(seed: int, *, objects: int, deletes: int, kills: int) -> None:
    simulate(seed, lambda world: world.live(objects, deletes, kills))


def simulate(seed: int, life: Callable[[World], Awaitable[Sequence[str]]]) -> None:
    rng = random.Random(seed)
    loop = VirtualLoop(rng)
    with (
        tempfile.TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None) as folder,
        virtual_time(loop, rng, fake_airflow),
        mock.patch.object(sqlite, "POLL_S", 1e9),
    ):

        async def whole() -> Sequence[str]:
            return await life(World(loop, rng, Path(folder)))

        try:
            broken = loop.run_until_complete(whole())
        finally:
            loop.close()
    assert not broken, f"seed {seed}: {broken}"


@pytest.mark.parametrize("seed", range(3))
def test_what_is_left_after_deletes_is_what_the_owners_say(seed: int) -> None:
    live(seed, objects=40, deletes=30, kills=6)


def test_a_removal_that_stopped_half_way_is_gone_on_with() -> None:
    simulate(7, lambda world: world.go_on(30))


@pytest.mark.robustness
@pytest.mark.parametrize("seed", range(100, 103))
def test_what_is_left_of_three_hundred_objects(seed: int) -> None:
    live(seed, objects=300, deletes=1_000, kills=100)
    told("G11", "what is left after deletes is what the owners say", store="SQLite", trials=1_000, figures="100 kills")


def test_an_error_of_the_model_is_noticed() -> None:
    model = Model({"a": set(), "b": {"a"}, "c": {"a", "b"}, "d": {"c"}})
    model.delete("b", "background")
    assert set(model.owners) == {"a", "c", "d"}
    model.delete("a", "orphan")
    assert set(model.owners) == {"c", "d"}
    model.delete("c", "foreground")
    assert not model.owners
    assert issubclass(NotFound, ApiError)
