"""Lets one request at a time write to an Airflow whose record is in SQLite.  Answers none itself.

Airflow's server writes its log of actions on its event loop, and commits what a request did when the loop has time for
it.  SQLite has one writer: a request whose log waits for another's commit keeps that commit from happening, until
SQLite gives up after five seconds in which nobody is answered; and one of the two has failed then.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable

from airflow.configuration import conf

from operators.wake import READS, App, Scope

LONGEST_TURN_S = 20.0
"""A request that takes longer than any does loses its turn: those behind it go on as they would without turns."""

log = logging.getLogger(__name__)

Message = Scope
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


class OneWriterMiddleware:
    """Gives each request that may write its turn, from when its body is here until it begins to answer.

    Other databases than SQLite let many write: there it does nothing.
    """

    def __init__(self, app: App) -> None:
        self._app = app
        self._turns = conf.get("database", "sql_alchemy_conn").startswith("sqlite")
        self._turn = asyncio.Lock()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let the request through when it is its turn."""
        if not self._turns or scope["type"] != "http" or scope["method"] in READS:
            await self._app(scope, receive, send)
            return
        arrived = await _whole(receive)
        with await self._my_turn() as turn:

            async def answer(message: Message) -> None:
                # What the request did is committed before its answer begins.
                turn.end()
                await send(message)

            await self._app(scope, _again(arrived, receive), answer)

    async def _my_turn(self) -> Turn:
        """Wait for it; go without if it does not come."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LONGEST_TURN_S):
                await self._turn.acquire()
                return Turn(self._turn)
        log.warning("a request to Airflow has not been answered for %d s: others go on", LONGEST_TURN_S)
        return Turn(None)


class Turn:
    """A turn that ends once: when the answer begins, at the latest at the end of the block."""

    def __init__(self, lock: asyncio.Lock | None) -> None:
        self._lock = lock

    def __enter__(self) -> Turn:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def end(self) -> None:
        """Let the next one begin."""
        held, self._lock = self._lock, None
        if held is not None:
            held.release()


def _again(arrived: list[Message], receive: Receive) -> Receive:
    waiting = iter(arrived)

    async def replay() -> Message:
        return next(waiting, None) or await receive()

    return replay


async def _whole(receive: Receive) -> list[Message]:
    """Return all that comes of a request: a client that is slow to send holds nobody up."""
    arrived = [await receive()]
    while arrived[-1].get("more_body"):
        arrived.append(await receive())
    return arrived
