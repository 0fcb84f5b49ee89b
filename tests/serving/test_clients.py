"""The platform's own clients against a real server: the control plane's backend and the command line."""

import asyncio
from pathlib import Path

import pytest

from api.backends.base import Observed, Target
from api.backends.local import LocalBackend
from api.cli import predict
from api.cli.exits import Failure
from tests.patience import PATIENCE_S
from tests.serving.conftest import Stage
from tests.serving.running import AT, FLIGHT, ID, TOKEN, Server


async def settled(backend: LocalBackend) -> Observed:
    async with asyncio.timeout(PATIENCE_S):
        while True:
            found = await backend.observe(ID)
            assert found is not None
            if found.state != "LOADING":
                return found
            await asyncio.sleep(0.01)


async def test_the_control_plane_rolls_out_through_it(own_server: Server, stage: Stage, tmp_path: Path) -> None:
    backend = LocalBackend(own_server.config.serving_url, TOKEN)
    assert await backend.healthy()
    assert await backend.observe(ID) is None
    await backend.apply(Target(ID, "one", stage.first, 1))
    assert await settled(backend) == Observed("READY", "one", "", generation=1)
    await backend.apply(Target(ID, "two", (tmp_path / "gone").as_uri(), 2))
    failed = await settled(backend)
    assert (failed.state, failed.current, failed.candidate) == ("FAILED", "one", "two")
    assert failed.reason == "ARTIFACT_NOT_FOUND"
    await backend.apply(Target(ID, "two", stage.second, 3))
    assert await settled(backend) == Observed("READY", "two", "", generation=3)
    for _ in range(2):
        await backend.delete(ID)
    assert await backend.observe(ID) is None
    await backend.close()


def test_the_command_line_predicts(server: Server) -> None:
    given = predict.request_of({**FLIGHT, "tailnum": None}, at=AT, explain=True)
    answered = predict.call(server.config, ID, given)
    assert 0 < answered["outputs"][0]["data"][0] < 1
    assert answered["parameters"]["features"][0]["status"] == "PRESENT"


def test_the_command_line_shows_what_is_refused(server: Server) -> None:
    with pytest.raises(Failure, match=r"inputs\.origin: is missing"):
        predict.call(server.config, ID, predict.request_of({"carrier": "AA"}))
