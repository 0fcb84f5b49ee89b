"""Project: gives every project its DAG file in Airflow.  The DAGs themselves come from pipelines and triggers."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

from api.controllers.platform import Platform
from api.errors import NotFound
from api.gen.michelangelo.api.v2 import project_pb2
from api.kinds import kinds
from api.store.base import Key, Query

FINALIZER = "michelangelo.airflow/project-files"
EMPTYING_LOOK_S = 0.3


class ProjectController:
    """PROVISIONING -> READY once the file stands; on deletion all that lives in it goes, then the file."""

    kind = "Project"

    def __init__(self, platform: Platform) -> None:
        self._platform = platform

    async def related(self, key: Key) -> Sequence[Key]:
        """Nothing else changes a project."""
        return ()

    async def reconcile(self, key: Key) -> float | None:
        """Write the file, or remove it."""
        resources, manifests = self._platform.resources, self._platform.manifests
        project = await resources.find(key)
        if project is None:
            return None
        if project.metadata.HasField("deletionTimestamp"):
            if await self._empty(key.name) > 0:
                return EMPTYING_LOOK_S
            manifests.remove_project(key.name)
            await resources.set_finalizer(project, FINALIZER, present=False)
            return None
        project = await resources.set_finalizer(project, FINALIZER, present=True)
        manifests.write_project(key.name)
        status = project.status
        if status.state != project_pb2.PROJECT_STATE_READY:
            status.state = project_pb2.PROJECT_STATE_READY
            status.phase = status.phase or project_pb2.PROJECT_PHASE_DEVELOPMENT
            status.last_update_time.GetCurrentTime()
            await resources.update_status(project)
        return None

    async def _empty(self, project: str) -> int:
        """Delete what lives in the project and return how much of it still waits for its finalizers."""
        resources, left = self._platform.resources, 0
        for kind in kinds():
            if kind == self.kind:
                continue
            for item in (await resources.list(kind, Query(namespace=project))).items:
                left += 1
                if not item.metadata.HasField("deletionTimestamp"):
                    with contextlib.suppress(NotFound):
                        await resources.delete(kind, project, item.metadata.name)
        return left
