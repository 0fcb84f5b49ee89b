"""Runs that began outside the API: every run of a pipeline's DAG has a PipelineRun, whoever started it.

Reports from Airflow's listener are hints; what was missed is found by the periodic look at recent runs.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

from api.airflow import DagRun
from api.controllers.attempts import in_airflow
from api.controllers.pipeline_run import ACTIVE, ADOPTED, PipelineRunController
from api.controllers.pipeline_run import run_id as run_id_of
from api.controllers.platform import Platform
from api.controllers.run_report import STATES, TERMINAL, has_ended
from api.errors import AlreadyExists, ApiError, FailedPrecondition, InvalidArgument, NotFound
from api.kinds import kinds
from api.run_names import adopted_name
from api.store.base import Key
from api.workflows import HIDDEN_PARAM

RESYNC_S = 10.0
AT_ONCE = 50
OVERLAP = timedelta(seconds=90)
OWN_PREFIX = "ma__"

log = logging.getLogger(__name__)


class Adopter:
    """Makes PipelineRuns for foreign runs and wakes the controller for known ones."""

    def __init__(self, platform: Platform, runs: PipelineRunController) -> None:
        self._platform = platform
        self._runs = runs
        self._busy: set[tuple[str, str]] = set()
        # What the last look found, by DAG and run.
        self._found: dict[tuple[str, str], DagRun] = {}

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
                await self._look_at(await self._platform.airflow.recent_runs(since))
                since = began - OVERLAP
            except ApiError as error:
                log.info("resync waits: %s", error.message)
            except Exception:
                log.exception("resync failed")
            await asyncio.sleep(RESYNC_S)

    async def _look_at(self, recent: Sequence[DagRun]) -> None:
        """Look at those that are other than at the last look.  Raises ApiError."""
        new = [run for run in recent if self._found.get((run.dag_id, run.run_id)) != run]
        for start in range(0, len(new), AT_ONCE):
            await asyncio.gather(*(self._look(run) for run in new[start : start + AT_ONCE]))
        self._found = {(run.dag_id, run.run_id): run for run in recent}

    async def _look(self, run: DagRun) -> None:
        try:
            known = self._runs.key_of_run(run.dag_id, run.run_id)
            if known is None:
                await self._place(run)
            elif not agrees(await self._platform.resources.find(known), run):
                self._runs.changed(known)
        except (InvalidArgument, FailedPrecondition, NotFound) as error:
            # It would be refused again: the runs after it are not to wait for it.
            log.warning("run %s of %s is not adopted: %s", run.run_id, run.dag_id, error.message)
        except ApiError:
            raise
        except Exception:
            log.exception("run %s of %s cannot be looked at", run.run_id, run.dag_id)

    async def _place(self, found: DagRun) -> None:
        """Look at the PipelineRun of a run that is not followed: it ended, or nobody knows of it yet."""
        if found.run_id.startswith(OWN_PREFIX):
            await self._place_own(found)
            return
        plain = await self._runs.plain.pipeline_of(found.dag_id)
        project, pipeline = plain or (found.dag_id.partition(".")[0], found.dag_id.partition(".")[2])
        if not pipeline or await self._platform.resources.find(Key("Pipeline", project, pipeline)) is None:
            return
        key = Key("PipelineRun", project, adopted_name(found.dag_id, found.run_id, found.due))
        run = await self._platform.resources.find(key)
        if run is None:
            with contextlib.suppress(AlreadyExists):
                await self._platform.resources.create(self._resource(project, pipeline, found))
        if not agrees(run, found):
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
            if not agrees(run, found):
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


def agrees(run: Any | None, found: DagRun) -> bool:
    """Whether a PipelineRun says of its DAG run what Airflow says, as far as it does not go on."""
    if run is None or run.status.workflow_run_id != found.run_id:
        return False
    state = STATES.get(found.state)
    if state in TERMINAL:
        return has_ended(run) and in_airflow(run.status.state) == state
    return bool(run.status.state == state)


def _conf(found: DagRun) -> Mapping[str, Any]:
    return found.conf if isinstance(found.conf, dict) else {}
