"""Project: gives every project its DAG file in Airflow.  The DAGs themselves come from pipelines and triggers."""

from __future__ import annotations

from collections.abc import Sequence

from api.controllers.platform import Platform
from api.errors import NotFound
from api.gen.michelangelo.api.v2 import project_pb2
from api.store.base import Key

FINALIZER = "michelangelo.airflow/project-files"


class ProjectController:
    """PROVISIONING -> READY once the file stands; on deletion the file goes."""

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
            try:
                await resources.update_status(project)
            except NotFound:
                return None
        return None
