"""What controllers act through: resources, Airflow, manifests, the serving backend.  Decides nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from api.airflow import Airflow, Dag
from api.backends.base import ServingBackend
from api.config import Config
from api.errors import ApiError, NotFound
from api.manifests import Manifests
from api.resources import Resources
from api.store.base import Key

PARSE_WAIT_S = 0.05
ASK_AGAIN_S = 2.0
PARSED_S = 10.0
NEVER = datetime.min.replace(tzinfo=UTC)
BROKEN_TAG = "broken"


def utc_now() -> datetime:
    """Return the time of day."""
    return datetime.now(UTC)


@dataclass(frozen=True)
class Platform:
    """The parts, shared by all controllers of a term.  `wake`: look at a key now; `now`: the time of day, UTC."""

    config: Config
    resources: Resources
    airflow: Airflow
    manifests: Manifests
    backend: ServingBackend
    wake: Callable[[Key], None]
    now: Callable[[], datetime] = utc_now

    async def project_root(self, project: str) -> Path:
        """Return the folder of a project's code: its root_dir below MA_PROJECTS_ROOT, never above it."""
        found = await self.resources.get("Project", project, project)
        root: Path = (self.config.projects_root / found.spec.root_dir.lstrip("/")).resolve()
        if not root.is_relative_to(self.config.projects_root.resolve()):
            raise NotFound(
                f"spec.root_dir {found.spec.root_dir[:64]!r} of Project {project!r} leaves the projects' root"
            )
        return root

    async def reparse(self, project: str) -> None:
        """Have Airflow parse a project's file with all that was written until now, within PARSED_S.

        Airflow drops a request for a file that it is parsing at that moment: it is asked again until a parse has ended
        that began after this call.  Where nothing is left to be shown, nothing tells of the end of a parse.
        """
        clock = asyncio.get_running_loop().time
        began = asked = clock()
        told = await self._ask(project)
        if not self.manifests.stand(project):
            return
        while told is not None and clock() - began < PARSED_S:
            await asyncio.sleep(PARSE_WAIT_S)
            seen = await self._newest(project)
            if seen is None or seen.parsed is None:
                return
            if seen.parsed != told.parsed:
                if clock() - began > seen.parse_s + 2 * PARSE_WAIT_S:
                    return
                asked = float("-inf")
            if clock() - asked > ASK_AGAIN_S:
                asked, told = clock(), await self._ask(project)

    async def _ask(self, project: str) -> Dag | None:
        """Ask for a project's file once; returns the DAG of it that was parsed last.

        A file that shows no DAG yet cannot be asked for; a newer time makes Airflow's next look at the folder enough.
        """
        newest = await self._newest(project)
        if newest is None:
            self.manifests.touch_project(project)
        else:
            await self.airflow.reparse(newest.file_token)
        return newest

    async def _newest(self, project: str) -> Dag | None:
        found = await self.airflow.dags(tags=[f"project:{project}"])
        return max(found, key=lambda dag: dag.parsed or NEVER, default=None)

    async def shown(self, project: str, dag_id: str, tag: str, *, timeout_s: float) -> bool:
        """Have a project's file parsed and wait until Airflow shows the DAG with `tag`.

        Airflow drops a request for a file that it is parsing at that moment: it is asked again until it shows the DAG.
        """
        clock = asyncio.get_running_loop().time
        deadline, asked = clock() + timeout_s, float("-inf")
        while True:
            if clock() - asked > ASK_AGAIN_S:
                asked = clock()
                await self._ask(project)
            await asyncio.sleep(PARSE_WAIT_S)
            if await self.has_tag(dag_id, tag):
                return True
            if clock() > deadline:
                return False

    async def has_tag(self, dag_id: str, tag: str) -> bool:
        """Whether Airflow shows the DAG with `tag` now."""
        try:
            dag = await self.airflow.dag(dag_id)
        except NotFound:
            return False
        return tag in dag.tags and not dag.is_stale

    async def broken(self, dag_id: str) -> str:
        """Return why the DAG could not be built from its manifest, empty if it was."""
        dag = await self.airflow.dag(dag_id)
        return (dag.description or "its DAG cannot be built") if BROKEN_TAG in dag.tags else ""

    async def forget_dag(self, dag_id: str) -> None:
        """Remove a DAG and its history from Airflow, if it has it."""
        try:
            await self.airflow.delete_dag(dag_id)
        except ApiError as error:
            if not isinstance(error, NotFound):
                raise
