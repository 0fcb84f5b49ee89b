"""Writes a notice for each event that somebody wants to hear of: once, from the store's log of changes.  Sends nothing.

How far it has read is the status of a `Hook` object, as of the hooks of others: another leader, or this process after
a restart, goes on from there.  A change that is read twice makes the same notice, by its name.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from api.admission import SYSTEM_NAMESPACE
from api.errors import AlreadyExists, ApiError, Conflict, Expired, FailedPrecondition, InvalidArgument, NotFound
from api.gen.michelangelo.platform.v1 import notice_pb2 as wire
from api.kinds import Resource, kinds
from api.notifications.events import KINDS, Event, event_now, event_of
from api.notifications.receivers import Receiver, receivers
from api.notifications.texts import describe
from api.resources import Resources
from api.store.base import Change, Criterion, Group, Key, Operator, Query
from api.store.values import UPDATED_LABEL

NAME = "michelangelo.notifications"
# Of the ids of messages: short, so that a header with one is a single line.
DOMAIN = "notice.michelangelo"
TRIGGERED_BY = "pipelinerun.michelangelo/triggered-by"
SAVE_S = 1.0
IDLE_SAVE_S = 60.0
FIRST_PAUSE_S = 0.2
LONGEST_PAUSE_S = 30.0
# Of a name, before what makes it unique.
LONGEST_STEM = 200
DIGEST_LENGTH = 12
# Clocks of two leaders may differ so much.
CLOCKS_US = 60_000_000

log = logging.getLogger(__name__)


class Herald:
    """Follows the changes while this process leads.  `links`: what stands for the first part of a link."""

    def __init__(self, resources: Resources, links: Mapping[str, str]) -> None:
        self._resources = resources
        self._links = links

    async def run(self) -> None:
        """Write notices for ever."""
        pause_s = FIRST_PAUSE_S
        while True:
            try:
                state = await self._state()
                pause_s = FIRST_PAUSE_S
                try:
                    await self._follow(state)
                except Expired:
                    await self._again(state)
            except ApiError as error:
                if isinstance(error, Conflict) and error.reason == "DEPOSED":
                    raise
                log.warning("notifications wait: %s", error.message)
                await asyncio.sleep(pause_s)
                pause_s = min(2 * pause_s, LONGEST_PAUSE_S)

    async def _state(self) -> Any:
        """Return where it stands.  A platform that never told anybody begins at the newest change."""
        found = await self._resources.find(Key("Hook", SYSTEM_NAMESPACE, NAME))
        if found is not None and found.status.position:
            return found
        if found is None:
            wanted = kinds()["Hook"].new(SYSTEM_NAMESPACE, NAME)
            wanted.spec.points.append("after_update")
            wanted.spec.kinds.extend(KINDS)
            found = await self._resources.create(wanted)
        found.status.position = await self._resources.revision()
        return await self._resources.update_status(found)

    async def _follow(self, state: Any) -> None:
        changes: Any = self._resources.watch(KINDS, state.status.position)
        async with self._saving(state) as told, contextlib.aclosing(changes):
            async for change in changes:
                if (event := event_of(change.previous, change.resource)) is not None:
                    await self._told(event, change)
                    told.set()
                state.status.position = change.revision

    async def _told(self, event: Event, change: Change) -> None:
        try:
            await self.tell(event, change.resource, change.revision)
        except ApiError:
            raise
        except Exception:
            # One that cannot be told must not keep all others from being told.
            log.exception("nobody is told of %s", change.key)

    @contextlib.asynccontextmanager
    async def _saving(self, state: Any) -> AsyncIterator[asyncio.Event]:
        """Write down how far it has read: a second after an event, else once a minute, and at the end.

        Yields what to set after an event.
        """
        saved, told = state.status.position, asyncio.Event()

        async def save() -> None:
            nonlocal saved
            if state.status.position != saved:
                saved = state.status.position
                await self._resources.update_status(state)

        async def often() -> None:
            while True:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(IDLE_SAVE_S):
                        await told.wait()
                await asyncio.sleep(SAVE_S)
                told.clear()
                with contextlib.suppress(ApiError):
                    await save()

        saver = asyncio.get_running_loop().create_task(often())
        try:
            yield told
        finally:
            saver.cancel()
            with contextlib.suppress(ApiError):
                await save()

    async def _again(self, state: Any) -> None:
        """Look at where objects stand that were written since: their changes are no longer kept.

        What happened to one of them twice meanwhile is told once.
        """
        since = int(state.metadata.labels.get(UPDATED_LABEL, "0")) - CLOCKS_US
        log.warning("changes were missed: looking at what was written since")
        newest = await self._resources.revision()
        written = Criterion("metadata.update_timestamp", Operator.GREATER_THAN_OR_EQUAL_TO, (since,))
        for kind in KINDS:
            for item in (await self._resources.list(kind, Query(where=written))).items:
                event = event_now(item)
                if event is not None and await self._newest(item, event) is None:
                    await self.tell(event, item, int(item.metadata.resourceVersion))
        state.status.position = newest
        await self._resources.update_status(state)

    async def tell(self, event: Event, resource: Resource, revision: int) -> None:
        """Write the notice of an event that came with the change `revision`, if anybody wants to hear of it."""
        found: Any = resource
        wanted = receivers(await self._sources(found), event)
        if not wanted:
            return
        if await self._was_told(event, found, revision):
            return
        notice = self._notice(event, found, revision, wanted)
        try:
            stored = await self._stored(notice)
        except (FailedPrecondition, InvalidArgument, NotFound) as error:
            # Its project is going, or the text cannot be stored: nothing changes by trying again.
            log.warning("nobody is told of %s: %s", notice.metadata.name, error.message)
            return
        if stored.status.state:
            return
        # Only the platform writes a status: a notice of anybody else has none, and is never sent.
        stored.status.state = wire.NOTICE_STATE_SENDING
        for number, _ in enumerate(wanted):
            stored.status.deliveries.add(
                state=wire.DELIVERY_STATE_WAITING, message_id=f"{stored.metadata.uid}.{number}@{DOMAIN}"
            )
        await self._resources.update_status(stored)

    async def _was_told(self, event: Event, found: Any, revision: int) -> bool:
        """Whether this change was seen to, or a pipeline only came back to where it stood when people were told."""
        told = await self._newest(found, event)
        if told is not None and told.spec.subject.revision >= revision:
            return bool(told.status.state)
        if told is None or event.kind != "Pipeline" or told.spec.subject.build_id != found.status.build_id:
            return False
        last = await self._newest(found)
        return last is not None and last.spec.event == event.type

    async def _stored(self, notice: Any) -> Any:
        """Return the notice as it is stored, now or by an earlier try; nobody else's."""
        while True:
            try:
                return await self._resources.create(notice)
            except AlreadyExists:
                metadata = notice.metadata
                found = await self._resources.find(Key("Notice", metadata.namespace, metadata.name))
                if found is not None and (found.status.state or found.spec == notice.spec):
                    return found
                if found is not None:
                    with contextlib.suppress(NotFound):
                        await self._resources.delete("Notice", metadata.namespace, metadata.name)

    async def _newest(self, found: Any, event: Event | None = None) -> Any | None:
        """Return the last notice about an object, of any event or of one."""
        same = [Criterion("subject_uid", Operator.EQUAL, (found.metadata.uid,))]
        if event is not None:
            same.append(Criterion("event", Operator.EQUAL, (event.type,)))
        query = Query(namespace=found.metadata.namespace, where=Group(tuple(same)))
        notices = (await self._resources.list("Notice", query)).items
        return max(notices, key=lambda notice: notice.spec.subject.revision, default=None)

    async def _sources(self, found: Any) -> Sequence[Sequence[Any]]:
        """Return the notifications that hold for an object: its own, its trigger's, its pipeline's."""
        kind, here = found.DESCRIPTOR.name, found.metadata.namespace
        sources: list[Sequence[Any]] = [found.spec.notifications]
        if kind == "Pipeline":
            return sources
        if kind == "PipelineRun":
            trigger = found.metadata.labels.get(TRIGGERED_BY, "")
            if trigger and (started := await self._resources.find(Key("TriggerRun", here, trigger))) is not None:
                sources.append(started.spec.notifications)
            if found.spec.HasField("pipeline_spec"):
                sources.append(found.spec.pipeline_spec.notifications)
        if found.spec.pipeline.name:
            key = Key("Pipeline", found.spec.pipeline.namespace or here, found.spec.pipeline.name)
            if (pipeline := await self._resources.find(key)) is not None:
                sources.append(pipeline.spec.notifications)
        return sources

    def _notice(self, event: Event, found: Any, revision: int, wanted: Sequence[Receiver]) -> Any:
        metadata = found.metadata
        digest = hashlib.sha256(f"{metadata.uid}/{event.type}/{revision}".encode()).hexdigest()[:DIGEST_LENGTH]
        stem = f"{event.kind}-{metadata.name}".lower()[:LONGEST_STEM].rstrip("-.")
        notice: Any = kinds()["Notice"].new(metadata.namespace, f"{stem}-{digest}")
        spec = notice.spec
        spec.event = event.type
        subject = spec.subject
        subject.kind, subject.name, subject.uid = event.kind, metadata.name, metadata.uid
        subject.generation, subject.revision = metadata.generation, revision
        subject.build_id = found.status.build_id if event.kind == "Pipeline" else ""
        at = _time(found)
        spec.time.FromDatetime(at)
        describe(spec, event, found, at, self._links)
        for receiver in wanted:
            spec.receivers.add(type=receiver.type, address=receiver.address)
        return notice


def _time(found: Any) -> datetime:
    """Return when an object entered its state, the same however often one asks."""
    status = found.status
    if found.DESCRIPTOR.name == "PipelineRun" and status.HasField("end_time"):
        return datetime.fromtimestamp(status.end_time.seconds, UTC)
    return datetime.fromtimestamp(int(found.metadata.labels.get(UPDATED_LABEL, "0")) // 1_000_000, UTC)
