"""Projects take turns; failures are looked at again neither too soon nor too often, nor too late."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Coroutine
from itertools import pairwise
from typing import Any

import pytest

from api.controllers.queue import LONGEST_BACKOFF_S, RETRIES_PER_S, RETRY_BURST, SHARE, Queue
from api.store.base import Key
from tests.patience import PATIENCE_S
from tests.simulation.virtual import VirtualLoop


def keys(project: str, count: int) -> list[Key]:
    return [Key("PipelineRun", project, f"run-{number}") for number in range(count)]


def in_virtual_time(work: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
    loop = VirtualLoop(random.Random(1))
    try:
        return loop.run_until_complete(work())
    finally:
        loop.close()


async def test_a_project_with_much_to_do_keeps_no_other_waiting() -> None:
    queue = Queue("PipelineRun")
    for key in (*keys("busy", 500), *keys("quiet", 2)):
        queue.add(key)
    taken = [(await queue.take()).namespace for _ in range(6)]
    assert taken == ["busy", "quiet", "busy", "quiet", "busy", "busy"]


async def test_what_changed_comes_first_and_keeps_the_rest_not_waiting_for_ever() -> None:
    queue = Queue("PipelineRun")
    for key in keys("routine", 5):
        queue.add(key, routine=True)
    for key in keys("changed", 3 * SHARE):
        queue.add(key)
    taken = [(await queue.take()).namespace for _ in range(3 * SHARE + 5)]
    assert taken[:SHARE] == ["changed"] * SHARE
    assert taken[: 2 * SHARE + 2].count("routine") == 2
    assert taken[-3:] == ["routine"] * 3


async def test_what_waits_for_a_routine_look_and_changes_is_looked_at_once_and_first() -> None:
    queue = Queue("PipelineRun")
    first, second = keys("p", 2)
    for key in (first, second):
        queue.add(key, routine=True)
    queue.add(second)
    queue.add(second, routine=True)
    assert [await queue.take(), await queue.take()] == [second, first]
    # What changes while it is looked at is routine only if all of it was.
    queue.add(second, routine=True)
    queue.add(first, routine=True)
    queue.add(first)
    for key in (second, first):
        queue.done(key, failed=False)
    assert [await queue.take(), await queue.take()] == [first, second]
    for key in (second, first):
        queue.done(key, failed=False)
    assert not queue.busy


def test_all_failures_together_are_looked_at_again_at_a_bounded_rate() -> None:
    looks: Counter[int] = Counter()

    async def fail_all() -> None:
        loop, queue = asyncio.get_running_loop(), Queue("PipelineRun", random.Random(1))
        for key in keys("p", 2_000):
            queue.add(key)

        async def work() -> None:
            while True:
                key = await queue.take()
                looks[int(loop.time())] += 1
                queue.done(key, failed=True)

        working = asyncio.create_task(work())
        await asyncio.sleep(120)
        working.cancel()
        queue.close()

    in_virtual_time(fail_all)
    rest = [looks[second] for second in range(1, 119)]
    assert max(rest) <= RETRY_BURST + 2 * RETRIES_PER_S
    assert sum(rest) <= RETRY_BURST + RETRIES_PER_S * 120
    assert sum(rest) > RETRIES_PER_S * 100


def test_one_failure_waits_longer_each_time_and_never_longer_than_two_polls() -> None:
    async def fail() -> list[float]:
        loop, queue = asyncio.get_running_loop(), Queue("PipelineRun", random.Random(1))
        (key,) = keys("p", 1)
        queue.add(key)
        at = []
        for _ in range(12):
            await queue.take()
            at.append(loop.time())
            queue.done(key, failed=True)
        queue.close()
        return [later - sooner for sooner, later in pairwise(at)]

    waits = in_virtual_time(fail)
    assert waits[0] <= 0.2
    assert waits[:5] == sorted(waits[:5])
    assert LONGEST_BACKOFF_S / 2 <= max(waits) <= LONGEST_BACKOFF_S


def test_what_changed_while_it_failed_is_looked_at_within_a_second() -> None:
    async def change() -> float:
        loop, queue = asyncio.get_running_loop(), Queue("PipelineRun", random.Random(1))
        (key,) = keys("p", 1)
        queue.add(key)
        for _ in range(10):
            await queue.take()
            queue.done(key, failed=True)
        await queue.take()
        failed = loop.time()
        queue.add(key)
        queue.done(key, failed=True)
        await queue.take()
        return loop.time() - failed

    assert 0 < in_virtual_time(change) <= 1


def test_a_success_forgets_the_failures_before_it() -> None:
    async def succeed() -> float:
        loop, queue = asyncio.get_running_loop(), Queue("PipelineRun", random.Random(1))
        (key,) = keys("p", 1)
        queue.add(key)
        for failed in (True, True, True, True, True, False):
            await queue.take()
            queue.done(key, failed=failed)
        queue.add(key)
        await queue.take()
        began = loop.time()
        queue.done(key, failed=True)
        await queue.take()
        return loop.time() - began

    assert in_virtual_time(succeed) <= 0.2


async def test_whoever_fills_a_queue_waits_until_it_is_worked_off() -> None:
    queue = Queue("PipelineRun")
    for key in keys("p", 5):
        queue.add(key)
    filling = asyncio.create_task(queue.eased(3))
    for _ in range(2):
        await asyncio.sleep(0)
        assert not filling.done()
        await queue.take()
    await asyncio.wait_for(filling, PATIENCE_S)


@pytest.mark.parametrize("count", [0, 1])
async def test_an_empty_queue_is_no_hindrance(count: int) -> None:
    queue = Queue("PipelineRun")
    for key in keys("p", count):
        queue.add(key)
    await asyncio.wait_for(queue.eased(1), PATIENCE_S)
