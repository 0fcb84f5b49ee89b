"""Waits that are due together end some at a time, in their order, and none is forgotten."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest

from api.pace import AT_ONCE, LARGE_BYTES, LARGE_BYTES_S, LONGEST_TURN_S, PAUSE_S, Flow, Pace
from tests.api.test_limits import in_virtual_time


def test_what_is_due_together_ends_some_at_a_time() -> None:
    async def together(loop: asyncio.AbstractEventLoop) -> None:
        pace, ends = Pace(), Counter[int]()

        async def waits() -> None:
            await pace.sleep(1)
            ends[round((loop.time() - 1) / PAUSE_S)] += 1

        await asyncio.gather(*(waits() for _ in range(10 * AT_ONCE)))
        assert ends == dict.fromkeys(range(10), AT_ONCE)

    in_virtual_time(together)


def test_the_earlier_end_comes_first_whenever_it_was_asked_for() -> None:
    async def earlier(loop: asyncio.AbstractEventLoop) -> None:
        pace, ended = Pace(), list[tuple[float, float]]()

        async def waits(for_s: float) -> None:
            await pace.sleep(for_s)
            ended.append((for_s, loop.time()))

        await asyncio.gather(*(waits(for_s) for for_s in (5, 0.1, 2, 0, 0.1)))
        assert [for_s for for_s, _ in ended] == [0, 0.1, 0.1, 2, 5]
        assert [at for _, at in ended] == pytest.approx([0, 0.1, 0.1, 2, 5], abs=PAUSE_S)

    in_virtual_time(earlier)


def test_what_ended_otherwise_takes_nobodys_place() -> None:
    async def done(loop: asyncio.AbstractEventLoop) -> None:
        pace = Pace()
        others = [loop.create_future() for _ in range(50)]
        for other in others:
            pace.end(other, 1)
        for other in others[::2]:
            other.set_result(True)
        for other in others[1::2]:
            other.cancel()
        await pace.sleep(1)
        assert loop.time() == pytest.approx(1, abs=PAUSE_S)
        assert all(other.result() is True for other in others[::2])

    in_virtual_time(done)


def test_large_messages_go_one_after_the_other_and_small_ones_at_once() -> None:
    async def sent(loop: asyncio.AbstractEventLoop) -> None:
        flow, at = Flow(), list[float]()

        async def sends(size: int) -> None:
            assert await flow.turn(size)
            at.append(loop.time())

        size = 1_000_000
        await asyncio.gather(*(sends(size) for _ in range(10)), *(sends(LARGE_BYTES) for _ in range(10)))
        assert at == pytest.approx([0] * 11 + [n * size / LARGE_BYTES_S for n in range(1, 10)])

    in_virtual_time(sent)


def test_nobodys_turn_is_put_off_for_ever() -> None:
    async def sent(loop: asyncio.AbstractEventLoop) -> None:
        flow = Flow()
        await asyncio.gather(*(flow.turn(1_000_000) for _ in range(500)))
        assert loop.time() == pytest.approx(LONGEST_TURN_S)

    in_virtual_time(sent)
