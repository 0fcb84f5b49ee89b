"""Runs after-hooks of effects from the change log: each at least once, in order, until it succeeds.

Where a hook stands is the status of its `Hook` object: another leader, or this process after a restart, goes on from
there.  A change that was seen to within the last second may be seen to again.  Only the leader runs it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import AsyncIterator
from typing import Any

from api.admission import SYSTEM_NAMESPACE
from api.calls import Call
from api.differences import changed_fields
from api.errors import ApiError, Conflict, Expired
from api.hooks import Event, Hook, Hooks
from api.kinds import kinds
from api.resources import Resources
from api.store.base import Change, ChangeType, Key

POINTS = {ChangeType.ADDED: "after_create", ChangeType.MODIFIED: "after_update", ChangeType.DELETED: "after_delete"}
EFFECTS = frozenset(POINTS.values())
# What only the platform changes is no update.
OWN = ("status.", "metadata.finalizers", "metadata.deletionTimestamp", "metadata.annotations[michelangelo.airflow/")
SAVE_S = 1.0
IDLE_SAVE_S = 60.0
FIRST_PAUSE_S = 0.2
LONGEST_PAUSE_S = 30.0

log = logging.getLogger(__name__)


class AfterHooks:
    """Runs the after-hooks of effects.  `first_pause_s`: before the second try; later ones wait twice as long each."""

    def __init__(self, resources: Resources, hooks: Hooks, *, first_pause_s: float = FIRST_PAUSE_S) -> None:
        self._resources = resources
        self._hooks = hooks
        self._first_pause_s = first_pause_s

    async def run(self) -> None:
        """Follow the changes for every hook, for ever."""
        following = [asyncio.create_task(self._follow(hook)) for hook in self._hooks.all if hook.points & EFFECTS]
        try:
            if not following:
                await asyncio.Event().wait()
            await asyncio.wait(following, return_when=asyncio.FIRST_COMPLETED)
            for task in following:
                if task.done():
                    task.result()
        finally:
            for task in following:
                task.cancel()
            await asyncio.gather(*following, return_exceptions=True)

    async def _follow(self, hook: Hook) -> None:
        pause_s = self._first_pause_s
        while True:
            try:
                state = await self._state(hook)
                pause_s = self._first_pause_s
                await self._deliver(hook, state)
            except Expired:
                await self._again(hook)
            except ApiError as error:
                if isinstance(error, Conflict) and error.reason == "DEPOSED":
                    raise
                log.warning("hook %s waits: %s", hook.name, error.message)
                await asyncio.sleep(pause_s)
                pause_s = min(2 * pause_s, LONGEST_PAUSE_S)

    async def _state(self, hook: Hook) -> Any:
        """Return the hook's object.  One that was never seen begins at the newest change."""
        wanted = kinds()["Hook"].new(SYSTEM_NAMESPACE, hook.name)
        wanted.spec.points.extend(sorted(hook.points))
        wanted.spec.kinds.extend(sorted(hook.kinds))
        wanted.spec.order = hook.order
        wanted.spec.timeout.FromMilliseconds(round(1000 * hook.timeout_s))
        found = await self._resources.find(Key("Hook", SYSTEM_NAMESPACE, hook.name))
        if found is None:
            newest = await self._resources.revision()
            found = await self._resources.create(wanted)
            found.status.position = newest
            return await self._resources.update_status(found)
        if found.spec != wanted.spec:
            found.spec.CopyFrom(wanted.spec)
            found = await self._resources.update(found)
        return found

    async def _deliver(self, hook: Hook, state: Any) -> None:
        async with self._saving(state) as handled:
            log_: Any = self._resources.watch(None, state.status.position)
            async with contextlib.aclosing(log_):
                async for change in log_:
                    if change.key.kind == "Hook":
                        continue
                    if _concerns(hook, change):
                        await self._until_done(hook, state, _event(change))
                        handled.set()
                    state.status.position = change.revision

    async def _until_done(self, hook: Hook, state: Any, event: Event) -> None:
        pause_s = self._first_pause_s
        while True:
            try:
                await self._hooks.run(hook, event)
            except Exception as error:
                status = state.status
                if not status.failures:
                    status.failing_since.GetCurrentTime()
                status.failures += 1
                late = f"did not answer within {hook.timeout_s:g} s"
                status.message = late if isinstance(error, TimeoutError) else f"{type(error).__name__}: {error}"[:500]
                log.warning("hook %s failed after %s: %s", hook.name, event.name, status.message)
                await asyncio.sleep(random.uniform(pause_s / 2, pause_s))
                pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
            else:
                for field in ("failures", "failing_since", "message"):
                    state.status.ClearField(field)
                return

    @contextlib.asynccontextmanager
    async def _saving(self, state: Any) -> AsyncIterator[asyncio.Event]:
        """Write the status a second after something was handled or failed, else once a minute, and at the end.

        Yields what to set when something was handled.
        """
        handled = asyncio.Event()
        saved = type(state.status)()
        saved.CopyFrom(state.status)

        async def save() -> None:
            if state.status != saved:
                saved.CopyFrom(state.status)
                await self._resources.update_status(state)

        async def often() -> None:
            while True:
                for _ in range(round(IDLE_SAVE_S / SAVE_S)):
                    await asyncio.sleep(SAVE_S)
                    if handled.is_set() or state.status.failures != saved.failures:
                        break
                handled.clear()
                with contextlib.suppress(ApiError):
                    await save()

        saver = asyncio.get_running_loop().create_task(often())
        try:
            yield handled
        finally:
            saver.cancel()
            with contextlib.suppress(ApiError):
                await save()

    async def _again(self, hook: Hook) -> None:
        """Look at every object once: changes were forgotten before the hook had seen to them.  Deletes are not told."""
        log.warning("hook %s missed changes: it runs once for each object there is", hook.name)
        state = await self._state(hook)
        newest = await self._resources.revision()
        for kind in kinds():
            if kind != "Hook" and hook.takes("after_update", kind):
                for item in (await self._resources.list(kind)).items:
                    await self._until_done(hook, state, _event(_modified(kind, item)))
        state.status.position = newest
        await self._resources.update_status(state)


def _concerns(hook: Hook, change: Change) -> bool:
    if not hook.takes(POINTS[change.type], change.key.kind):
        return False
    if change.type is not ChangeType.MODIFIED or change.previous is None:
        return True
    return any(not path.startswith(OWN) for path in changed_fields(change.previous, change.resource))


def _event(change: Change) -> Event:
    key = change.key
    event = Event(POINTS[change.type], Call(), key.kind, key.namespace, key.name, revision=change.revision)
    if change.type is ChangeType.DELETED:
        event.old = change.resource
    else:
        event.old, event.new = change.previous, change.resource
    return event


def _modified(kind: str, item: Any) -> Change:
    metadata = item.metadata
    key = Key(kind, metadata.namespace, metadata.name)
    return Change(int(metadata.resourceVersion), ChangeType.MODIFIED, key, item)
