"""PipelineRun: exactly one DAG run an attempt, and a status that says what Airflow says.

The DAG run's id is computed from the run's uid and attempt, so that whoever tries again finds what an earlier try began
(`guarantees.md` G7).  Airflow is the book of runs: this controller only reads it, creates in it and cancels in it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from api import failpoints
from api.airflow import DagRun
from api.controllers import pending
from api.controllers.attempts import begin_again, begin_anew, dag_run_of, in_airflow
from api.controllers.conditions import set_condition
from api.controllers.edits import ended_steps, in_somebodys_name, is_marked_failed, marked_steps, say_changed
from api.controllers.plain_dags import PlainDags
from api.controllers.platform import Platform
from api.controllers.resumes import CannotResume, Resumes
from api.controllers.retries import Retries, is_due, is_wished
from api.controllers.run_dags import RunDags, Unusable, inline
from api.controllers.run_report import STATES, SYSTEM, TERMINAL, USER, RunReport, end, has_ended
from api.errors import AlreadyExists, InvalidArgument, NotFound, Unavailable
from api.gen.michelangelo.api.v2 import pipeline_pb2
from api.gen.michelangelo.api.v2 import pipeline_run_pb2 as wire
from api.kinds import Resource
from api.lost_runs import attempts_of
from api.pipeline_dags import OF_REVISION, dag_of, dag_of_pipeline, has_own_dag
from api.store.base import Change, Criterion, Group, Key, Operator
from api.store.values import DELETING
from api.store.values import PENDING as UNSEEN
from api.workflows import HIDDEN_PARAM, is_built, plain, spec_hash

__all__ = ["ADOPTED", "TERMINAL", "PipelineRunController", "run_id"]

FINALIZER = "michelangelo.airflow/dag-run"
ADOPTED = "michelangelo.airflow/adopted-run"
COLLISION = "DAG run {} belongs to another"
NOT_READY = "EngineNotReady"
LOST = "the DAG run was deleted in Airflow"
ACTIVE_RESYNC_S = 10.0
# The tasks of a run report one by one; those that do within this time are looked at together.  An end never waits.
BETWEEN_LOOKS_S = 0.25
# All active runs together are looked at so often: what changed is reported, or found by one look at all recent runs.
RESYNCS_PER_S = 20.0
# The listener speaks before the scheduler commits: a run that is said to have ended may look active for a moment.
ENDING_LOOKS_S = (0.1, 0.3, 1.0)
ACTIVE = ("queued", "running")
# How often one is stopped while the scheduler writes over that.
STOPS = 3
# Airflow takes no longer one.
LONGEST_NOTE = 1000


def run_id(run: Any) -> str:
    """Return the id of a run's DAG run: the adopted one's, or one computed from uid and how many Airflow lost."""
    return run.metadata.annotations.get(ADOPTED) or f"ma__{run.metadata.uid}__{dag_run_of(run)}"


class PipelineRunController:
    """PENDING -> RUNNING -> SUCCEEDED | FAILED | KILLED | SKIPPED; never back, unless it is another attempt."""

    kind = "PipelineRun"

    def __init__(self, platform: Platform) -> None:
        self._platform = platform
        self._report = RunReport(platform)
        self._retries = Retries(platform)
        self._resumes = Resumes(platform)
        self.dags = RunDags(platform)
        self.plain = PlainDags(platform)
        # Of the runs that have not ended; those that have are found by what their DAG run says.
        self._keys: dict[tuple[str, str], Key] = {}
        self._changed: set[Key] = set()
        self._ending: dict[Key, int] = {}
        # When those that go on were looked at, seconds of the loop's clock, and whose next look is planned.
        self._looked: dict[Key, float] = {}
        self._planned: set[Key] = set()

    @property
    def unsettled(self) -> Group:
        """Those that did not end, those to be removed, and those whose spec changed and nobody looked."""
        ended = Criterion("state", Operator.NOT_IN, tuple(sorted(TERMINAL)))
        others = (Criterion(column, Operator.IS_NOT_NULL) for column in (DELETING, UNSEEN))
        return Group((ended, *others), any=True)

    def settled(self, resource: Resource) -> bool:
        """Whether it ended, and is neither to be removed nor to be begun again."""
        return has_ended(resource) and not is_wished(resource) and not resource.metadata.HasField("deletionTimestamp")

    def waits(self, resource: Resource) -> bool:
        """Whether its DAG run was begun, and nothing is asked of it but to go on."""
        run: Any = resource
        asked = run.spec.kill or is_wished(run) or run.metadata.HasField("deletionTimestamp")
        return bool(run.status.workflow_run_id) and not asked

    async def related(self, change: Change) -> Sequence[Key]:
        """A pipeline that becomes ready lets its waiting runs begin."""
        if change.key.kind != "Pipeline":
            return ()
        name = dag_of_pipeline(change.resource)
        return [known for (dag, _), known in self._keys.items() if dag == name or dag.startswith(name + OF_REVISION)]

    def key_of_run(self, dag_id: str, dag_run_id: str) -> Key | None:
        """Return the PipelineRun of a DAG run, None if it is not known (yet)."""
        return self._keys.get((dag_id, dag_run_id))

    def changed(self, key: Key, *, ended: bool = False) -> None:
        """Airflow says that the run's DAG run changed: look at it, even if it has ended."""
        self._changed.add(key)
        if ended:
            self._ending[key] = 0
        loop = asyncio.get_running_loop()
        wait_s = self._looked.get(key, float("-inf")) + BETWEEN_LOOKS_S - loop.time()
        if ended or wait_s <= 0:
            self._platform.wake(key)
        elif key not in self._planned:
            self._planned.add(key)
            loop.call_later(wait_s, self._look, key)

    def _look(self, key: Key) -> None:
        self._planned.discard(key)
        self._platform.wake(key)

    async def reconcile(self, key: Key) -> float | None:
        """Bring Airflow in line with the spec and the status in line with Airflow."""
        run = await self._platform.resources.find(key)
        if run is None:
            return None
        name = dag_of(run), run_id(run)
        self._keys[name] = key
        if run.metadata.HasField("deletionTimestamp"):
            await self._cancel_and_forget(run)
            self._keys.pop(name, None)
            self._looked.pop(key, None)
            return None
        changed = key in self._changed
        self._changed.discard(key)
        self._looked[key] = asyncio.get_running_loop().time()
        again_s = None
        if changed or is_wished(run) or not has_ended(run):
            run = await self._platform.resources.set_finalizer(run, FINALIZER, present=True)
            again_s = await self._follow(key, run, changed)
        if has_ended(run):
            self._keys.pop(name, None)
            self._looked.pop(key, None)
        return again_s

    async def _follow(self, key: Key, run: Any, changed: bool) -> float | None:
        try:
            if is_wished(run):
                run.CopyFrom(await self._retries.accept(run))
            external = has_ended(run) and await self._began_again(run)
            if has_ended(run):
                return None
            return await self._advance(run, external)
        except Unavailable as error:
            if changed:
                self._changed.add(key)
            reason = NOT_READY if error.reason == NOT_READY else "DependencyUnavailable"
            if not has_ended(run):
                set_condition(run, "Triggered", None, reason, error.message)
                pending.waits(run, reason, error.message)
                await self._platform.resources.update_status(run)
            raise

    async def _advance(self, run: Any, external: bool) -> float | None:
        """Look at a run that has not ended.  `external`: somebody changed it in Airflow."""
        name = dag_of(run)
        run.status.state = run.status.state or wire.PIPELINE_RUN_STATE_PENDING
        observed = await self._observe(name, run)
        if observed is None and run.status.workflow_run_id:
            await self._lose(name, run)
            external = True
        elif observed is None and ADOPTED in run.metadata.annotations:
            self._fail(run, "EngineRunLost", "Airflow has no such DAG run", SYSTEM)
        elif observed is None and run.spec.kill:
            end(run, wire.PIPELINE_RUN_STATE_KILLED, "Killed", "killed before it began", self._platform.now())
        elif observed is None:
            observed = await self._begin(name, run)
        elif not _is_ours(run, observed):
            self._fail(run, "RunIdCollision", COLLISION.format(observed.run_id), SYSTEM)
            observed = None
        if observed is not None:
            if observed.state in ACTIVE:
                await self.dags.stands(run)
            if is_due(run):
                await self.dags.stands(run)
                observed = await self._retries.tell_airflow(run, observed)
            if run.spec.kill and observed.state in ACTIVE:
                observed = await self._stop(observed)
            ended = ended_steps(run)
            await self._report.describe(run, observed)
            if marked := marked_steps(ended, run):
                say_changed(run, f"{', '.join(marked)} in Airflow")
                external = True
            elif not external and is_marked_failed(run):
                say_changed(run, "the run was marked failed in Airflow")
                external = True
        failpoints.hit("status.before_write")
        resources = self._platform.resources
        # What a person did outside of the API is in the audit log all the same.
        await (resources.of(in_somebodys_name()) if external else resources).update_status(run)
        return self._again_s(run)

    async def _stop(self, observed: DagRun) -> DagRun:
        """Mark a DAG run failed, once more where the scheduler wrote its end over that: SQLite locks no row for it."""
        for _ in range(STOPS):
            await self._platform.airflow.fail_run(observed.dag_id, observed.run_id)
            observed = await self._platform.airflow.run(observed.dag_id, observed.run_id)
            if observed.state != "success":
                break
        return observed

    async def _lose(self, name: str, run: Any) -> None:
        """End a run that Airflow lost, or let its next attempt begin if that is its policy."""
        say_changed(run, LOST)
        here = run.metadata.namespace
        project = await self._platform.resources.find(Key("Project", here, here))
        shown = run.status.source_pipeline.pipeline
        most = attempts_of(run, shown, *([] if project is None else [project]))
        if run.spec.kill:
            end(run, wire.PIPELINE_RUN_STATE_KILLED, "Killed", LOST, self._platform.now())
        elif ADOPTED in run.metadata.annotations or dag_run_of(run) >= most:
            told = f"{LOST}, {dag_run_of(run)} of {most} times" if most > 1 else LOST
            self._fail(run, "EngineRunLost", told, SYSTEM)
        else:
            self._keys.pop((name, run_id(run)), None)
            begin_anew(run, "EngineRunLost", f"{LOST}; it is begun at most {most} times")
            self._platform.wake(Key("PipelineRun", here, run.metadata.name))

    def _again_s(self, run: Any) -> float | None:
        """Return when to look again at a run: soon, a few times, if it is said to have ended and looks active."""
        key = Key("PipelineRun", run.metadata.namespace, run.metadata.name)
        look = self._ending.pop(key, len(ENDING_LOOKS_S))
        if run.status.state in TERMINAL:
            return None
        if look == len(ENDING_LOOKS_S):
            return max(ACTIVE_RESYNC_S, len(self._keys) / RESYNCS_PER_S)
        self._ending[key] = look + 1
        return ENDING_LOOKS_S[look]

    async def _began_again(self, run: Any) -> bool:
        """Whether Airflow says otherwise about a run that had ended: it was cleared or marked there.

        A run that was killed before it began, and was begun all the same by a leader of yesterday, is stopped.
        """
        name = dag_of(run)
        observed = await self._observe(name, run)
        if observed is None:
            return False
        if not run.status.workflow_run_id:
            if _is_ours(run, observed) and observed.state in ACTIVE:
                await self._platform.airflow.fail_run(name, run_id(run))
            return False
        if run.spec.kill and run.status.state == wire.PIPELINE_RUN_STATE_KILLED and observed.state == "success":
            # Nobody's wish: a task ended while the run was stopped, and the scheduler made its end of that.
            observed = await self._stop(observed)
        if STATES.get(observed.state) == in_airflow(run.status.state):
            return False
        text = f"it is {observed.state} in Airflow after it had ended"
        begin_again(run, "ExternallyChanged", text)
        say_changed(run, text)
        return True

    async def _observe(self, name: str, run: Any) -> DagRun | None:
        try:
            return await self._platform.airflow.run(name, run_id(run))
        except NotFound:
            return None

    async def _begin(self, name: str, run: Any) -> DagRun | None:
        """Create the DAG run, or adopt the one of the same id if it is ours."""
        pipeline = inline(run) or await self._platform.resources.find(_pipeline_key(run))
        if pipeline is None:
            self._fail(run, "PipelineGone", "its pipeline was deleted", USER)
            return None
        try:
            pipeline = await self._source(run, pipeline)
        except Unusable as error:
            self._fail(run, error.reason, error.message, USER)
            return None
        if pipeline is None:
            set_condition(run, "SourcePipeline", None, "Building", "waits for its pipeline")
            pending.waits(run, pending.NOT_BUILT, f"waits until pipeline {run.spec.pipeline.name} is ready")
            return None
        source = run.status.source_pipeline
        snapshot = source.draft_pipeline if run.spec.draft.name else source.pipeline
        snapshot.CopyFrom(pipeline)
        snapshot.ClearField("status")
        snapshot.status.latest_revision.CopyFrom(pipeline.status.latest_revision)
        set_condition(run, "SourcePipeline", True, "Resolved")
        try:
            conf = await self._resumes.conf(name, run, self._conf(run, pipeline))
        except CannotResume as error:
            self._fail(run, error.reason, error.message, USER)
            return None
        # Told before it is asked for: whoever watches sees the run wait, whatever becomes of the request.
        await self._platform.resources.update_status(run)
        try:
            failpoints.hit("trigger.before_post")
            begun = await self._platform.airflow.trigger(name, run_id(run), conf, note_of(run))
            failpoints.hit("trigger.after_post")
            return begun
        except AlreadyExists:
            return await self._adopt(name, run, conf)
        except InvalidArgument as error:
            self._fail(run, "Refused", error.message, USER)
        except NotFound as error:
            raise Unavailable(f"Airflow does not know DAG {name} yet", reason=NOT_READY) from error
        return None

    async def _source(self, run: Any, pipeline: Any) -> Any | None:
        """Return what a run runs: the pipeline as it is, or as it was; None while it is not ready.  Raises Unusable."""
        if has_own_dag(run):
            pipeline = pipeline if run.spec.HasField("pipeline_spec") else await self.dags.pinned(run)
            await self.dags.ensure(run, pipeline)
            return pipeline
        if pipeline.status.state == pipeline_pb2.PIPELINE_STATE_ERROR and is_built(pipeline):
            raise Unusable("PipelineError", pipeline.status.error_message)
        if dag_of_pipeline(pipeline) != dag_of(run):
            raise Unusable("PipelineChanged", f"its pipeline is DAG {dag_of_pipeline(pipeline)} now: start it anew")
        ready = pipeline.status.state == pipeline_pb2.PIPELINE_STATE_READY and is_built(pipeline)
        return pipeline if ready else None

    def _conf(self, run: Any, pipeline: Any) -> dict[str, Any]:
        given = plain(run.spec.input.fields["kw_args"].struct_value) if "kw_args" in run.spec.input.fields else {}
        owner = {
            "owner_uid": run.metadata.uid,
            "namespace": run.metadata.namespace,
            "pipeline_run": run.metadata.name,
            "spec_hash": spec_hash(run.spec.input),
            "revision": pipeline.status.latest_revision.name,
        }
        return {**given, HIDDEN_PARAM: owner}

    async def _adopt(self, name: str, run: Any, conf: Mapping[str, Any]) -> DagRun | None:
        """An earlier try's POST arrived although its answer was lost; a foreign run of our id is refused for good."""
        found = await self._platform.airflow.run(name, run_id(run))
        owner = _owner(found)
        wanted = conf[HIDDEN_PARAM]
        if owner.get("owner_uid") == wanted["owner_uid"] and owner.get("spec_hash") == wanted["spec_hash"]:
            return found
        self._fail(run, "RunIdCollision", COLLISION.format(found.run_id), SYSTEM)
        return None

    def _fail(self, run: Any, reason: str, message: str, blame: Any) -> None:
        end(run, wire.PIPELINE_RUN_STATE_FAILED, reason, message, self._platform.now(), blame)

    async def _cancel_and_forget(self, run: Any) -> None:
        name = dag_of(run)
        adopted = ADOPTED in run.metadata.annotations
        observed = None if has_ended(run) and not adopted else await self._observe(name, run)
        if observed is not None and observed.state in ACTIVE and _is_ours(run, observed):
            await self._platform.airflow.fail_run(name, run_id(run))
        if observed is not None and adopted:
            # Airflow's record of it would make the PipelineRun again.
            await self._platform.airflow.delete_run(name, run_id(run))
        failpoints.hit("finalizer.before_removal")
        await self._platform.resources.set_finalizer(run, FINALIZER, present=False)


def _pipeline_key(run: Any) -> Key:
    return Key("Pipeline", run.spec.pipeline.namespace or run.metadata.namespace, run.spec.pipeline.name)


def _owner(observed: DagRun) -> Mapping[str, Any]:
    owner = observed.conf.get(HIDDEN_PARAM)
    return owner if isinstance(owner, dict) else {}


def _is_ours(run: Any, observed: DagRun) -> bool:
    """Whether a DAG run was begun for this very PipelineRun, or is the one that it stands for."""
    return ADOPTED in run.metadata.annotations or _owner(observed).get("owner_uid") == run.metadata.uid


def note_of(run: Any) -> str:
    """Return what Airflow's page of a run's DAG run says beside its id: whose it is, and the run's description."""
    name, described = f"PipelineRun {run.metadata.namespace}/{run.metadata.name}", run.spec.description
    return (f"{name}: {described}" if described else name)[:LONGEST_NOTE]
