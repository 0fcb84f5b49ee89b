"""What keeps a server from doing more at once than it can: calls are carried out, wait their turn, or are refused.

A bounded number of calls is carried out at once.  Those beyond wait in a queue of their caller, for a short time;
callers take turns, so that one with a thousand calls delays another's only one by no more than a turn, and have fewer
calls under way than one alone, so that each is quick; one that comes with more than can be served has one.  Whoever
waited too long, or finds its queue full, is refused with the time after which it may be worth to ask again, after a
part of that time.  The platform's own calls never wait.

A queue is served from its front; once its front has waited for long, from its back.  More calls come then than can be
carried out, some are refused whatever is done, and in order of coming each of the others would have waited as long as
one can: from the back, whoever is let in comes soon, and whoever is refused is refused all the same.

A call that moves many bytes costs others more than its turn: copying and sending them goes on when it has ended.  While
others share the server it keeps its place for the time that its bytes take at a given pace, as lists of Kubernetes do.

A request is read in its turn, so that those who wait hold no memory; one whose bytes come slowly gives its turn away
until they are there.  Sources of the ideas: Kubernetes' API Priority and Fairness; B. Maurer, "Fail at Scale" (ACM
Queue 13, 2015), on queues served last in, first out.  Knows no transport and no operation.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

from prometheus_client import Counter, Gauge

from api.calls import Principal
from api.errors import DeadlineExceeded, ResourceExhausted
from api.late import Late
from api.limits import DEFAULT, LimitsConfig
from api.pace import LARGE_BYTES, LARGE_BYTES_S, Pace

T = TypeVar("T")

SHORTEST_RETRY_S = 0.1
LONGEST_RETRY_S = 30.0
# Of the time after which to come again, half is spent here, up to this: those who do not heed it are slowed down too.
LONGEST_HOLD_S = 1.0
# How much one more call says of a caller's pace, and how soon refusals are forgotten.
SMOOTH = 1 / 16
FORGET_S = 1.0
# Callers of which something is remembered while they do nothing.
MOST_KNOWN = 10_000
# So long after two callers called in turn they are taken to share the server.
SHARED_S = 1.0
# Those who came together are not refused together: each waits a part of the longest time, at least this one.
LEAST_WAIT = 0.5
# A queue whose front has waited for this part of the longest time is served from its back.
LONG = 0.25
# So long a call may wait for its request's bytes in its turn.
PATIENCE_S = 0.25
TOO_SLOW = "too slow"

REFUSED = Counter("ma_api_refused_total", "Calls that were refused because there are too many.", ["reason"])
RUNNING = Gauge("ma_api_running", "Calls that are carried out now.")
WAITING = Gauge("ma_api_waiting", "Calls that wait for their turn.")


class Overloaded(ResourceExhausted):
    """Too many calls.  `retry_s`: after so many seconds it may be worth to ask again."""

    def __init__(self, message: str, *, reason: str, retry_s: float) -> None:
        super().__init__(f"{message}; try again in {retry_s:.1f} s", reason=reason)
        self.retry_s = retry_s
        REFUSED.labels(reason).inc()


@dataclass(eq=False, slots=True)
class Waiter:
    """A call that waits.  turn: True when it came, False when it is to be refused.  since_s, until_s: the gate's clock.

    Refusals are paced: one whose time is over may be told so a little later, and is not let in any more.
    """

    turn: asyncio.Future[bool]
    since_s: float
    until_s: float


class Caller:
    """What one caller has under way.  Made and changed by the gate alone."""

    __slots__ = ("name", "pace_s", "refused", "refused_at", "running", "slow", "stepped_at", "waiters")

    def __init__(self, name: str) -> None:
        self.name = name
        self.running = 0
        # How many of its calls wait for bytes.
        self.slow = 0
        self.waiters: deque[Waiter] = deque()
        # Seconds between two of its calls that ended, as long as it has others that wait.
        self.pace_s = 0.0
        self.stepped_at = 0.0
        self.refused = 0.0
        self.refused_at = 0.0


class Gate:
    """Lets calls of many callers through.  Every call that `enter` or `wait` let in must `leave`."""

    def __init__(
        self,
        limits: LimitsConfig = DEFAULT,
        clock: Callable[[], float] = time.monotonic,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._limits = limits
        self._chance = chance
        self._share_alone = limits.calls_per_caller
        self._share = min(limits.calls_shared, limits.calls_per_caller)
        self._latest: Caller | None = None
        self._shared_at = -SHARED_S
        self._held = 0
        self._slow = 0
        self._most_slow = max(1, limits.calls // 2)
        self._most_slow_per_caller = max(1, limits.calls_per_caller // 2)
        self._clock = clock
        self._callers: OrderedDict[str, Caller] = OrderedDict()
        # Those that have a call which waits and could be carried out, in the order of their turns.
        self._turns: OrderedDict[str, Caller] = OrderedDict()
        self._exempt = Caller("")
        self._pace = Pace()
        self._late = Late()
        self._running = 0
        self._waiting = 0
        RUNNING.set_function(lambda: self._running)
        WAITING.set_function(lambda: self._waiting)

    def enter(self, principal: Principal) -> Caller | None:
        """Return the pass of a call that is carried out now, None for one that must wait."""
        if principal.kind == "system":
            return self._exempt
        caller = self._of(principal)
        if caller is not self._latest:
            if self._latest is not None:
                self._shared_at = self._clock()
            self._latest = caller
        if (
            self._running < self._limits.calls
            # With none under way, what is the share need not be asked.
            and (not caller.running or caller.running < self._share_now(caller))
            and not caller.waiters
            and not self._turns
        ):
            self._running += 1
            caller.running += 1
            return caller
        return None

    async def wait(self, principal: Principal) -> Caller:
        """Return the pass of a call when its turn has come.  Raises Overloaded (TOO_MANY_CALLS, WAITED_TOO_LONG)."""
        caller = self._of(principal)
        most, most_in_all = self._limits.waiting_per_caller, self._limits.waiting
        if len(caller.waiters) >= most:
            raise await self._refusal(caller, f"{most} of your calls wait already", "TOO_MANY_CALLS")
        if self._waiting >= most_in_all:
            raise await self._refusal(caller, f"{most_in_all} calls wait already", "TOO_MANY_CALLS")
        loop = asyncio.get_running_loop()
        turn: asyncio.Future[bool] = loop.create_future()
        now = self._clock()
        if not caller.waiters:
            caller.stepped_at = now
        wait_s = self._limits.wait_s * (LEAST_WAIT + (1 - LEAST_WAIT) * self._chance())
        waiter = Waiter(turn, now, now + wait_s)
        caller.waiters.append(waiter)
        self._waiting += 1
        self._line_up(caller)
        self._call_next()
        self._pace.end(turn, wait_s)
        try:
            its_turn = await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled() and turn.result():
                # Its turn came in the moment in which its caller left.
                self.leave(caller)
            else:
                self._gone(caller, waiter)
            raise
        if not its_turn:
            self._gone(caller, waiter)
            told = f"the call waited {wait_s:.2f} s for its turn"
            raise await self._refusal(caller, told, "WAITED_TOO_LONG")
        return caller

    def _gone(self, caller: Caller, waiter: Waiter) -> None:
        """Strike a call that waits no longer."""
        self._waiting -= 1
        caller.waiters.remove(waiter)
        if not caller.waiters:
            self._turns.pop(caller.name, None)

    async def read(self, caller: Caller, reading: Awaitable[T], since: float | None = None) -> T:
        """Return what is read of the request of a call that was let in, and that is let in afterwards too.

        since: when reading began, in the loop's time, if it did not begin now.
        Raises Overloaded (SLOW_REQUEST) if too many are slow, DeadlineExceeded (SLOW_REQUEST).
        """
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        if caller is self._exempt or task is None:
            return await reading
        began = loop.time() if since is None else since
        slow, wait = False, 0

        def step_aside() -> None:
            nonlocal slow, wait
            if self._slow >= self._most_slow or caller.slow >= self._most_slow_per_caller:
                task.cancel(TOO_SLOW)
                return
            slow = True
            self._slow += 1
            caller.slow += 1
            wait = self._late.begin(loop, began + self._limits.body_s, give_up)
            self.leave(caller)

        def give_up() -> None:
            task.cancel(TOO_SLOW)

        wait = self._late.begin(loop, began + PATIENCE_S, step_aside)
        try:
            return await reading
        except asyncio.CancelledError as error:
            if error.args != (TOO_SLOW,) or task.uncancel():
                raise
            if slow:
                told = f"the request was not whole after {self._limits.body_s:g} s"
                raise DeadlineExceeded(told, reason="SLOW_REQUEST") from None
            told = "the request comes slowly, and too many others do"
            raise Overloaded(told, reason="SLOW_REQUEST", retry_s=self._limits.wait_s) from None
        finally:
            self._late.end(wait)
            if slow:
                # It has waited long enough: it goes on at once, one more than there should be.
                self._slow -= 1
                caller.slow -= 1
                self._running += 1
                caller.running += 1

    def leave(self, caller: Caller, carried: int = 0) -> None:
        """End a call that was let in.  carried: bytes of its request and its answer."""
        if caller is self._exempt:
            return
        if carried > LARGE_BYTES and self._is_shared():
            asyncio.get_running_loop().call_later(carried / LARGE_BYTES_S, self._give_place, caller)
        else:
            self._give_place(caller)

    def _give_place(self, caller: Caller) -> None:
        self._running -= 1
        caller.running -= 1
        if caller.waiters:
            now = self._clock()
            caller.pace_s += (now - caller.stepped_at - caller.pace_s) * SMOOTH
            caller.stepped_at = now
            self._line_up(caller)
        if self._turns:
            self._call_next()

    def _of(self, principal: Principal) -> Caller:
        """Return the caller of a call: whoever acts in names of others has one share for all of them."""
        name = principal.via or principal.subject
        caller = self._callers.get(name)
        if caller is None:
            caller = self._callers[name] = Caller(name)
            if len(self._callers) > MOST_KNOWN:
                self._forget()
        return caller

    def _forget(self) -> None:
        for name, caller in [*self._callers.items()][:-1]:
            if not caller.running and not caller.waiters:
                del self._callers[name]

    def _share_now(self, caller: Caller) -> int:
        """Return how many calls of a caller are carried out at once: one, if it floods a server that others use."""
        if not self._is_shared():
            return self._share_alone
        return 1 if caller.refused and self._clock() - caller.refused_at < FORGET_S else self._share

    def _is_shared(self) -> bool:
        return self._clock() - self._shared_at < SHARED_S

    def _line_up(self, caller: Caller) -> None:
        """Give a caller a turn, behind all others, if it could use one."""
        if caller.name not in self._turns and caller.running < self._share_now(caller):
            self._turns[caller.name] = caller

    def _call_next(self) -> None:
        """Let in whoever's turn it is, as long as there is room."""
        while self._turns and self._running < self._limits.calls:
            _, caller = self._turns.popitem(last=False)
            waiter = self._first_of(caller)
            if waiter is None:
                continue
            caller.waiters.remove(waiter)
            self._waiting -= 1
            self._running += 1
            caller.running += 1
            waiter.turn.set_result(True)
            if caller.waiters:
                self._line_up(caller)

    def _first_of(self, caller: Caller) -> Waiter | None:
        """Return which of a caller's calls is next, None if all of them are about to end."""
        now = self._clock()
        first = next((one for one in caller.waiters if not one.turn.done()), None)
        if first is None or now - first.since_s < LONG * self._limits.wait_s:
            return first
        return next((one for one in reversed(caller.waiters) if not one.turn.done() and now < one.until_s), None)

    async def _refusal(self, caller: Caller, told: str, reason: str) -> Overloaded:
        """Return a refusal with the time after which all who wait or were refused would have had their turn."""
        now = self._clock()
        caller.refused = 1 + caller.refused * max(0.0, 1 - (now - caller.refused_at) / FORGET_S)
        caller.refused_at = now
        # One that has not ended yet is counted as if it ended now.
        pace_s = max(caller.pace_s, (now - caller.stepped_at) * SMOOTH if caller.waiters else 0.0)
        ahead_s = (len(caller.waiters) + caller.refused) * pace_s or self._limits.wait_s
        retry_s = min(max(ahead_s, SHORTEST_RETRY_S), LONGEST_RETRY_S)
        hold_s = min(retry_s / 2, LONGEST_HOLD_S) if self._held < self._limits.waiting else 0.0
        refusal = Overloaded(told, reason=reason, retry_s=max(retry_s - hold_s, SHORTEST_RETRY_S))
        if hold_s:
            self._held += 1
            try:
                await self._pace.sleep(hold_s)
            finally:
                self._held -= 1
        return refusal
