"""The state of a deployment, with loads that end when the test says so."""

import asyncio
import threading
from typing import Any

import pytest

from api.errors import Conflict
from operators.features.artifact import ArtifactError
from serving.deployments import Deployment, Deployments, Target
from tests.patience import PATIENCE_S


class Loads:
    """Stands in for opening models: a load ends when it is told to, with what it is told."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self._ends: dict[str, threading.Event] = {}
        self._with: dict[str, Exception | None] = {}

    def __call__(self, uri: str) -> Any:
        event = self._ends.setdefault(uri, threading.Event())
        self.begun.append(uri)
        event.wait(5)
        error = self._with.get(uri)
        if error is not None:
            raise error
        return f"model of {uri}"

    def end(self, uri: str, error: Exception | None = None) -> None:
        """Let a load end."""
        self._with[uri] = error
        self._ends.setdefault(uri, threading.Event()).set()


async def until(condition: Any) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not condition():  # noqa: ASYNC110 - what is waited for has no event
            await asyncio.sleep(0.001)


@pytest.fixture
def loads() -> Loads:
    return Loads()


@pytest.fixture
def deployment(loads: Loads) -> Deployment:
    return Deployment("p.d", loads)


def revision(deployment: Deployment) -> str:
    return deployment.current.revision if deployment.current else ""


async def test_a_load_is_on_its_way_until_it_answers(deployment: Deployment, loads: Loads) -> None:
    deployment.apply(Target("one", "uri1", 1))
    assert (deployment.state, revision(deployment)) == ("LOADING", "")
    loads.end("uri1")
    await until(lambda: deployment.state == "READY")
    assert (revision(deployment), deployment.candidate) == ("one", None)


async def test_the_same_wish_again_loads_nothing_twice(deployment: Deployment, loads: Loads) -> None:
    for _ in range(3):
        deployment.apply(Target("one", "uri1", 1))
    deployment.apply(Target("one", "uri1", 2))
    await until(lambda: loads.begun)
    loads.end("uri1")
    await until(lambda: deployment.state == "READY")
    deployment.apply(Target("one", "uri1", 2))
    deployment.apply(Target("one", "uri1", 3))
    assert (deployment.state, deployment.generation) == ("READY", 3)
    await asyncio.sleep(0.02)
    assert loads.begun == ["uri1"]


async def test_a_newer_wish_supersedes_a_load(deployment: Deployment, loads: Loads) -> None:
    deployment.apply(Target("one", "uri1", 1))
    await until(lambda: loads.begun == ["uri1"])
    deployment.apply(Target("two", "uri2", 2))
    loads.end("uri2")
    await until(lambda: deployment.state == "READY")
    loads.end("uri1")
    await asyncio.sleep(0.05)
    assert revision(deployment) == "two"


async def test_what_answers_goes_on_while_another_loads(deployment: Deployment, loads: Loads) -> None:
    loads.end("uri1")
    deployment.apply(Target("one", "uri1", 1))
    await until(lambda: deployment.state == "READY")
    deployment.apply(Target("two", "uri2", 2))
    assert (deployment.state, revision(deployment)) == ("LOADING", "one")
    loads.end("uri2", ArtifactError("GOLDEN_MISMATCH", "row 3"))
    await until(lambda: deployment.state == "FAILED")
    assert revision(deployment) == "one"
    assert deployment.failure is not None
    assert (deployment.failure.reason, deployment.failure.message) == ("GOLDEN_MISMATCH", "row 3")


async def test_a_wish_for_what_answers_gives_up_a_load(deployment: Deployment, loads: Loads) -> None:
    loads.end("uri1")
    deployment.apply(Target("one", "uri1", 1))
    await until(lambda: deployment.state == "READY")
    deployment.apply(Target("two", "uri2", 2))
    deployment.apply(Target("one", "uri1", 3))
    loads.end("uri2")
    await asyncio.sleep(0.05)
    assert (deployment.state, revision(deployment)) == ("READY", "one")


async def test_an_older_wish_changes_nothing(deployment: Deployment) -> None:
    deployment.apply(Target("two", "uri2", 2))
    with pytest.raises(Conflict, match="older than 2"):
        deployment.apply(Target("one", "uri1", 1))
    assert deployment.candidate is not None
    assert deployment.candidate.revision == "two"
    deployment.stop()


async def test_a_load_that_hangs_fails_in_time(loads: Loads) -> None:
    deployment = Deployment("p.d", loads, load_s=0.05)
    deployment.apply(Target("one", "uri1", 1))
    await until(lambda: deployment.state == "FAILED")
    assert deployment.failure is not None
    assert deployment.failure.reason == "LOAD_TIMEOUT"
    loads.end("uri1")


@pytest.mark.parametrize(
    ("error", "reason"), [(MemoryError(), "OUT_OF_MEMORY"), (ZeroDivisionError("secret"), "LOAD_FAILED")]
)
async def test_any_other_end_of_a_load_is_a_failure(
    deployment: Deployment, loads: Loads, error: Exception, reason: str
) -> None:
    loads.end("uri1", error)
    deployment.apply(Target("one", "uri1", 1))
    await until(lambda: deployment.state == "FAILED")
    assert deployment.failure is not None
    assert deployment.failure.reason == reason
    assert "secret" not in deployment.failure.message


async def test_a_deleted_deployment_never_comes_back(loads: Loads) -> None:
    deployments = Deployments(loads)
    deployments.apply("p.d", Target("one", "uri1", 1))
    assert deployments.delete("p.d")
    assert not deployments.delete("p.d")
    loads.end("uri1")
    await asyncio.sleep(0.05)
    assert deployments.find("p.d") is None
    assert deployments.every() == []
