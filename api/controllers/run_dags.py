"""DAGs that live for runs alone: of a revision that a run names, or of the pipeline that it brings along.

Such a DAG is written when a run needs it and taken away when its last run has ended, and no trigger starts more.
Airflow then shows it no more, and keeps its runs with their logs; a run of it that goes on again brings it back.
"""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from datetime import datetime
from typing import Any

from api.controllers.platform import Platform
from api.controllers.run_report import TERMINAL
from api.errors import ApiError, Unavailable
from api.gen.michelangelo.api.v2 import trigger_run_pb2
from api.kinds import kinds
from api.pipeline_dags import dag_of, has_own_dag, hidden_manifest, pipeline_manifest, revision_dag, revision_tag
from api.revisions import content_of, is_of
from api.store.base import Criterion, Key, Operator, Query
from api.store.values import key_of
from api.workflows import parse

VISIBLE_WAIT_S = 10.0
SWEEP_S = 15.0
# Runs often come one after another: each would have Airflow read the project's file twice.
IDLE_S = 60.0
# What a trigger notes that names no revision: the one that was current when it began.
CURRENT = "michelangelo.airflow/revision"
ENDED = (
    trigger_run_pb2.TRIGGER_RUN_STATE_KILLED,
    trigger_run_pb2.TRIGGER_RUN_STATE_FAILED,
    trigger_run_pb2.TRIGGER_RUN_STATE_SUCCEEDED,
)

log = logging.getLogger(__name__)


class Unusable(Exception):
    """What a run names cannot be run.  `reason`: in CamelCase, as conditions have it."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message


def inline(run: Any) -> Any | None:
    """Return the pipeline that a run brings along, None if it does not."""
    if not run.spec.HasField("pipeline_spec"):
        return None
    project, _, name = dag_of(run).partition(".")
    made = kinds()["Pipeline"].new(project, name)
    made.spec.CopyFrom(run.spec.pipeline_spec)
    return made


class RunDags:
    """The DAGs of this kind, of one term."""

    def __init__(self, platform: Platform) -> None:
        self._platform = platform
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._idle_since: dict[str, datetime] = {}
        self._standing: set[str] = set()

    async def pinned(self, run: Any) -> Any:
        """Return the pipeline as it is in the revision that a run names.  Raises Unusable."""
        name = run.spec.revision.name
        key = Key("Revision", run.spec.revision.namespace or run.metadata.namespace, name)
        revision = await self._platform.resources.find(key)
        if revision is None:
            raise Unusable("RevisionGone", f"its revision {name} was deleted")
        pipeline = content_of(revision)
        if pipeline is None or not is_of(revision, run.spec.pipeline):
            raise Unusable("RevisionError", f"{name} is no revision of its pipeline")
        pipeline.status.latest_revision.namespace, pipeline.status.latest_revision.name = key.namespace, name
        return pipeline

    async def ensure(self, run: Any, pipeline: Any) -> None:
        """See that Airflow shows the DAG of a run, built from `pipeline`.  Raises Unusable, Unavailable."""
        workflow, faults = parse(pipeline.spec)
        if faults:
            raise Unusable("RevisionError", "; ".join(f"{fault.field} {fault.description}" for fault in faults))
        dag, project = dag_of(run), pipeline.metadata.namespace
        root = str(await self._platform.project_root(project))
        revision = pipeline.status.latest_revision.name
        manifest = hidden_manifest(pipeline_manifest(pipeline, workflow, root_dir=root, revision=revision), dag)
        tag = revision_tag(pipeline)
        async with self._locks[dag]:
            self._idle_since.pop(dag, None)
            self._platform.manifests.write_project(project)
            changed = self._platform.manifests.write_pipeline(manifest)
            self._standing.add(dag)
            shown = not changed and await self._platform.has_tag(dag, tag)
            if not shown and not await self._platform.shown(project, dag, tag, timeout_s=VISIBLE_WAIT_S):
                raise Unavailable(f"Airflow does not show DAG {dag} yet: is its DAG processor running?")
        if reason := await self._platform.broken(dag):
            raise Unusable("RevisionError", reason)

    async def stands(self, run: Any) -> None:
        """See that the DAG of a run that goes on stands, as one that had ended and was cleared.  Raises Unavailable."""
        if not has_own_dag(run) or dag_of(run) in self._standing:
            return
        try:
            await self.ensure(run, inline(run) or await self.pinned(run))
        except Unusable as error:
            log.info("run %s goes on without its DAG: %s", run.metadata.name, error.message)
            self._standing.add(dag_of(run))

    async def run(self) -> None:
        """Take away what is not needed any more, for ever."""
        while True:
            await asyncio.sleep(SWEEP_S)
            try:
                await self.sweep()
            except ApiError as error:
                log.info("DAGs without runs stay for now: %s", error.message)

    async def sweep(self, idle_s: float = IDLE_S) -> None:
        """Take away the DAGs that have had no run that goes on for `idle_s`.  Raises ApiError."""
        hidden = self._platform.manifests.hidden()
        if not hidden:
            return
        active, now = await self.active(), self._platform.now()
        changed: set[str] = set()
        try:
            for project, name in hidden:
                dag = f"{project}.{name}"
                if dag in active:
                    self._idle_since.pop(dag, None)
                elif (now - self._idle_since.setdefault(dag, now)).total_seconds() >= idle_s:
                    async with self._locks[dag]:
                        if dag in self._idle_since and dag not in await self.active() and self._remove(project, name):
                            changed.add(project)
        finally:
            # Once for all of a project's: each waits for a parse to end.
            for project in changed:
                await self._platform.reparse(project)

    def _remove(self, project: str, name: str) -> bool:
        """Take a DAG's manifest away; False if there was none."""
        dag = f"{project}.{name}"
        log.info("DAG %s is taken away: its runs have ended", dag)
        self._standing.discard(dag)
        self._idle_since.pop(dag, None)
        return self._platform.manifests.remove_hidden(project, name)

    async def active(self) -> set[str]:
        """Return the DAGs of the runs that go on, and of the revisions that triggers start."""
        resources = self._platform.resources
        going = Criterion("state", Operator.NOT_IN, tuple(sorted(TERMINAL)))
        found = set()
        for light in (await resources.list("PipelineRun", Query(where=going))).items:
            # The DAG of what a run brings along is named by its content, which a list may leave out.
            run = await resources.find(key_of(light)) if light.spec.HasField("pipeline_spec") else light
            if run is not None:
                found.add(dag_of(run))
        alive = Criterion("state", Operator.NOT_IN, ENDED)
        for trigger in (await resources.list("TriggerRun", Query(where=alive))).items:
            revision = trigger.spec.revision.name or trigger.metadata.annotations.get(CURRENT, "")
            if revision and not trigger.spec.auto_flip:
                project = trigger.spec.pipeline.namespace or trigger.metadata.namespace
                found.add(revision_dag(project, trigger.spec.pipeline.name, revision))
        return found
