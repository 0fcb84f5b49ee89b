"""Exactly one DAG run an attempt, whatever dies on the way; statuses that only go forward (guarantees G7, G8, G9)."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from api.airflow import Airflow
from api.config import Config
from api.controllers.pipeline_run import TERMINAL, PipelineRunController
from api.controllers.platform import Platform
from api.errors import ApiError
from api.gen.michelangelo.api.v2 import pipeline_pb2
from api.gen.michelangelo.api.v2 import pipeline_run_pb2 as wire
from api.kinds import kinds
from api.lost_runs import ATTEMPTS
from api.manifests import Manifests
from api.resources import Resources
from api.store.base import Key
from api.store.sqlite import SqliteStore
from api.workflows import spec_hash
from tests.robustness.fakes.airflow import FakeAirflow, FakeDag
from tests.robustness.fakes.backend import FakeBackend
from tests.robustness.results import told

FAILPOINTS = ("before_post", "request_lost", "response_lost", "after_post", "before_status", "none")
SEEDS = 170
MOST = 3
KEY = Key("PipelineRun", "flights", "one")


class Killed(BaseException):
    """The process died here."""


class Faulty(httpx.AsyncBaseTransport):
    """Dies or loses messages around the POST of a run."""

    def __init__(self, inner: httpx.AsyncBaseTransport) -> None:
        self._inner = inner
        self.point = "none"
        self.method = "POST"

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if request.method != self.method or self.point == "none":
            return await self._inner.handle_async_request(request)
        if self.point == "before_post":
            raise Killed
        if self.point == "request_lost":
            raise httpx.ConnectError("reset before it was sent", request=request)
        answer = await self._inner.handle_async_request(request)
        if self.point == "response_lost":
            raise httpx.ReadError("reset before it was answered", request=request)
        if self.point == "after_post":
            raise Killed
        return answer


class DyingResources(Resources):
    """Dies before a status is written."""

    dies = False

    async def update_status(self, resource: Any) -> Any:
        if self.dies:
            raise Killed
        return await super().update_status(resource)


class Place:
    """A store with one ready pipeline and one run, and an Airflow; processes come and go."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.config = Config(home=folder, projects_root=folder)
        self.store = SqliteStore(folder / "store.db")
        self.airflow = FakeAirflow()
        self.airflow.dags["flights.train"] = FakeDag("flights.train", "flights.py")
        self.faulty = Faulty(httpx.ASGITransport(app=self.airflow.app))
        self.resources = DyingResources(self.store)

    async def prepare(self) -> None:
        await self.resources.create(kinds()["Project"].new("flights", "flights"))
        pipeline = await self.resources.create(kinds()["Pipeline"].new("flights", "train"))
        pipeline.status.state = pipeline_pb2.PIPELINE_STATE_READY
        pipeline.status.build_id = spec_hash(pipeline.spec)
        await self.resources.update_status(pipeline)
        await self.submit()

    async def submit(self, attempts: int = 1) -> None:
        run = kinds()["PipelineRun"].new("flights", "one")
        run.metadata.labels[ATTEMPTS] = str(attempts)
        run.spec.pipeline.namespace, run.spec.pipeline.name = "flights", "train"
        await self.resources.create(run)

    def process(self) -> tuple[PipelineRunController, Airflow]:
        """Start a control plane that knows nothing of an earlier one."""
        airflow = Airflow("http://airflow", transport=self.faulty)
        manifests = Manifests(self.config)
        platform = Platform(self.config, self.resources, airflow, manifests, FakeBackend(), lambda key: None)
        return PipelineRunController(platform), airflow

    async def look(self, point: str = "none") -> None:
        """Let a fresh process reconcile once and die, or not, at `point`."""
        controller, airflow = self.process()
        self.faulty.point = point
        self.resources.dies = point == "before_status"
        try:
            await controller.reconcile(KEY)
        except (Killed, ApiError):
            pass
        finally:
            self.faulty.point, self.resources.dies = "none", False
            await airflow.close()

    async def run(self) -> Any:
        return await self.resources.get("PipelineRun", "flights", "one")


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Place]:
    made = Place(tmp_path)
    await made.prepare()
    yield made
    await made.store.close()


@pytest.mark.both
@pytest.mark.parametrize("point", FAILPOINTS)
async def test_a_crash_around_the_post_never_begins_a_second_dag_run(place: Place, point: str) -> None:
    rng, looks = random.Random(point), 0
    for _ in range(SEEDS):
        for _ in range(rng.randint(1, 3)):
            await place.look(point)
            looks += 1
        await place.look()
        run = await place.run()
        begun = [name for name in place.airflow.runs if name[1] == f"ma__{run.metadata.uid}__1"]
        assert len(begun) == len(place.airflow.runs) == 1
        assert run.status.workflow_run_id == begun[0][1]
        place.airflow.runs.clear()
        await place.resources.delete("PipelineRun", "flights", "one")
        await place.look()
        await place.submit()
    if point != "none":
        shown = f"a run has one DAG run, whatever happened around its POST: {point.replace('_', ' ')}"
        told("G7", shown, store="SQLite", trials=looks, figures=f"{SEEDS} runs")


@pytest.mark.parametrize("point", FAILPOINTS)
async def test_a_lost_run_is_begun_again_once_an_attempt_whatever_dies(place: Place, point: str) -> None:
    """By policy three times at most, each under its own number: never two at a time, never one number twice."""
    rng = random.Random(point)
    for _ in range(SEEDS // 20):
        await place.resources.delete("PipelineRun", "flights", "one")
        place.airflow.runs.clear()
        await place.look()
        place.airflow.posts.clear()
        await place.submit(MOST)
        while (run := await place.run()).status.state not in TERMINAL:
            await place.look(rng.choice([point, "none"]))
            assert len(place.airflow.runs) <= 1
            # Of one that is lost before anybody has seen it, its own number is begun once more.
            told = (await place.run()).status.workflow_run_id
            for lost in [one for one in place.airflow.runs.values() if one.run_id == told and rng.random() < 0.5]:
                place.airflow.lose(lost)
        uid = run.metadata.uid
        assert [post[1] for post in place.airflow.posts] == [f"ma__{uid}__{number + 1}" for number in range(MOST)]


async def test_two_leaders_at_once_begin_one_dag_run(place: Place) -> None:
    for _ in range(50):
        looks = [place.process() for _ in range(4)]
        await asyncio.gather(*(controller.reconcile(KEY) for controller, _ in looks), return_exceptions=True)
        assert len(place.airflow.runs) == 1
        assert (await place.run()).status.state == wire.PIPELINE_RUN_STATE_PENDING
        for _, airflow in looks:
            await airflow.close()
        place.airflow.runs.clear()
        await place.resources.delete("PipelineRun", "flights", "one")
        await place.look()
        await place.submit()


async def test_the_end_of_a_run_that_is_deleted_comes_before_its_own(place: Place) -> None:
    for _ in range(20):
        await place.look()
        (dag_run,) = place.airflow.runs.values()
        await place.resources.delete("PipelineRun", "flights", "one")
        place.faulty.method = "PATCH"
        await place.look("before_post")
        place.faulty.method = "POST"
        assert await place.resources.find(KEY) is not None, "the process died before the DAG run was stopped"
        await place.look()
        assert dag_run.state == "failed"
        assert await place.resources.find(KEY) is None
        place.airflow.runs.clear()
        await place.submit()


EVENTS = st.lists(st.sampled_from(["advance", "look", "crash", "lost", "kill"]), min_size=5, max_size=40)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(events=EVENTS, fails=st.booleans())
def test_a_status_only_goes_forward_and_reaches_airflows_end(
    tmp_path_factory: pytest.TempPathFactory, events: list[str], fails: bool
) -> None:
    asyncio.run(_live(tmp_path_factory.mktemp("live"), events, "second" if fails else ""))


async def _live(folder: Path, events: list[str], fail: str) -> None:
    place = Place(folder)
    await place.prepare()
    seen: list[int] = []
    try:
        for event in events:
            await _happen(place, event, fail)
            seen.append(_rank((await place.run()).status.state))
            assert seen == sorted(seen), f"went back: {seen}"
        await place.look()
        for dag_run in list(place.airflow.runs.values()):
            place.airflow.finish(dag_run, fail=fail)
        await place.look()
        run = await place.run()
        assert run.status.state in TERMINAL
        assert len(place.airflow.posts) <= 1
        ended = [dag_run.state for dag_run in place.airflow.runs.values()]
        assert (ended == ["success"]) == (run.status.state == wire.PIPELINE_RUN_STATE_SUCCEEDED)
    finally:
        await place.store.close()


async def _happen(place: Place, event: str, fail: str) -> None:
    if event == "advance":
        for dag_run in list(place.airflow.runs.values()):
            place.airflow.advance(dag_run, fail=fail)
    elif event == "kill":
        run = await place.run()
        run.spec.kill = True
        await place.resources.update(run)
    else:
        points: dict[str, Callable[[], str]] = {
            "look": lambda: "none",
            "crash": lambda: "before_status",
            "lost": lambda: "response_lost",
        }
        await place.look(points[event]())


def _rank(state: int) -> int:
    return 3 if state in TERMINAL else state
