"""Code of others around calls: before and after create, update, delete, get and list.  `docs/hooks.md` has an example.

A package names its hooks in the entry point group `michelangelo.hooks`.  Before-hooks change or refuse; what an
after-hook does never undoes the effect.  Those of effects are run by `api.hooks_after`, all others here.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.metadata
import inspect
import logging
import threading
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from api.admission import is_name
from api.calls import Call
from api.errors import ApiError, DeadlineExceeded, FailedPrecondition

GROUP = "michelangelo.hooks"
VERBS = ("create", "update", "delete", "get", "list")
POINTS = tuple(f"{when}_{verb}" for when in ("before", "after") for verb in VERBS)
TIMEOUT_S = 1.0
READ_TRIES = 3
# Calls of one blocking hook at a time; one that hangs keeps no thread from the others.
THREADS = 4

log = logging.getLogger(__name__)


@dataclass
class Event:
    """What a hook sees.

    point: such as `before_create`; kind, namespace, name: what the call is about; old: the stored object, None for a
    create, a get, a list and after an effect; new: the object that is written, or was; before-hooks may change it, and
    admission looks at it afterwards.  revision: of the change, for after-hooks of effects.
    """

    point: str
    call: Call
    kind: str
    namespace: str
    name: str = ""
    old: Any = None
    new: Any = None
    revision: int = 0


class Refused(Exception):
    """Raised by a before-hook: the call is refused with this text."""


@dataclass(frozen=True)
class Hook:
    """Something to run.  `run`: a function or coroutine function of an Event.

    points: of POINTS; kinds: which, none for all; order: lower runs first, then by name; timeout_s: for one run.
    A coroutine must not block; what blocks is a plain function, which runs in a thread.
    """

    name: str
    run: Callable[[Event], Awaitable[None] | None]
    points: frozenset[str]
    kinds: frozenset[str] = frozenset()
    order: int = 100
    timeout_s: float = TIMEOUT_S

    def takes(self, point: str, kind: str) -> bool:
        """Whether it runs at a point for a kind."""
        return point in self.points and (not self.kinds or kind in self.kinds)


class Hooks:
    """The hooks of this process, in their order.  Raises ValueError for a bad name, two of one name, unknown points."""

    def __init__(self, hooks: Iterable[Hook] = ()) -> None:
        self.all: Sequence[Hook] = sorted(hooks, key=lambda hook: (hook.order, hook.name))
        self._slots: dict[str, asyncio.Semaphore] = {}
        self._later: set[asyncio.Task[None]] = set()
        for hook in self.all:
            if not is_name(hook.name):
                raise ValueError(f"hook {hook.name!r}: a name has lower-case letters, digits, '-' and '.'")
            if unknown := hook.points - frozenset(POINTS):
                raise ValueError(f"hook {hook.name}: unknown points {', '.join(sorted(unknown))}")
        names = [hook.name for hook in self.all]
        if twice := {name for name in names if names.count(name) > 1}:
            raise ValueError(f"two hooks are named {', '.join(sorted(twice))}")

    def wanted(self, point: str, kind: str) -> Sequence[Hook]:
        """Return the hooks of a point."""
        return [hook for hook in self.all if hook.takes(point, kind)]

    async def before(self, event: Event) -> None:
        """Run the hooks before a call.  Raises what refuses it: FailedPrecondition, DeadlineExceeded."""
        for hook in self.wanted(event.point, event.kind):
            try:
                await self.run(hook, event)
            except Refused as error:
                raise FailedPrecondition(f"hook {hook.name}: {error}", reason="HOOK_REFUSED") from error
            except TimeoutError:
                raise DeadlineExceeded(
                    f"hook {hook.name} did not answer within {hook.timeout_s:g} s: try again, or ask who runs it",
                    reason="HOOK_TIMEOUT",
                ) from None
            except ApiError:
                raise
            except Exception as error:
                log.exception("hook %s failed before %s %s", hook.name, event.kind, event.name)
                raise FailedPrecondition(
                    f"hook {hook.name} failed ({type(error).__name__}): ask who runs it", reason="HOOK_REFUSED"
                ) from error

    def after_read(self, event: Event) -> None:
        """Run the hooks after a get or a list, beside the answer.  Three tries: a read leaves nothing to go on from."""
        for hook in self.wanted(event.point, event.kind):
            task = asyncio.get_running_loop().create_task(self._tried(hook, event))
            self._later.add(task)
            task.add_done_callback(self._later.discard)

    async def _tried(self, hook: Hook, event: Event) -> None:
        for attempt in range(READ_TRIES):
            try:
                await self.run(hook, event)
                return
            except Exception as error:
                log.warning("hook %s failed at %s: %s", hook.name, event.point, type(error).__name__)
                await asyncio.sleep(0.1 * 2**attempt)

    async def run(self, hook: Hook, event: Event) -> None:
        """Run one hook once.  Raises TimeoutError, and whatever it raises."""
        async with asyncio.timeout(hook.timeout_s):
            if inspect.iscoroutinefunction(hook.run):
                await hook.run(event)
                return
            slots = self._slots.setdefault(hook.name, asyncio.Semaphore(THREADS))
            await slots.acquire()
            made = await _in_thread(lambda: hook.run(event), slots.release)
            if made is not None:
                # Something that is called like a function and returns a coroutine.
                await made

    async def settled(self) -> None:
        """Wait for what runs beside answers."""
        await asyncio.gather(*self._later)


def _in_thread(work: Callable[[], Awaitable[None] | None], freed: Callable[[], None]) -> asyncio.Future[Any]:
    """Run something that may block, in a thread that keeps no process from ending.  `freed`: called when it is over."""
    loop = asyncio.get_running_loop()
    result: asyncio.Future[Any] = loop.create_future()

    def ended(made: Any, error: BaseException | None) -> None:
        freed()
        if result.done():
            return
        if error is not None:
            result.set_exception(error)
        else:
            result.set_result(made)

    def run() -> None:
        made, failed = None, None
        try:
            made = work()
        except BaseException as error:
            failed = error
        with contextlib.suppress(RuntimeError):  # The loop is closed: nobody waits any more.
            loop.call_soon_threadsafe(ended, made, failed)

    threading.Thread(target=run, name="hook", daemon=True).start()
    return result


NO_HOOKS = Hooks()


def installed() -> Hooks:
    """Return the hooks of all installed packages.  Raises ValueError for an entry point that cannot be used."""
    found: list[Hook] = []
    for point in importlib.metadata.entry_points(group=GROUP):
        try:
            given = point.load()
        except Exception as error:
            raise ValueError(f"hook {point.name} = {point.value} cannot be loaded: {error}") from error
        hooks = [given] if isinstance(given, Hook) else list(given)
        if not all(isinstance(hook, Hook) for hook in hooks):
            raise ValueError(f"hook {point.name} = {point.value} is no Hook and no list of Hooks")
        found += hooks
    return Hooks(found)
