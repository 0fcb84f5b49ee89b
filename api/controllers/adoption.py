"""Runs that began outside the API: every run of a pipeline's DAG has a PipelineRun, whoever started it.

Reports from Airflow's listener are hints; what was missed is found by the periodic look at recent runs.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from api.airflow import DagRun
from api.controllers.pipeline_run import ACTIVE, ADOPTED, PipelineRunController
from api.controllers.pipeline_run import run_id as run_id_of
from api.controllers.platform import Platform
from api.errors import AlreadyExists, ApiError, FailedPrecondition, InvalidArgument, NotFound
from api.kinds import kinds
from api.run_names import adopted_name
from api.store.base import Key
from api.workflows import HIDDEN_PARAM

RESYNC_S = 30.0
OVERLAP = timedelta(seconds=90)
OWN_PREFIX = "ma__"

log = logging.getLogger(__name__)


class Adopter:
    """Makes PipelineRuns for foreign runs and wakes the controller for known ones."""

    def __init__(self, platform: Platform, runs: PipelineRunController) -> None:
        self._platform = platform
        self._runs = runs
        self._busy: set[tuple[str, str]] = set()

    async def seen(self, dag_id: str, run_id: str, ended: bool = False) -> None:
        """A run of some DAG changed: look at its PipelineRun, or make one."""
        known = self._runs.key_of_run(dag_id, run_id)
        if known is not None:
            self._runs.changed(known, ended=ended)
        elif (dag_id, run_id) not in self._busy:
            self._busy.add((dag_id, run_id))
            try:
                with contextlib.suppress(NotFound):
                    await self._place(await self._platform.airflow.run(dag_id, run_id))
            finally:
                self._busy.discard((dag_id, run_id))

    async def resync(self) -> None:
        """Look at what ran lately, for ever."""
        since = self._platform.now() - timedelta(days=1)
        while True:
            began = self._platform.now()
            try:
                for run in await self._platform.airflow.recent_runs(since):
                    await self._look(run)
                since = began - OVERLAP
            except ApiError as error:
                log.info("resync waits: %s", error.message)
            except Exception:
                log.exception("resync failed")
            await asyncio.sleep(RESYNC_S)

    async def _look(self, run: DagRun) -> None:
        try:
            known = self._runs.key_of_run(run.dag_id, run.run_id)
            if known is not None:
                self._runs.changed(known)
            else:
                await self._place(run)
        except (InvalidArgument, FailedPrecondition, NotFound) as error:
            # It would be refused again: the runs after it are not to wait for it.
            log.warning("run %s of %s is not adopted: %s", run.run_id, run.dag_id, error.message)
        except ApiError:
            raise
        except Exception:
            log.exception("run %s of %s cannot be looked at", run.run_id, run.dag_id)

    async def _place(self, found: DagRun) -> None:
        """Look at the PipelineRun of a run that is not followed: it ended, or nobody knows of it yet."""
        project, _, pipeline = found.dag_id.partition(".")
        if not pipeline or await self._platform.resources.find(Key("Pipeline", project, pipeline)) is None:
            return
        if found.run_id.startswith(OWN_PREFIX):
            await self._place_own(found)
            return
        key = Key("PipelineRun", project, adopted_name(found.dag_id, found.run_id, found.due))
        if await self._platform.resources.find(key) is None:
            with contextlib.suppress(AlreadyExists):
                await self._platform.resources.create(self._resource(project, pipeline, found))
        self._runs.changed(key)

    async def _place_own(self, found: DagRun) -> None:
        """A run that a PipelineRun began: look at that again, or stop the run if it is gone.

        A leader that was frozen, or a slow network, may bring Airflow a request after its PipelineRun was deleted.
        """
        owner = found.conf.get(HIDDEN_PARAM)
        owner = owner if isinstance(owner, dict) else {}
        key = Key("PipelineRun", str(owner.get("namespace")), str(owner.get("pipeline_run")))
        run = await self._platform.resources.find(key)
        if run is not None and run_id_of(run) == found.run_id:
            self._runs.changed(key)
        elif found.run_id.startswith(f"{OWN_PREFIX}{owner.get('owner_uid')}__") and found.state in ACTIVE:
            log.warning("run %s of %s is stopped: its PipelineRun is gone", found.run_id, found.dag_id)
            await self._platform.airflow.fail_run(found.dag_id, found.run_id)

    def _resource(self, project: str, pipeline: str, found: DagRun) -> Any:
        name = adopted_name(found.dag_id, found.run_id, found.due)
        run = kinds()["PipelineRun"].new(project, name)
        run.metadata.annotations[ADOPTED] = found.run_id
        run.spec.pipeline.namespace, run.spec.pipeline.name = project, pipeline
        run.spec.actor.name = found.triggered_by or "airflow"
        run.spec.description = "started in Airflow"
        given = {key: value for key, value in _conf(found).items() if key != HIDDEN_PARAM}
        if given:
            run.spec.input.update({"kw_args": given})
        return run


def _conf(found: DagRun) -> Mapping[str, Any]:
    return found.conf if isinstance(found.conf, dict) else {}
