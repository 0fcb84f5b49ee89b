"""Requests that write to an Airflow on SQLite take turns; those that read, and other databases, do not."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from airflow.configuration import conf

from operators import one_writer
from operators.one_writer import OneWriterMiddleware
from tests.patience import PATIENCE_S

START = {"type": "http.response.start", "status": 200}


class App:
    """Notes how many requests are in it at once; each stays until it is let go, and then answers."""

    def __init__(self) -> None:
        self.inside = 0
        self.bodies: list[bytes] = []
        self.entered = asyncio.Condition()
        self.go = asyncio.Semaphore(0)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.inside += 1
        if scope.get("method") == "POST":
            body = b""
            while (message := await receive())["type"] == "http.request":
                body += message["body"]
                if not message.get("more_body"):
                    break
            self.bodies.append(body)
        async with self.entered:
            self.entered.notify_all()
        await self.go.acquire()
        if scope.get("fails"):
            raise RuntimeError("halfway")
        self.inside -= 1
        await send(START)
        async with self.entered:
            self.entered.notify_all()
        if "reads_slowly" in scope:
            await scope["reads_slowly"].wait()

    async def holds(self, count: int) -> None:
        """Wait until so many requests are inside."""
        async with asyncio.timeout(PATIENCE_S), self.entered:
            await self.entered.wait_for(lambda: self.inside == count)


def request(method: str = "POST", **changes: Any) -> dict[str, Any]:
    return {"type": "http", "method": method, "path": "/api/v2/dags/a/dagRuns", **changes}


def told(*bodies: bytes) -> Any:
    """Return what a client sends, in parts."""
    parts = [
        {"type": "http.request", "body": body, "more_body": place + 1 < len(bodies)}
        for place, body in enumerate(bodies or (b"",))
    ]
    waiting = iter(parts)

    async def receive() -> Any:
        return next(waiting, {"type": "http.disconnect"})

    return receive


async def ignored(message: Any) -> None:
    """Take an answer."""


async def settled() -> None:
    """Let everything go on that can."""
    for _ in range(20):
        await asyncio.sleep(0)


@pytest.fixture
def app() -> App:
    return App()


@pytest.fixture
def taking_turns(app: App) -> OneWriterMiddleware:
    return OneWriterMiddleware(app)


async def test_who_writes_waits_for_its_turn_and_who_reads_does_not(
    app: App, taking_turns: OneWriterMiddleware
) -> None:
    writes = [asyncio.create_task(taking_turns(request(), told(b"%d" % one), ignored)) for one in range(3)]
    reads = [asyncio.create_task(taking_turns(request("GET"), told(), ignored)) for _ in range(2)]
    await app.holds(3)
    await settled()
    assert app.bodies == [b"0"]
    for _ in range(5):
        app.go.release()
    await asyncio.gather(*writes, *reads)
    assert app.bodies == [b"0", b"1", b"2"]


async def test_whoever_sends_or_reads_slowly_holds_nobody_up(app: App, taking_turns: OneWriterMiddleware) -> None:
    rest, slow = asyncio.Event(), asyncio.Event()
    parts = [{"type": "http.request", "body": b"a", "more_body": True}, {"type": "http.request", "body": b"b"}]

    async def slowly() -> Any:
        part = parts.pop(0)
        if not parts:
            await rest.wait()
        return part

    sender = asyncio.create_task(taking_turns(request(), slowly, ignored))
    await settled()
    reader = asyncio.create_task(taking_turns(request(reads_slowly=slow), told(b"reader"), ignored))
    await app.holds(1)
    app.go.release()
    await app.holds(0)
    rest.set()
    await app.holds(1)
    assert app.bodies == [b"reader", b"ab"]
    app.go.release()
    await sender
    assert not reader.done()
    slow.set()
    await reader


async def test_a_request_that_fails_or_is_given_up_ends_its_turn(app: App, taking_turns: OneWriterMiddleware) -> None:
    failing = asyncio.create_task(taking_turns(request(fails=True), told(), ignored))
    await app.holds(1)
    given_up = asyncio.create_task(taking_turns(request(), told(), ignored))
    waiting = asyncio.create_task(taking_turns(request(), told(b"last"), ignored))
    await settled()
    given_up.cancel()
    app.go.release()
    with pytest.raises(RuntimeError, match="halfway"):
        await failing
    app.go.release()
    await asyncio.wait_for(waiting, PATIENCE_S)
    assert app.bodies == [b"", b"last"]


async def test_a_request_that_never_ends_stops_nobody(
    app: App, taking_turns: OneWriterMiddleware, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(one_writer, "LONGEST_TURN_S", 0.05)
    hangs = asyncio.create_task(taking_turns(request(), told(b"hangs"), ignored))
    goes_on = asyncio.create_task(taking_turns(request(), told(b"goes on"), ignored))
    await app.holds(2)
    app.go.release()
    app.go.release()
    await asyncio.gather(hangs, goes_on)


async def test_databases_of_many_writers_need_no_turns(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conf, "get", lambda *_: "postgresql+psycopg2://airflow@127.0.0.1/airflow")
    many = OneWriterMiddleware(app)
    writes = [asyncio.create_task(many(request(), told(), ignored)) for _ in range(3)]
    await app.holds(3)
    for _ in range(3):
        app.go.release()
    await asyncio.gather(*writes)


async def test_what_is_no_request_passes(app: App, taking_turns: OneWriterMiddleware) -> None:
    app.go.release()
    await taking_turns({"type": "lifespan"}, told(), ignored)
