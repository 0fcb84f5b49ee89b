"""The log of calls: a line for each, soon, whatever is in it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from pathlib import Path

import pytest

from api import call_log
from api.call_log import CallLog
from tests.api.http_running import HttpServed

PATIENCE_S = 30.0


@pytest.fixture(autouse=True)
def written(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    """What is logged of calls."""
    caplog.set_level(logging.INFO, call_log.log.name)
    return caplog


async def until_written(caplog: pytest.LogCaptureFixture, text: str) -> None:
    """Wait until a text is in the log."""
    async with asyncio.timeout(PATIENCE_S):
        while text not in caplog.text:  # noqa: ASYNC110 - a log tells nobody
            await asyncio.sleep(0.01)


async def test_calls_are_written_together_each_in_a_line(caplog: pytest.LogCaptureFixture) -> None:
    calls = CallLog()
    for number in range(3):
        calls.note("GET Model/shop/m", 200, time.monotonic(), f"id-{number}")
    assert not caplog.records
    await until_written(caplog, "id-2")
    (record,) = caplog.records
    head, *lines = record.getMessage().splitlines()
    assert head == "3 calls"
    assert [line.partition("GET Model/shop/m 200 ")[2].split("request=")[1] for line in lines] == [
        "id-0",
        "id-1",
        "id-2",
    ]


def test_a_loop_that_ended_with_calls_in_it_does_not_silence_the_next(caplog: pytest.LogCaptureFixture) -> None:
    calls = CallLog()

    async def note(name: str) -> None:
        calls.note("Get", "OK", time.monotonic(), name)

    asyncio.run(note("first"))

    async def again() -> None:
        await note("second")
        await until_written(caplog, "second")

    asyncio.run(again())
    assert "first" in caplog.text


async def test_many_calls_are_written_at_once(caplog: pytest.LogCaptureFixture) -> None:
    calls = CallLog()
    for number in range(call_log.MOST):
        calls.note("Get", "OK", time.monotonic(), f"id-{number}.")
    assert f"id-{call_log.MOST - 1}." in caplog.text


async def test_a_name_makes_no_line_of_its_own(caplog: pytest.LogCaptureFixture) -> None:
    calls = CallLog()
    calls.note("GET Model/shop/a\n2026-01-01 forged", 404, time.monotonic(), "id")
    calls.write()
    assert caplog.records[0].getMessage().count("\n") == 1


def test_every_request_has_its_line(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with contextlib.closing(HttpServed(tmp_path / "store.db")) as server:
        answer = server.send("GET", "/apis/michelangelo.api/v2/namespaces/nowhere/models/m")
        asyncio.run(until_written(caplog, answer.headers["x-request-id"]))
    assert f"GET Model/nowhere/m {answer.status_code} " in caplog.text
