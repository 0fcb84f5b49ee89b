"""The gate in virtual time: who is carried out, who waits, who is refused and until when."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import Counter
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from api.calls import SYSTEM, Principal
from api.errors import DeadlineExceeded
from api.gate import (
    LONGEST_HOLD_S,
    LONGEST_RETRY_S,
    PATIENCE_S,
    Caller,
    Gate,
    Overloaded,
)
from api.limits import LimitsConfig
from api.pace import AT_ONCE, LARGE_BYTES, LARGE_BYTES_S
from api.strangers import BURST_S, HOLD_S, MOST_HELD, Strangers, address
from tests.simulation.virtual import VirtualLoop

ALICE, BOB = Principal("alice"), Principal("bob")
TAKES_S = 0.01


def in_virtual_time(work: Callable[[asyncio.AbstractEventLoop], Coroutine[Any, Any, Any]]) -> Any:
    loop = VirtualLoop(random.Random(1))
    try:
        return loop.run_until_complete(work(loop))
    finally:
        loop.close()


class Crowd:
    """Callers at a gate; `ended` has the names of calls in the order of their end, `refused` their refusals."""

    def __init__(self, loop: asyncio.AbstractEventLoop, **limits: Any) -> None:
        self.loop = loop
        self.gate = Gate(LimitsConfig(**limits), loop.time, random.Random(1).random)
        self.running: Counter[str] = Counter()
        self.most: Counter[str] = Counter()
        self.ended: list[str] = []
        self.refused: list[Overloaded] = []

    async def passed(self, who: Principal) -> Caller:
        return self.gate.enter(who) or await self.gate.wait(who)

    async def call(self, who: Principal, takes_s: float = TAKES_S) -> None:
        try:
            passed = await self.passed(who)
        except Overloaded as error:
            self.refused.append(error)
            return
        for name in (who.subject, "all"):
            self.running[name] += 1
            self.most[name] = max(self.most[name], self.running[name])
        try:
            await asyncio.sleep(takes_s)
        finally:
            self.running.subtract([who.subject, "all"])
            self.gate.leave(passed)
        self.ended.append(who.subject)

    async def unused(self) -> bool:
        """Whether nothing is counted any more: as many as ever are let in at once."""
        taken: list[Caller] = []
        while (passed := self.gate.enter(Principal(f"user-{len(taken)}"))) is not None:
            taken.append(passed)
        for one in taken:
            self.gate.leave(one)
        return len(taken) == self.gate._limits.calls


def test_a_caller_with_two_hundred_calls_keeps_another_waiting_for_one_turn() -> None:
    async def flood(loop: asyncio.AbstractEventLoop) -> None:
        crowd = Crowd(loop, calls=4, calls_per_caller=4, wait_s=30)
        flood = [asyncio.ensure_future(crowd.call(ALICE)) for _ in range(200)]
        await asyncio.sleep(2.5 * TAKES_S)
        began = loop.time()
        await crowd.call(BOB)
        assert loop.time() - began <= 2 * TAKES_S
        assert crowd.ended.count("alice") <= 16
        await asyncio.gather(*flood)
        assert (Counter(crowd.ended), crowd.refused) == (Counter(alice=200, bob=1), [])
        assert crowd.most["all"] == 4
        assert await crowd.unused()

    in_virtual_time(flood)


def test_callers_take_turns_however_many_calls_each_has() -> None:
    async def turns(loop: asyncio.AbstractEventLoop) -> None:
        crowd = Crowd(loop, calls=1, calls_per_caller=1, wait_s=30)
        work = [crowd.call(Principal(name)) for name, count in (("a", 90), ("b", 9), ("c", 3)) for _ in range(count)]
        await asyncio.gather(*work)
        assert Counter(crowd.ended[:10]) == Counter(a=4, b=3, c=3)
        assert Counter(crowd.ended[:21]) == Counter(a=9, b=9, c=3)

    in_virtual_time(turns)


def test_one_caller_alone_has_more_at_once_than_one_among_others() -> None:
    async def shared(loop: asyncio.AbstractEventLoop) -> None:
        crowd = Crowd(loop, calls=20, calls_per_caller=10, calls_shared=2, waiting_per_caller=1000, wait_s=30)
        flood = [asyncio.ensure_future(crowd.call(ALICE)) for _ in range(900)]
        await asyncio.sleep(3.5 * TAKES_S)
        assert crowd.running["alice"] == 10
        for _ in range(20):
            await crowd.call(BOB)
        assert crowd.running["alice"] == 2
        await asyncio.sleep(1.2)
        assert crowd.running["alice"] == 10
        await asyncio.gather(*flood)
        assert await crowd.unused()

    in_virtual_time(shared)


def test_who_floods_a_server_that_others_use_has_one_call_carried_out_at_once() -> None:
    async def flooded(loop: asyncio.AbstractEventLoop) -> None:
        crowd = Crowd(loop, calls=20, calls_per_caller=10, calls_shared=4, waiting_per_caller=50, wait_s=0.5)
        flood = [asyncio.ensure_future(crowd.call(ALICE)) for _ in range(200)]
        await asyncio.sleep(0)
        for _ in range(20):
            await asyncio.gather(*(crowd.call(BOB) for _ in range(4)))
            flood += [asyncio.ensure_future(crowd.call(ALICE)) for _ in range(20)]
        assert crowd.running["alice"] == 1
        assert crowd.most["bob"] == 4, "who is not refused keeps its share"
        await asyncio.gather(*flood)
        assert await crowd.unused()

    in_virtual_time(flooded)


def test_calls_that_move_many_bytes_leave_room_for_others_and_for_nobody_else() -> None:
    async def carried_in_a_second(loop: asyncio.AbstractEventLoop, crowd: Crowd, carried: int) -> int:
        count, until = 0, loop.time() + 1

        async def moves() -> None:
            nonlocal count
            while loop.time() < until:
                passed = await crowd.passed(ALICE)
                await asyncio.sleep(TAKES_S)
                crowd.gate.leave(passed, carried)
                count += carried if loop.time() < until else 0

        await asyncio.gather(*(moves() for _ in range(6)))
        await asyncio.sleep(1)
        return count

    async def heavy(loop: asyncio.AbstractEventLoop) -> None:
        crowd = Crowd(loop, calls=20, calls_per_caller=6, calls_shared=2, wait_s=30)
        alone = await carried_in_a_second(loop, crowd, 3_000_000)
        assert alone == pytest.approx(6 * 3_000_000 / TAKES_S, rel=0.1)
        others = asyncio.ensure_future(comes_again(crowd))
        await asyncio.sleep(0.5)
        heavy, light = [await carried_in_a_second(loop, crowd, size) for size in (3_000_000, LARGE_BYTES)]
        others.cancel()
        assert heavy == pytest.approx(2 * LARGE_BYTES_S * 0.9, rel=0.2)
        assert light == pytest.approx(2 * LARGE_BYTES / TAKES_S, rel=0.1)
        await asyncio.sleep(2)
        assert await crowd.unused()

    async def comes_again(crowd: Crowd) -> None:
        while True:
            await crowd.call(BOB)
            await asyncio.sleep(0.1)

    in_virtual_time(heavy)


def test_those_who_came_together_are_not_refused_together() -> None:
    async def together(loop: asyncio.AbstractEventLoop) -> None:
        crowd = Crowd(loop, calls=1, calls_per_caller=1, wait_s=1)
        busy = await crowd.passed(ALICE)
        ends: Counter[float] = Counter()

        async def waits() -> None:
            with pytest.raises(Overloaded):
                await crowd.gate.wait(ALICE)
            ends[round(loop.time(), 2)] += 1

        await asyncio.gather(*(waits() for _ in range(300)))
        assert 0.5 <= min(ends) - LONGEST_HOLD_S < 0.52
        assert 0.98 < max(ends) - LONGEST_HOLD_S < 1.3
        assert max(ends.values()) <= 2 * AT_ONCE
        crowd.gate.leave(busy)
        assert await crowd.unused()

    in_virtual_time(together)


def test_in_a_crowd_that_does_not_end_whoever_is_let_in_has_not_waited_for_long() -> None:
    async def crowded(loop: asyncio.AbstractEventLoop) -> None:
        crowd = Crowd(loop, calls=1, calls_per_caller=1, wait_s=1)
        waited: list[float] = []

        async def call() -> None:
            began = loop.time()
            with contextlib.suppress(Overloaded):
                passed = await crowd.passed(ALICE)
                waited.append(loop.time() - began)
                await asyncio.sleep(TAKES_S)
                crowd.gate.leave(passed)

        calls = []
        for _ in range(2000):
            # Five times as many as can be carried out, at a pace that is no multiple of theirs.
            calls.append(asyncio.ensure_future(call()))
            await asyncio.sleep(TAKES_S * 0.19)
        in_the_crowd = sorted(waited)
        await asyncio.gather(*calls)
        assert len(in_the_crowd) >= 0.95 * 2000 * 0.19
        assert in_the_crowd[len(in_the_crowd) * 9 // 10] < 0.1
        assert in_the_crowd[-1] < 0.3
        assert max(waited) <= 1, "those whose time is over are refused, however late they are told"
        assert await crowd.unused()

    in_virtual_time(crowded)


def test_one_caller_never_has_more_than_its_share() -> None:
    async def share(loop: asyncio.AbstractEventLoop) -> None:
        crowd = Crowd(loop, calls=8, calls_per_caller=3, calls_shared=3, wait_s=30)
        helper = Principal("carol", via="alice")
        await asyncio.gather(*(crowd.call(who) for _ in range(30) for who in (ALICE, helper, BOB)))
        assert crowd.most["alice"] + crowd.most["carol"] <= 2 * 3
        assert crowd.most["bob"] == 3
        # In whose name somebody acts makes no second share.
        assert crowd.most["all"] <= 6
        assert await crowd.unused()

    in_virtual_time(share)


def test_the_platform_itself_never_waits_and_takes_no_place() -> None:
    async def exempt(loop: asyncio.AbstractEventLoop) -> None:
        crowd = Crowd(loop, calls=1, calls_per_caller=1, waiting=0, waiting_per_caller=0)
        busy = asyncio.ensure_future(crowd.call(ALICE, 60))
        await asyncio.sleep(0)
        began = loop.time()
        await asyncio.gather(*(crowd.call(SYSTEM) for _ in range(500)))
        assert loop.time() - began == pytest.approx(TAKES_S)
        assert crowd.most[SYSTEM.subject] == 500
        assert await crowd.gate.read(await crowd.passed(SYSTEM), asyncio.sleep(2, b"read")) == b"read"
        await busy
        assert await crowd.unused()

    in_virtual_time(exempt)


def test_who_waited_too_long_or_finds_its_queue_full_is_told_when_to_come_again() -> None:
    async def refuse(loop: asyncio.AbstractEventLoop) -> None:
        crowd = Crowd(loop, calls=2, calls_per_caller=2, waiting=60, waiting_per_caller=50, wait_s=0.1)
        await asyncio.gather(*(crowd.call(ALICE) for _ in range(100)), *(crowd.call(BOB) for _ in range(15)))
        reasons = Counter(error.reason for error in crowd.refused)
        # 2 run, 50 of one and 10 of the other wait, for ten times as long as a call takes; they are refused one by one.
        assert reasons["TOO_MANY_CALLS"] == 100 - 52 + 15 - 10
        assert 15 <= reasons["WAITED_TOO_LONG"] <= 60 - 18
        assert len(crowd.ended) + len(crowd.refused) == 115
        assert all(error.retry_s > 0 and f"{error.retry_s:.1f} s" in error.message for error in crowd.refused)
        assert await crowd.unused()

    in_virtual_time(refuse)


def test_the_time_to_come_again_follows_the_pace_and_the_crowd() -> None:
    async def told(loop: asyncio.AbstractEventLoop, takes_s: float, count: int) -> float:
        crowd = Crowd(loop, calls=1, calls_per_caller=1, waiting_per_caller=50, wait_s=30)
        flood = [asyncio.ensure_future(crowd.call(ALICE, takes_s)) for _ in range(51)]
        await asyncio.sleep(40.5 * takes_s)
        flood += [asyncio.ensure_future(crowd.call(ALICE, takes_s)) for _ in range(40 + count)]
        await asyncio.gather(*flood)
        # A part of it was spent before the refusal.
        told = max(error.retry_s for error in crowd.refused)
        return told + min(told, LONGEST_HOLD_S)

    async def compare(loop: asyncio.AbstractEventLoop) -> None:
        quick, slow = await told(loop, 0.01, 20), await told(loop, 0.1, 20)
        assert quick == pytest.approx(0.7, rel=0.3)
        assert slow == pytest.approx(10 * quick, rel=0.1)
        assert await told(loop, 0.01, 200) > 2.5 * quick
        assert await told(loop, 5, 20) == LONGEST_RETRY_S

    in_virtual_time(compare)


def test_who_leaves_while_it_waits_or_when_its_turn_comes_takes_no_place() -> None:
    async def leave(loop: asyncio.AbstractEventLoop) -> None:
        for seed in range(50):
            rng = random.Random(seed)
            crowd = Crowd(loop, calls=2, calls_per_caller=2, wait_s=0.5)
            work = [asyncio.ensure_future(crowd.call(rng.choice((ALICE, BOB)))) for _ in range(60)]
            for task in rng.sample(work, 40):
                await asyncio.sleep(rng.choice((0, 0, 0.003, TAKES_S)))
                task.cancel()
            await asyncio.gather(*work, return_exceptions=True)
            assert crowd.most["all"] <= 2
            assert await crowd.unused()
            assert not crowd.gate._waiting

    in_virtual_time(leave)


def test_a_request_that_comes_slowly_gives_its_turn_to_others() -> None:
    async def slow(loop: asyncio.AbstractEventLoop) -> None:
        crowd = Crowd(loop, calls=4, calls_per_caller=2, wait_s=30, body_s=2)
        mine = await crowd.passed(ALICE)
        reading = asyncio.ensure_future(crowd.gate.read(mine, asyncio.sleep(1, b"late")))
        await asyncio.sleep(2 * PATIENCE_S)
        assert await crowd.unused()
        assert await reading == b"late"
        assert not await crowd.unused()
        crowd.gate.leave(mine)
        # Of two calls at once, one may be slow; the next is not waited for, and nothing is for ever.
        first, second = await crowd.passed(ALICE), await crowd.passed(ALICE)
        forever = asyncio.ensure_future(crowd.gate.read(first, asyncio.sleep(1e6)))
        await asyncio.sleep(0)
        with pytest.raises(Overloaded, match="slowly"):
            await crowd.gate.read(second, asyncio.sleep(1e6))
        began = loop.time()
        with pytest.raises(DeadlineExceeded, match="not whole after 2 s"):
            await forever
        assert loop.time() - began < 2
        crowd.gate.leave(first)
        crowd.gate.leave(second)
        assert await crowd.unused()

    in_virtual_time(slow)


def test_many_callers_are_forgotten_when_they_are_done() -> None:
    async def many(loop: asyncio.AbstractEventLoop) -> None:
        crowd = Crowd(loop)
        for number in range(10_100):
            await crowd.call(Principal(f"user-{number}"), 0)
        assert len(crowd.gate._callers) < 10_001

    in_virtual_time(many)


def test_refusals_of_one_address_are_limited_and_those_of_others_are_not() -> None:
    async def strangers(loop: asyncio.AbstractEventLoop) -> None:
        limited = Strangers(2, loop.time)
        at_once = round(2 * BURST_S)
        for port in range(at_once):
            await limited.check(f"ipv4:10.0.0.1:{port}")
        await limited.check("ipv4:10.0.0.2:1")
        assert loop.time() == 0
        with pytest.raises(Overloaded, match="not let in"):
            await limited.check("10.0.0.1:9")
        assert loop.time() == HOLD_S
        await limited.check("10.0.0.1:9")
        began = loop.time()
        told = await asyncio.gather(*(limited.check("10.0.0.3:1") for _ in range(3_000)), return_exceptions=True)
        assert loop.time() - began <= HOLD_S
        assert sum(one is None for one in told) == at_once
        assert limited._held == 0
        assert MOST_HELD < 3_000

    in_virtual_time(strangers)


@pytest.mark.parametrize(
    ("peer", "network"),
    [
        ("ipv4:10.0.0.1:5", "10.0.0.1"),
        ("10.0.0.1:5", "10.0.0.1"),
        ("ipv6:%5B2001:db8:1:2:3:4:5:6%5D:5", "2001:db8:1:2::"),
        ("2001:db8:1:2::9:5", "2001:db8:1:2::"),
        ("ipv6:[::ffff:10.0.0.1]:5", "10.0.0.1"),
        ("unix:", "unix"),
        ("", ""),
    ],
)
def test_a_peer_is_known_by_its_network(peer: str, network: str) -> None:
    assert address(peer) == network
