"""Project: gives every project its DAG file in Airflow, says how far its work has come, and keeps what it retains.

The DAGs themselves come from pipelines and triggers.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Sequence
from typing import Any

from api.controllers.platform import Platform
from api.controllers.retention import Retention
from api.controllers.run_ttl import RunTtl, is_to_be_kept_for
from api.errors import NotFound
from api.gen.michelangelo.api.v2 import project_pb2 as wire
from api.kinds import Resource, kinds
from api.store.base import Change, Criterion, Key, Operator, Query
from api.store.values import DELETING

FINALIZER = "michelangelo.airflow/project-files"
EMPTYING_LOOK_S = 0.3
ERROR_LOOK_S = 15.0
PAGE = 500

log = logging.getLogger(__name__)


class ProjectController:
    """PROVISIONING -> READY once the file stands, ERROR while it cannot; on deletion all in it goes, then the file.

    Phase: DEVELOPMENT, STAGING with a deployment, PRODUCTION while one serves, DECOMMISSION while it is deleted.
    """

    kind = "Project"
    unsettled = None

    def __init__(self, platform: Platform) -> None:
        self._platform = platform
        self._retention = Retention(platform)
        self._ttl = RunTtl(platform, self._retention)

    def settled(self, resource: Resource) -> bool:
        """Never: its file may be gone."""
        return False

    async def related(self, change: Change) -> Sequence[Key]:
        """Deployments make its phase; runs that are not kept for good are removed in its name."""
        if change.key.kind != "Deployment" and not is_to_be_kept_for(change):
            return ()
        return (Key("Project", change.key.namespace, change.key.namespace),)

    async def reconcile(self, key: Key) -> float | None:
        """Write the file, or remove it."""
        resources = self._platform.resources
        project = await resources.find(key)
        if project is None:
            self._retention.forget(key)
            return None
        if project.metadata.HasField("deletionTimestamp"):
            return await self._remove(key, project)
        project = await resources.set_finalizer(project, FINALIZER, present=True)
        if not project.status.state:
            project = await self._report(project, wire.PROJECT_STATE_PROVISIONING)
        try:
            await self._platform.project_root(key.name)
            self._platform.manifests.write_project(key.name)
        except NotFound as error:
            await self._report(project, wire.PROJECT_STATE_ERROR, error.message)
            return None
        except OSError as error:
            log.warning("the files of %s cannot be written: %s", key, error)
            await self._report(project, wire.PROJECT_STATE_ERROR, f"its files cannot be written: {error.strerror}")
            return ERROR_LOOK_S
        project = await self._report(project, wire.PROJECT_STATE_READY)
        looks = (await self._retention.look(project), await self._ttl.look(project))
        return min((each for each in looks if each is not None), default=None)

    async def _report(self, project: Any, state: Any, message: str = "") -> Any:
        """Write the status if it changed; returns the project as it is stored."""
        status, phase = project.status, await self._phase(project)
        if (status.state, status.phase, status.error_message) == (state, phase, message):
            return project
        status.state, status.phase, status.error_message = state, phase, message
        status.last_update_time.FromDatetime(self._platform.now())
        return await self._platform.resources.update_status(project)

    async def _phase(self, project: Any) -> Any:
        if project.metadata.HasField("deletionTimestamp"):
            return wire.PROJECT_PHASE_DECOMMISSION
        name = project.metadata.name
        serving = Criterion("current_revision.name", Operator.IS_NOT_NULL)
        if await self._any("Deployment", Query(namespace=name, where=serving, limit=1)):
            return wire.PROJECT_PHASE_PRODUCTION
        if await self._any("Deployment", Query(namespace=name, limit=1)):
            return wire.PROJECT_PHASE_STAGING
        return wire.PROJECT_PHASE_DEVELOPMENT

    async def _any(self, kind: str, query: Query) -> bool:
        return bool((await self._platform.resources.list(kind, query)).items)

    async def _remove(self, key: Key, project: Any) -> float | None:
        """Remove all that lives in the project; once the finalizers of all have done their work, its file too."""
        await self._report(project, project.status.state or wire.PROJECT_STATE_PROVISIONING)
        left = [kind for kind in kinds() if kind != self.kind and await self._empty(kind, key.name)]
        if left:
            return EMPTYING_LOOK_S
        self._platform.manifests.remove_project(key.name)
        await self._platform.resources.set_finalizer(project, FINALIZER, present=False)
        return None

    async def _empty(self, kind: str, project: str) -> bool:
        """Delete the objects of a kind and return whether some still wait for their finalizers."""
        resources = self._platform.resources
        standing = Query(namespace=project, where=Criterion(DELETING, Operator.IS_NULL), limit=PAGE)
        for item in (await resources.list(kind, standing)).items:
            with contextlib.suppress(NotFound):
                await resources.delete(kind, project, item.metadata.name)
        return await self._any(kind, Query(namespace=project, limit=1))
