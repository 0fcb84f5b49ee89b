"""Who rings wakes the scheduler; who has no listener is not kept waiting."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from operators import wake
from operators.wake import WakeMiddleware


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MA_HOME", str(tmp_path / ("long" * 60)))
    return wake.place()


@pytest.fixture
def bell(path: Path) -> Iterator[int]:
    descriptor = wake.listen(path)
    yield descriptor
    os.close(descriptor)


def test_a_ring_is_heard_once(path: Path, bell: int) -> None:
    assert not wake.heard(bell)
    assert wake.ring(path)
    assert wake.ring(path)
    assert wake.heard(bell)
    assert not wake.heard(bell)


def test_whoever_listens_later_finds_the_pipe_that_is_there(path: Path, bell: int) -> None:
    again = wake.listen(path)
    wake.ring(path)
    assert wake.heard(again)
    os.close(again)


def test_nobody_listens(path: Path) -> None:
    assert not wake.ring(path)
    os.close(wake.listen(path))
    assert not wake.ring(path)


def test_a_scheduler_that_hangs_keeps_nobody_waiting(path: Path, bell: int) -> None:
    while wake.ring(path):
        pass
    assert wake.heard(bell)
    assert wake.ring(path)


def test_only_its_owner_may_ring(path: Path, bell: int) -> None:
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    ("method", "path_of", "rings"),
    [
        ("POST", "/api/v2/dags/a.b/dagRuns", True),
        ("PATCH", "/api/v2/dags/a.b/dagRuns/r", True),
        ("DELETE", "/api/v2/dags/a.b/dagRuns/r", True),
        ("GET", "/api/v2/dags/a.b/dagRuns", False),
        ("PATCH", "/execution/task-instances/0/state", True),
        ("PATCH", "/execution/task-instances/0/run", False),
        ("PUT", "/execution/task-instances/0/heartbeat", False),
        ("POST", "/execution/xcoms/a/b/c/d", False),
        ("POST", "/auth/token", False),
    ],
)
async def test_what_makes_work_rings_when_it_is_done(
    path: Path, bell: int, method: str, path_of: str, rings: bool
) -> None:
    heard_meanwhile = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        heard_meanwhile.append(wake.heard(bell))

    await WakeMiddleware(app)({"type": "http", "method": method, "path": path_of}, None, None)
    assert heard_meanwhile == [False]
    assert wake.heard(bell) is rings


async def test_a_request_that_fails_may_have_made_work_all_the_same(path: Path, bell: int) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise RuntimeError("halfway")

    with pytest.raises(RuntimeError, match="halfway"):
        await WakeMiddleware(app)({"type": "http", "method": "POST", "path": "/api/v2/backfills"}, None, None)
    assert wake.heard(bell)


async def test_what_is_no_request_passes(path: Path, bell: int) -> None:
    seen = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope["type"])

    await WakeMiddleware(app)({"type": "lifespan"}, None, None)
    assert seen == ["lifespan"]
    assert not wake.heard(bell)
