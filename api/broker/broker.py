"""The broker: takes each event to the subscriptions of its project, in the order in which events came.  Leader only.

It follows the store's changes from a place that it keeps; what was taken before a crash may be taken again, and has no
second effect: names of runs are computed, and a subscription knows the newest event that it has taken.  Source of the
shape: `hooks_after`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Sequence
from typing import Any

from api import failpoints
from api.admission import SYSTEM_NAMESPACE
from api.broker.deliveries import Delivered, Deliverer, is_over, note
from api.broker.own_events import said
from api.errors import AlreadyExists, ApiError, Conflict, Expired, FailedPrecondition, InvalidArgument, NotFound
from api.kinds import kinds
from api.resources import Resources
from api.store.base import Change, ChangeType, Criterion, Key, Operator, Query
from api.store.values import UPDATED_LABEL, key_of
from api.subscriptions.matching import is_single, matches
from api.subscriptions.values import DEFAULT_TTL, depth_of, fields

KINDS = ("Event", "Model", "PipelineRun", "Subscription")
# The object that says how far the broker has come.
PLACE = "ma-events"
SAVE_S = 1.0
# What was taken in a second before the place was kept may have been taken since.
OVERLAP_US = 120 * 1_000_000
BATCH = 64
FIRST_PAUSE_S = 0.2
LONGEST_PAUSE_S = 5.0

log = logging.getLogger(__name__)

Heard = Callable[[Any], None]
Changed = Callable[[str], None]


class Broker:
    """Delivers events.  heard: is told each event that came; changed: each project whose subscriptions did.

    Neither may wait.
    """

    def __init__(
        self, resources: Resources, heard: Heard = lambda event: None, changed: Changed = lambda project: None
    ) -> None:
        self._resources = resources
        self._changed = changed
        self._deliverer = Deliverer(resources)
        self._heard = heard
        self._subscriptions: dict[str, dict[str, Any]] = {}
        self._position = self._saved = 0
        self._saved_at = float("-inf")
        self._place: Any | None = None

    async def run(self) -> None:
        """Deliver, for ever."""
        pause_s = FIRST_PAUSE_S
        while True:
            try:
                await self._begin()
                pause_s = FIRST_PAUSE_S
                try:
                    await self._follow()
                except Expired:
                    await self._catch_up()
            except ApiError as error:
                if is_over(error):
                    raise
                log.warning("events wait: %s", error.message)
                await asyncio.sleep(pause_s)
                pause_s = min(2 * pause_s, LONGEST_PAUSE_S)

    async def _begin(self) -> None:
        self._place = await self._resources.find(Key("Hook", SYSTEM_NAMESPACE, PLACE))
        kept = 0 if self._place is None else self._place.status.position
        self._position = self._saved = max(self._position, kept)
        self._subscriptions = {}
        for item in (await self._resources.list("Subscription")).items:
            self._put(item)

    def _put(self, subscription: Any) -> None:
        """Know a subscription as it is now, unless a newer state of it is known."""
        mine = self._subscriptions.setdefault(subscription.metadata.namespace, {})
        known = mine.get(subscription.metadata.name)
        if known is None or _revision(known) <= _revision(subscription):
            mine[subscription.metadata.name] = subscription
            if known is None or known.spec != subscription.spec:
                self._changed(subscription.metadata.namespace)

    async def _follow(self) -> None:
        """Take changes as they come, as many at a time as there are.  Raises Expired."""
        waiting: asyncio.Queue[Change | BaseException] = asyncio.Queue(4 * BATCH)
        reader = asyncio.create_task(self._read(waiting))
        try:
            while True:
                batch = [await self._next(waiting)]
                while len(batch) < BATCH and not waiting.empty():
                    batch.append(await self._next(waiting))
                await self._until_done(batch)
                self._position = batch[-1].revision
                if any(change.key.kind == "Event" for change in batch):
                    await self._save()
        finally:
            reader.cancel()
            await asyncio.gather(reader, return_exceptions=True)

    async def _read(self, waiting: asyncio.Queue[Change | BaseException]) -> None:
        try:
            changes: Any = self._resources.watch(KINDS, self._position)
            async with contextlib.aclosing(changes):
                async for change in changes:
                    await waiting.put(change)
        except ApiError as error:
            await waiting.put(error)

    @staticmethod
    async def _next(waiting: asyncio.Queue[Change | BaseException]) -> Change:
        found = await waiting.get()
        if isinstance(found, BaseException):
            raise found
        return found

    async def _until_done(self, batch: Sequence[Change]) -> None:
        """Take changes, again and again until the store has answered to all of them."""
        pause_s = FIRST_PAUSE_S
        while True:
            try:
                await self._take(batch)
                return
            except ApiError as error:
                if is_over(error):
                    raise
                log.warning("events are taken again: %s", error.message)
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)

    async def _take(self, batch: Sequence[Change]) -> None:
        """Take changes in their order; those of subscriptions stand between the events."""
        events: list[tuple[int, Any]] = []
        for change in batch:
            if change.key.kind == "Subscription":
                await self._deliver(events)
                events = []
                if change.type is ChangeType.DELETED:
                    self._subscriptions.get(change.key.namespace, {}).pop(change.key.name, None)
                    self._changed(change.key.namespace)
                else:
                    self._put(change.resource)
            elif change.key.kind == "Event":
                if change.type is ChangeType.ADDED:
                    events.append((change.revision, change.resource))
            else:
                await self._say(change)
        await self._deliver(events)

    async def _say(self, change: Change) -> None:
        """Store the events that a change means, if somebody waits for them; they come back as changes."""
        mine = self._subscriptions.get(change.key.namespace, {})
        if not mine:
            return
        for event in said(change):
            found = fields(event)
            wanted = [one for one in mine.values() if any(matches(match, found) for match in one.spec.events)]
            if wanted:
                await self._publish(event, wanted, change.revision)

    async def _publish(self, event: Any, wanted: Sequence[Any], revision: int) -> None:
        cause = Key("PipelineRun", event.metadata.namespace, event.spec.cause.name)
        if cause.name:
            run = await self._resources.find(cause)
            if run is None:
                event.spec.ClearField("cause")
            event.spec.depth = depth_of(run)
        event.spec.expire_time.GetCurrentTime()
        event.spec.expire_time.seconds += round(DEFAULT_TTL.total_seconds())
        try:
            await self._resources.create(event)
        except AlreadyExists:
            return
        except (FailedPrecondition, InvalidArgument, NotFound) as error:
            log.warning("%s of %s is not told: %s", event.spec.name, event.spec.source, error.message)
            told = [Delivered(event.metadata.name, message=error.message)]
            for subscription in wanted:
                changed = _copy(subscription)
                if revision > subscription.status.position and note(changed, told, revision):
                    await self._keep(changed)

    async def _deliver(self, events: Sequence[tuple[int, Any]]) -> None:
        """Take events to all subscriptions at once; each gets its own one after the other."""
        for _, event in events:
            self._heard(event)
        concerned = {namespace for _, event in events if (namespace := event.metadata.namespace) in self._subscriptions}
        await asyncio.gather(
            *(
                self._deliver_to(subscription, [one for one in events if one[1].metadata.namespace == namespace])
                for namespace in concerned
                for subscription in list(self._subscriptions[namespace].values())
            )
        )

    async def _deliver_to(self, subscription: Any, events: Sequence[tuple[int, Any]]) -> None:
        new = [one for one in events if one[0] > subscription.status.position]
        if is_single(subscription.spec):
            told = await asyncio.gather(*(self._deliverer.deliver(subscription, event) for _, event in new))
            done = [each for each in told if each is not None]
            changed = _copy(subscription)
            if new and note(changed, done, new[-1][0]):
                await self._keep(changed)
            return
        for revision, event in new:
            changed = _copy(subscription)
            result = await self._deliverer.deliver(changed, event)
            note(changed, [] if result is None else [result], revision)
            waits = list(changed.status.waiting) != list(subscription.status.waiting)
            if result is not None or waits:
                subscription = await self._keep(changed) or changed

    async def _keep(self, subscription: Any) -> Any | None:
        """Store a subscription's status; None if it is gone."""
        failpoints.hit("event.before_position")
        try:
            stored = await self._resources.update_status(subscription)
        except NotFound:
            return None
        except Conflict as error:
            if is_over(error):
                raise
            return None
        self._put(stored)
        return stored

    async def _save(self) -> None:
        """Keep the place, at most once a second."""
        if time.monotonic() - self._saved_at < SAVE_S or self._position == self._saved:
            return
        if self._place is None:
            wanted = kinds()["Hook"].new(SYSTEM_NAMESPACE, PLACE)
            wanted.spec.points.append("after_create")
            wanted.spec.kinds.extend(KINDS)
            with contextlib.suppress(AlreadyExists):
                await self._resources.create(wanted)
            self._place = await self._resources.get("Hook", SYSTEM_NAMESPACE, PLACE)
        self._place.status.position = self._position
        try:
            self._place = await self._resources.update_status(self._place)
        except NotFound:
            self._place = None
        self._saved, self._saved_at = self._position, time.monotonic()

    async def _catch_up(self) -> None:
        """Look at what there is: changes were forgotten before they were taken.

        What was taken before the place was kept last is left out, and each subscription leaves out what it has taken.
        """
        newest = await self._resources.revision()
        if any(self._subscriptions.values()):
            log.warning("changes were missed: events are looked for among those that are kept")
            since_us = 0
            if self._place is not None:
                since_us = int(self._place.metadata.labels.get(UPDATED_LABEL, "0")) - OVERLAP_US
            for change in await self._missed(since_us):
                await self._until_done([change])
        self._position = newest

    async def _missed(self, since_us: int) -> list[Change]:
        """Return what there is as changes, in the order in which it was stored last."""
        found = []
        made, ended = "metadata.creation_timestamp", "end_time"
        for kind, field, means in (
            ("PipelineRun", ended, ChangeType.MODIFIED),
            ("Model", made, ChangeType.ADDED),
            ("Event", made, ChangeType.ADDED),
        ):
            query = Query(where=Criterion(field, Operator.GREATER_THAN, (since_us,)))
            for item in (await self._resources.list(kind, query)).items:
                whole = await self._resources.find(key_of(item)) if kind == "PipelineRun" else item
                if whole is not None:
                    found.append(Change(_revision(whole), means, key_of(item), whole))
        return sorted(found, key=lambda change: change.revision)


def _revision(resource: Any) -> int:
    return int(resource.metadata.resourceVersion or 0)


def _copy(subscription: Any) -> Any:
    """Return one to note something in: what could not be stored must not be noted twice."""
    made = type(subscription)()
    made.CopyFrom(subscription)
    return made
