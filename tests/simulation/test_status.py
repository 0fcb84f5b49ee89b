"""A status converges to Airflow's book and never goes back, whatever is lost, doubled, late or refused (guarantee G8).

One PipelineRun at a time, step by step: what Airflow does, which of its reports arrive and in which order, what the
network does to each message, leaders that die, and leaders that freeze half way and go on after another took over.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from api.airflow import Airflow
from api.config import Config
from api.controllers.adoption import Adopter
from api.controllers.attempts import attempt_of
from api.controllers.leadership import Leadership
from api.controllers.pipeline_run import TERMINAL, PipelineRunController, run_id
from api.controllers.platform import Platform
from api.controllers.run_report import has_ended
from api.errors import ApiError
from api.gen.michelangelo.api.v2 import pipeline_pb2
from api.kinds import kinds
from api.manifests import Manifests
from api.resources import Resources
from api.run_wishes import admit_wishes
from api.store import sql
from api.store.base import Key
from api.store.sqlite import SqliteStore
from api.workflows import spec_hash
from tests.robustness.fakes import airflow as fake_airflow
from tests.robustness.fakes.airflow import FakeDag, FakeRun
from tests.robustness.fakes.backend import FakeBackend
from tests.robustness.results import told
from tests.simulation.airflow import Client, SimulatedAirflow, Weather
from tests.simulation.checks import ENDS
from tests.simulation.virtual import EPOCH_S, Process, VirtualLoop, virtual_time

STEPS = 50
EACH_TIME = 50_000 // STEPS
# Some lives end before their last step.
LONG = 1_100_000 // STEPS
LEASE_S = 15.0
MEMORY = Path("/dev/shm")


class Still(SimulatedAirflow):
    """An Airflow in which nothing happens unless it is told to."""

    def begin(self, dag_id: str, run_id: str, conf: dict[str, Any] | None = None) -> FakeRun:
        return super(SimulatedAirflow, self).begin(dag_id, run_id, conf)


class Fates(Weather):
    """What becomes of the next message; all others arrive.  `freezes`: after how many messages the process freezes."""

    def __init__(self) -> None:
        super().__init__(random.Random(0))
        self.next = "fine"
        self.freezes = -1
        self.who: Process | None = None
        self.stopped = asyncio.Event()

    def fate(self) -> str:
        if self.freezes == 0 and self.who is not None:
            self.who.frozen = True
            self.stopped.set()
        self.freezes -= 1
        now, self.next = self.next, "fine"
        return now


class Place:
    """A store in virtual time, shared by all runs of one test."""

    def __init__(self, loop: VirtualLoop, rng: random.Random, folder: Path) -> None:
        self.loop, self.rng = loop, rng
        self.store = SqliteStore(folder / "store.db")
        self.users = Resources(self.store, {"PipelineRun": (admit_wishes,)})
        self.config = Config(home=folder, projects_root=folder)
        self.runs = self.leaders = self.steps = 0
        self.pipeline: Any = None

    async def prepare(self) -> None:
        await self.users.create(kinds()["Project"].new("p", "p"))
        self.pipeline = await self.users.create(kinds()["Pipeline"].new("p", "train"))
        self.pipeline.status.state = pipeline_pb2.PIPELINE_STATE_READY
        self.pipeline.status.build_id = spec_hash(self.pipeline.spec)
        await self.users.update_status(self.pipeline)

    async def lead(self) -> Leadership:
        """Return a new term, after the one before has run out."""
        self.leaders += 1
        while True:
            asked = self.loop.time()
            lease = await self.store.acquire("controllers", f"leader-{self.leaders}", LEASE_S)
            if lease is not None:
                return Leadership(self.users, lease, asked, self.loop.time)
            await asyncio.sleep(LEASE_S)


PLACE: list[Place] = []


class Life(RuleBasedStateMachine):
    """The life of one PipelineRun."""

    def __init__(self) -> None:
        super().__init__()
        self.place = PLACE[0]
        self.place.runs += 1
        # The same steps are the same life, however many were lived before.
        self.place.rng.seed(0)
        self.airflow = Still(self.place.loop, random.Random(0), lambda _: None)
        self.airflow.dags["p.train"] = FakeDag("p.train", "p.py")
        self.reports: list[tuple[str, str]] = []
        self.airflow.listen(lambda dag, run: self.reports.append((dag, run)))
        self.weather = Fates()
        self.key = Key("PipelineRun", "p", f"run-{self.place.runs}")
        new = kinds()["PipelineRun"].new("p", self.key.name)
        new.spec.pipeline.name = "train"
        self.uid = self._do(self.place.users.create(new)).metadata.uid
        self.frozen: Process | None = None
        self.rank = 0
        self.end = 0
        self.attempt = 1
        self.meddled = False
        self.take_over()

    def _do(self, work: Any) -> Any:
        return self.place.loop.run_until_complete(work)

    def _process(self, work: Any) -> Process:
        process = Process("leader")
        self.weather.who = process
        task = process.task(self.place.loop, work)

        async def until() -> None:
            frozen = asyncio.ensure_future(self.weather.stopped.wait())
            await asyncio.wait([task, frozen], return_when=asyncio.FIRST_COMPLETED)
            frozen.cancel()

        self._do(until())
        return process

    async def _quietly(self, work: Any) -> None:
        with contextlib.suppress(ApiError, KeyError):
            await work

    def found(self) -> Any | None:
        # A read by key waits for nobody.
        work = self.place.users.find(self.key)
        with pytest.raises(StopIteration) as read:
            work.send(None)
        return read.value.value

    @rule()
    def take_over(self) -> None:
        """The leader is gone; another begins, who knows nothing."""
        self.leadership = self._do(self.place.lead())
        client = Client(self.airflow, self.weather, self.place.loop, random.Random(0))
        platform = Platform(
            self.place.config,
            self.leadership.resources,
            self.leadership.guard(client),
            Manifests(self.place.config),
            FakeBackend(),
            lambda key: None,
            lambda: datetime.fromtimestamp(EPOCH_S + self.place.loop.time(), UTC),
        )
        self.controller = PipelineRunController(platform)
        self.adopter = Adopter(platform, self.controller)

    def _renew(self) -> None:
        if self.leadership.left_s < 5:
            self._do(self.leadership._renewed())

    @rule(fate=st.sampled_from(["fine", "fine", "fine", "error", "request lost", "answer lost", "late", "refused"]))
    def look(self, fate: str) -> None:
        """The leader looks at the run, and its first message has a fate."""
        self._renew()
        self.weather.next = fate
        self._process(self._quietly(self.controller.reconcile(self.key)))
        self.weather.next = "fine"

    @precondition(lambda self: self.frozen is None)
    @rule(messages=st.integers(0, 4))
    def freeze(self, messages: int) -> None:
        """The leader freezes half way through a look, and another takes over."""
        self._renew()
        self.weather.freezes, self.weather.stopped = messages, asyncio.Event()
        process = self._process(self._quietly(self.controller.reconcile(self.key)))
        self.weather.freezes, self.weather.stopped = -1, asyncio.Event()
        if process.frozen:
            self.frozen = process
            self.take_over()

    @precondition(lambda self: self.frozen is not None)
    @rule()
    def thaw(self) -> None:
        """The frozen one goes on where it was."""
        process, self.frozen = self.frozen, None
        assert process is not None
        self.place.loop.thaw(process)
        self._do(asyncio.wait_for(asyncio.gather(*process.tasks, return_exceptions=True), 60))

    @precondition(lambda self: self.reports)
    @rule(which=st.integers(0, 99), copies=st.integers(0, 2))
    def report(self, which: int, copies: int) -> None:
        """One of the reports arrives, whichever, twice or never."""
        dag, run = self.reports.pop(which % len(self.reports))
        for _ in range(copies):
            self._renew()
            self._process(self._quietly(self.adopter.seen(dag, run, ended=which % 2 == 0)))

    @rule(fail=st.sampled_from(["", "", "", "first", "second"]))
    def advance(self, fail: str) -> None:
        """Airflow goes a step further."""
        for run in list(self.airflow.runs.values()):
            self.airflow.advance(run, fail=fail)

    @rule()
    def kill(self) -> None:
        run = self.found()
        if run is not None and not run.spec.kill:
            run.spec.kill = True
            self._do(self._quietly(self.place.users.update(run)))

    @rule(step=st.sampled_from(["first", "second", "nobody"]))
    def retry(self, step: str) -> None:
        """Somebody wishes that a task is done again."""
        run = self.found()
        if run is not None and not run.spec.HasField("retry_info"):
            run.spec.retry_info.activity_id = step
            self._do(self._quietly(self.place.users.update(run)))

    @precondition(lambda self: self.airflow.runs)
    @rule(how=st.sampled_from(["clear", "failed", "success"]))
    def meddle(self, how: str) -> None:
        """Somebody clears or marks the run in Airflow."""
        self.meddled = True
        for run in list(self.airflow.runs.values()):
            if how == "clear":
                self.airflow.clear(run)
            else:
                self.airflow.mark(run, how)

    @rule()
    def relabel(self) -> None:
        """A change that is none of the controller's business."""
        run = self.found()
        if run is not None:
            run.spec.description = f"at {self.place.loop.time()}"
            self._do(self._quietly(self.place.users.update(run)))

    @precondition(lambda self: self.rank > 0)
    @rule()
    def delete(self) -> None:
        self._do(self._quietly(self.place.users.delete("PipelineRun", "p", self.key.name)))

    @invariant()
    def only_forward(self) -> None:
        self.place.steps += 1
        run = self.found()
        if run is None:
            return
        rank = 3 if run.status.state in TERMINAL else run.status.state
        attempt = attempt_of(run)
        assert attempt >= self.attempt, f"went back from attempt {self.attempt} to {attempt}"
        if attempt > self.attempt:
            # A state that nobody saw may lie between the end of an attempt and the next.
            self.rank, self.end, self.attempt = 0, 0, attempt
        assert rank >= self.rank, f"went back from {self.rank} to {rank}"
        assert self.end in (0, run.status.state), "ended twice"
        self.rank, self.end = rank, run.status.state if rank == 3 else 0
        for condition in run.status.conditions:
            assert condition.observed_generation <= run.metadata.generation, condition
        assert len(self.airflow.posts) <= 1, self.airflow.posts

    def teardown(self) -> None:
        """At rest, without one more report, the status is what Airflow's book says, and nothing is left behind."""
        if self.frozen is not None:
            self.thaw()
        self._do(asyncio.sleep(70))
        self.take_over()
        for _ in range(2):
            self.look("fine")
        for dag_run in list(self.airflow.runs.values()):
            run = self.found()
            if run is None or run.spec.kill:
                # What is late is seen by the look at recent runs.
                self._do(self._quietly(self.adopter.seen("p.train", dag_run.run_id)))
                self.look("fine")
                assert dag_run.state not in ("queued", "running"), "nobody stopped it"
            self.airflow.finish(dag_run)
            if self.meddled:
                # What a person did to a run that had ended is seen by the look at recent runs too.
                self._do(self._quietly(self.adopter.seen("p.train", dag_run.run_id)))
        self.look("fine")
        self.only_forward()
        run = self.found()
        if run is None:
            return
        assert has_ended(run), run.status
        for dag_run in self.airflow.runs.values():
            assert dag_run.run_id == run_id(run)
            assert run.status.state in ENDS[dag_run.state] or not run.status.workflow_run_id


@contextlib.contextmanager
def place() -> Iterator[Place]:
    rng = random.Random(0)
    loop = VirtualLoop(rng)
    with (
        tempfile.TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None) as folder,
        virtual_time(loop, random.Random(0), fake_airflow),
    ):

        async def opened() -> Place:
            return Place(loop, rng, Path(folder))

        made = loop.run_until_complete(opened())
        loop.run_until_complete(made.prepare())
        PLACE[:] = [made]
        try:
            yield made
        finally:
            loop.run_until_complete(made.store.close())
            loop.close()


def live(lives: int, *, shrinks: bool = True) -> int:
    """Live so many lives; returns the steps."""
    wanted = settings(
        phases=tuple(Phase) if shrinks else (Phase.generate,),
        report_multiple_bugs=False,
        max_examples=lives,
        stateful_step_count=STEPS,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    with place() as here:
        run_state_machine_as_test(Life, settings=wanted)
        return here.steps


def test_a_status_converges_and_never_goes_back() -> None:
    assert live(EACH_TIME) > EACH_TIME * STEPS / 2


async def _nothing(*_: Any, **__: Any) -> None:
    """Do not do what is asked."""


def test_a_run_that_nobody_stops_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Airflow, "fail_run", _nothing)
    with pytest.raises(AssertionError, match="nobody stopped it"):
        live(300, shrinks=False)


@pytest.mark.robustness
def test_a_store_that_compares_no_epoch_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sql, "holds", lambda *_: True)
    with pytest.raises(AssertionError, match="went back"):
        live(4_000, shrinks=False)


@pytest.mark.robustness
def test_a_status_converges_in_a_million_steps() -> None:
    steps = live(LONG)
    told("G8", "a status converges and never goes back", store="SQLite", trials=steps, figures=f"{LONG:,} lives")
