"""What is late is told of, once, in time and in whatever order it began; what is done is not."""

from __future__ import annotations

import asyncio
import functools
import random

import pytest

from api.late import Late
from tests.api.test_limits import in_virtual_time


def test_what_is_late_is_told_of_when_it_is_and_what_is_done_never() -> None:
    async def some(loop: asyncio.AbstractEventLoop) -> None:
        late, told, chance = Late(), list[tuple[float, float]](), random.Random(5)
        times = [chance.uniform(0, 10) for _ in range(500)]

        def note(when: float) -> None:
            told.append((when, loop.time()))

        numbers = [late.begin(loop, when, functools.partial(note, when)) for when in times]
        done = numbers[::3]
        for number in done:
            late.end(number)
        await asyncio.sleep(20)
        expected = sorted(when for when, number in zip(times, numbers, strict=True) if number not in done)
        assert [when for when, _ in told] == expected
        assert [at for _, at in told] == pytest.approx(expected)

    in_virtual_time(some)


def test_what_is_told_of_may_begin_and_end_others() -> None:
    async def chain(loop: asyncio.AbstractEventLoop) -> None:
        late, told = Late(), list[float]()
        ended = late.begin(loop, 1.5, lambda: told.append(-1.0))

        def tell() -> None:
            told.append(loop.time())
            late.end(ended)
            if len(told) < 3:
                late.begin(loop, loop.time() + 1, tell)

        late.begin(loop, 1.0, tell)
        # One that is late before it begins is told of in the loop's next round, as all others are.
        late.begin(loop, -1.0, lambda: told.append(0.0))
        assert told == []
        await asyncio.sleep(10)
        assert told == [0.0, 1.0, 2.0]

    in_virtual_time(chain)


def test_one_that_is_begun_when_another_is_late_keeps_no_third_waiting() -> None:
    async def third(loop: asyncio.AbstractEventLoop) -> None:
        late, told = Late(), list[tuple[str, float]]()

        def note(name: str) -> None:
            told.append((name, loop.time()))

        def first() -> None:
            note("first")
            late.begin(loop, 9.0, lambda: note("last"))

        late.begin(loop, 1.0, first)
        late.begin(loop, 2.0, lambda: note("second"))
        await asyncio.sleep(10)
        assert told == [("first", 1.0), ("second", 2.0), ("last", 9.0)]

    in_virtual_time(third)


def test_many_that_are_done_are_not_kept() -> None:
    async def many(loop: asyncio.AbstractEventLoop) -> None:
        late = Late()
        for _ in range(10_000):
            late.end(late.begin(loop, loop.time() + 1, lambda: None))
        assert len(late._waits) <= 1

    in_virtual_time(many)
