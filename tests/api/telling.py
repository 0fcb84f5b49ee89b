"""Resources in a real store, what tells of their events, and real receivers.  States are written as controllers do."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from api.admitters import ADMITTERS
from api.config import Config
from api.controllers.leadership import Leadership
from api.controllers.notice import NoticeController
from api.controllers.platform import Platform
from api.controllers.runtime import Manager, Term
from api.gen.michelangelo.api.v2 import notification_pb2, pipeline_pb2
from api.gen.michelangelo.platform.v1 import notice_pb2
from api.kinds import kinds
from api.notifications.herald import Herald
from api.notify_settings import NotifySettings
from api.resources import Resources
from api.store.base import Query, Write
from api.store.sqlite import SqliteStore
from api.workflows import TEMPLATE_TYPE, typed
from tests.patience import TERM_S, soon

Wire = notification_pb2.Notification
AIRFLOW = "http://127.0.0.1:8080"
PUBLIC = "https://airflow.example.org/ui"


class Telling:
    """A store, a herald and a sender.  `begin` starts them, `end` stops them as a server that is told to stop."""

    def __init__(self, folder: Path, settings: NotifySettings) -> None:
        self.folder = folder
        self.settings = settings
        self.store = SqliteStore(folder / "store.db")
        self.resources = Resources(self.store, ADMITTERS)
        self._task: asyncio.Task[None] | None = None

    async def begin(self) -> None:
        """Tell from now on."""
        manager = Manager(self.resources, lambda leadership: self._term(leadership), ttl_s=TERM_S)
        self._task = asyncio.get_running_loop().create_task(manager.run())
        deadline = time.monotonic() + soon(3.0)
        while not any(hook.status.position for hook in (await self.resources.list("Hook")).items):
            assert time.monotonic() < deadline
            await asyncio.sleep(0.01)

    def _term(self, leadership: Leadership) -> Term:
        config = Config(self.folder, self.folder, notify=self.settings)
        missing: Any = None
        platform = Platform(config, leadership.resources, missing, missing, missing, lambda key: None)
        herald = Herald(leadership.resources, {AIRFLOW: PUBLIC})
        return Term([NoticeController(platform)], (herald.run,))

    async def end(self) -> None:
        """Stop."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None

    async def pipeline(self, *notifications: Any, project: str = "flights", name: str = "train") -> Any:
        """Create a pipeline, with its project if that is not there."""
        if not (await self.resources.list("Project", Query(namespace=project))).items:
            await self.resources.create(kinds()["Project"].new(project, project))
        new = kinds()["Pipeline"].new(project, name)
        new.spec.manifest.type = pipeline_pb2.PipelineManifest.PIPELINE_MANIFEST_TYPE_YAML
        new.spec.manifest.file_path = "train"
        new.spec.manifest.content.Pack(typed(TEMPLATE_TYPE, {}))
        new.spec.notifications.extend(notifications)
        return await self.resources.create(new)

    async def made(self, kind: str, name: str, *notifications: Any, project: str = "flights") -> Any:
        """Create a run or a trigger of the pipeline."""
        new = kinds()[kind].new(project, name)
        new.spec.pipeline.name = "train"
        new.spec.actor.name = "ada"
        if kind == "TriggerRun":
            new.spec.trigger.cron_schedule.cron = "0 3 * * *"
        new.spec.notifications.extend(notifications)
        return await self.resources.create(new)

    async def becomes(self, resource: Any, state: int, message: str = "", **status: Any) -> Any:
        """Write a status as a controller does."""
        found = await self.resources.get(resource.DESCRIPTOR.name, resource.metadata.namespace, resource.metadata.name)
        found.status.state = state
        found.status.error_message = message
        for field, value in status.items():
            setattr(found.status, field, value)
        if found.DESCRIPTOR.name == "PipelineRun":
            found.status.end_time.GetCurrentTime()
        return await self.resources.update_status(found)

    async def overwrite(self, resource: Any) -> None:
        """Store an object without a look at it, as an earlier release did."""
        await self.store.update(Write(resource, resource.metadata.resourceVersion))

    async def notices(self) -> list[Any]:
        """Return all notices there are."""
        return list((await self.resources.list("Notice")).items)

    async def until(self, holds: Callable[[], bool], promised_s: float = 4.0) -> None:
        """Wait until something holds."""
        deadline = time.monotonic() + soon(promised_s)
        while not holds():
            assert time.monotonic() < deadline, await self.notices()
            await asyncio.sleep(0.02)

    async def ended(self, count: int, promised_s: float = 4.0) -> list[Any]:
        """Wait until there are so many notices, and each has ended."""
        deadline = time.monotonic() + soon(promised_s)
        while True:
            found = await self.notices()
            if len(found) >= count and all(notice.status.state in ENDED for notice in found):
                assert len(found) == count, found
                return found
            assert time.monotonic() < deadline, found
            await asyncio.sleep(0.02)


ENDED = (notice_pb2.NOTICE_STATE_DELIVERED, notice_pb2.NOTICE_STATE_UNDELIVERABLE)


def mail_to(*addresses: str, events: tuple[int, ...], about: int = 0) -> Any:
    """Return a notification by mail."""
    made = Wire(notification_type=Wire.NOTIFICATION_TYPE_EMAIL, emails=addresses)
    made.event_types.extend(events)  # type: ignore[arg-type]
    made.resource_type = about  # type: ignore[assignment]
    return made


def slack_to(*names: str, events: tuple[int, ...], about: int = 0) -> Any:
    """Return a notification in Slack."""
    made = Wire(notification_type=Wire.NOTIFICATION_TYPE_SLACK, slack_destinations=names)
    made.event_types.extend(events)  # type: ignore[arg-type]
    made.resource_type = about  # type: ignore[assignment]
    return made
