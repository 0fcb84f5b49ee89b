"""What must hold of every write and at the end.  Says what does not, with the time of the simulation."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from api.controllers.attempts import attempt_of
from api.controllers.run_report import TERMINAL, has_ended
from api.errors import Conflict
from api.gen.michelangelo.api.v2 import pipeline_run_pb2 as wire
from api.kinds import Resource, kinds
from api.pipeline_dags import dag_id, revision_tag
from api.store.base import NO_TRAIL, Change, ChangeType, Key, Lease, Preconditions, Query, Store, Trail, Write
from api.store.sqlite import SqliteStore
from tests.robustness.fakes.airflow import FakeAirflow, FakeRun
from tests.simulation.virtual import WHO

ENDS: Mapping[str, set[int]] = {
    "success": {wire.PIPELINE_RUN_STATE_SUCCEEDED, wire.PIPELINE_RUN_STATE_SKIPPED},
    "failed": {wire.PIPELINE_RUN_STATE_FAILED, wire.PIPELINE_RUN_STATE_KILLED},
}
OWN = "ma__"


class CheckedStore(SqliteStore):
    """The store, which notes writes that a process made without the fence of the newest leader it has heard of.

    refused: how often a leader of yesterday was turned away.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.broken: list[str] = []
        self.refused = 0
        self._epoch = 0

    async def acquire(self, name: str, holder: str, ttl_s: float) -> Lease | None:
        lease = await super().acquire(name, holder, ttl_s)
        if lease is not None:
            self._epoch = max(self._epoch, lease.epoch)
        return lease

    async def create(self, write: Write, trail: Trail = NO_TRAIL) -> Resource:
        return await self._checked(trail, super().create(write, trail))

    async def update(self, write: Write, trail: Trail = NO_TRAIL) -> Resource:
        return await self._checked(trail, super().update(write, trail))

    async def delete(
        self, key: Key, preconditions: Preconditions, *, trail: Trail = NO_TRAIL, **options: Any
    ) -> Resource:
        return await self._checked(trail, super().delete(key, preconditions, trail=trail, **options))

    async def _checked(self, trail: Trail, work: Any) -> Resource:
        newest, who = self._epoch, WHO.get()
        try:
            done: Resource = await work
        except Conflict as error:
            self.refused += error.reason == "DEPOSED"
            raise
        if who is not None and trail.fence is None:
            self.broken.append(f"{who.name} wrote without a fence")
        elif trail.fence is not None and trail.fence.epoch < newest:
            self.broken.append(f"{who and who.name} wrote in epoch {trail.fence.epoch}, when {newest} had begun")
        return done


class Checks:
    """Follows every change in the order of commits."""

    def __init__(self, store: Store, airflow: FakeAirflow) -> None:
        self._store, self._airflow = store, airflow
        self._states: dict[str, tuple[int, Any]] = {}
        self._generations: dict[str, int] = {}
        self.broken: list[str] = []
        self.gone: set[str] = set()
        self._deleted: set[str] = set()
        self.changes = 0

    async def follow(self) -> None:
        """Look at each change, for ever."""
        async for change in self._store.watch(tuple(kinds()), 0):
            self.changes += 1
            self._look(change)

    def _look(self, change: Change) -> None:
        resource: Any = change.resource
        uid = resource.metadata.uid
        if change.key.kind == "Pipeline" and resource.metadata.HasField("deletionTimestamp"):
            self._deleted.add(change.key.name)
        if change.type is ChangeType.DELETED:
            self.gone.add(uid)
            return
        self._expect(uid not in self.gone, change, "was written after it was removed")
        self._expect(resource.metadata.generation >= self._generations.get(uid, 0), change, "has an older generation")
        self._generations[uid] = resource.metadata.generation
        conditions = getattr(resource.status, "conditions", ())
        ahead = [item.type for item in conditions if item.observed_generation > resource.metadata.generation]
        self._expect(not ahead, change, f"observed a generation that was not: {ahead}")
        if change.key.kind == "PipelineRun":
            self._look_at_run(change, resource)

    def _look_at_run(self, change: Change, run: Any) -> None:
        # The states of one attempt move forward; a later attempt begins anew, an earlier one never comes back.
        attempt, state = attempt_of(run), run.status.state
        latest, before = self._states.get(run.metadata.uid, (1, 0))
        self._expect(attempt >= latest, change, f"went back from attempt {latest} to {attempt}")
        self._expect(attempt == latest or before in TERMINAL, change, f"began attempt {attempt} before {latest} ended")
        before = before if attempt == latest else 0
        self._states[run.metadata.uid] = attempt, state
        self._expect(_rank(state) >= _rank(before), change, f"went back from {before} to {state}")
        if before in TERMINAL:
            self._expect(state == before, change, f"ended twice: {before}, then {state}")
        if state in TERMINAL and state != before and run.status.workflow_run_id:
            found = self._airflow.runs.get((run.status.workflow_id, run.status.workflow_run_id))
            # A pipeline takes its history in Airflow along when it is deleted.
            lost = found is None and state == wire.PIPELINE_RUN_STATE_FAILED and run.spec.pipeline.name in self._deleted
            right = lost or (found is not None and state in ENDS.get(found.state, ()))
            self._expect(right, change, f"is {state}, its DAG run {found.state if found else 'missing'}")

    def _expect(self, holds: bool, change: Change, told: str) -> None:
        if not holds:
            self.broken.append(f"{change.key} (revision {change.revision}) {told}")

    async def at_the_end(self) -> None:
        """All is at rest: what is stored is what Airflow's book says, and nothing is left of what was deleted."""
        found: dict[str, Any] = {}
        for kind in kinds():
            for item in (await self._store.list(kind, Query())).items:
                found[item.metadata.uid] = item
                if item.metadata.HasField("deletionTimestamp"):
                    self.broken.append(f"{kind} {item.metadata.name} is still being deleted")
        for item in found.values():
            for owner in item.metadata.ownerReferences:
                if owner.uid not in found:
                    self.broken.append(
                        f"{item.DESCRIPTOR.name} {item.metadata.name} outlived {owner.kind} {owner.name}"
                    )
            if item.DESCRIPTOR.name == "PipelineRun" and not has_ended(item):
                self.broken.append(f"PipelineRun {item.metadata.name} has not ended: {item.status}")
            if item.DESCRIPTOR.name == "Pipeline":
                name = dag_id(item.metadata.namespace, item.metadata.name)
                dag = self._airflow.dags.get(name)
                if dag is None or dag.is_stale or revision_tag(item) not in dag.tags:
                    self.broken.append(f"Pipeline {item.metadata.name} is not what its DAG {dag} was built from")
        self._one_run_an_attempt(found)

    def _one_run_an_attempt(self, found: Mapping[str, Any]) -> None:
        begun: dict[str, list[FakeRun]] = {}
        for run in self._airflow.runs.values():
            if run.run_id.startswith(OWN):
                begun.setdefault(str(run.conf["ma"]["owner_uid"]), []).append(run)
        for uid, runs in begun.items():
            if len(runs) > 1 or runs[0].run_id != f"{OWN}{uid}__1":
                self.broken.append(f"{uid} has the DAG runs {[run.run_id for run in runs]}")
            if uid not in found and runs[0].state in ("queued", "running"):
                self.broken.append(f"DAG run {runs[0].run_id} runs although its PipelineRun is gone")
        twice = [post for post in self._airflow.posts if self._airflow.posts.count(post) > 1]
        if twice:
            self.broken.append(f"begun twice: {twice}")


def _rank(state: int) -> int:
    return 3 if state in TERMINAL else state
