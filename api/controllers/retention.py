"""Retention: removes what a project's `retention_config` keeps no longer.  Never what serves, nor what is referred to.

Models of the configured age go with their revisions, the runs that ended and the revisions of pipelines that were made
as long ago; deployments that have served nothing for their time; inference servers that have been decommissioned for
theirs.  See `docs/retention.md`.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from api.admission import references
from api.calls import Call, Principal
from api.controllers.leadership import DEPOSED
from api.controllers.platform import Platform
from api.errors import Conflict, Expired, FailedPrecondition, NotFound
from api.gen.michelangelo.api.v2 import deployment_pb2, inference_server_pb2, revision_pb2
from api.gen.michelangelo.api.v2 import pipeline_run_pb2 as runs
from api.store.base import Criterion, Key, Operator, Preconditions, Query
from api.store.values import UPDATED_LABEL, key_of

DRY_RUN = "michelangelo.airflow/retention-dry-run"
PLAN = "michelangelo.airflow/retention-plan"
# Who removes, in the audit log.
KEEPER = Principal("system:retention", kind="service")
GOOD_ONES_KEPT = 3
LOOK_S = 6 * 3600.0
# What is left of a long plan is removed at a look of its own.
MOST_AT_ONCE = 500
MORE_S = 5.0
LISTED = 20
PAGE = 200
# `late-12`, of a line of models without a family
NUMBERED = re.compile(r"-\d+\Z")

log = logging.getLogger(__name__)


class Retention:
    """Looks at one project after another, each some times a day."""

    def __init__(self, platform: Platform) -> None:
        self._platform = platform
        self._resources = platform.resources.of(Call(principal=KEEPER))
        self._next: dict[Key, tuple[int, datetime]] = {}

    def forget(self, key: Key) -> None:
        """A project is gone."""
        self._next.pop(key, None)

    async def look(self, project: Any) -> float | None:
        """Remove what is due in a project, or only list it.  Returns the seconds until the next look."""
        key, now = key_of(project), self._platform.now()
        if not project.spec.HasField("retention_config"):
            self.forget(key)
            return None
        generation, at = self._next.get(key, (0, now))
        if generation == project.metadata.generation and now < at:
            return (at - now).total_seconds()
        due = await self._due(project, now)
        dry = project.metadata.annotations.get(DRY_RUN) == "true"
        if not dry:
            for resource in due:
                await self.remove(resource)
        await self._list(project, due if dry else ())
        wait_s = MORE_S if len(due) >= MOST_AT_ONCE and not dry else LOOK_S
        self._next[key] = project.metadata.generation, now + timedelta(seconds=wait_s)
        return wait_s

    async def _due(self, project: Any, now: datetime) -> Sequence[Any]:
        config, name = project.spec.retention_config, project.metadata.name
        found: list[Any] = []
        if days := config.model_retention.retention_in_days:
            before = now - timedelta(days=days)
            found += await self._models(name, before) + await self._runs(name, before)
            found += await self._revisions(name, before)
        for days, offline in (
            (config.online_deployment_retention.retention_in_days, False),
            (config.offline_deployment_retention.retention_in_days, True),
        ):
            if days:
                found += await self._deployments(name, now - timedelta(days=days), offline)
        if days := config.endpoint_retention.retention_in_days:
            found += await self._servers(name, now - timedelta(days=days))
        return (await self.unreferenced(name, found))[:MOST_AT_ONCE]

    async def _models(self, project: str, before: datetime) -> list[Any]:
        """Return the models that were made before, but for the last good ones of each line."""
        lines: dict[str, list[Any]] = {}
        async for model in self.all("Model", Query(namespace=project)):
            lines.setdefault(line_of(model), []).append(model)
        due = []
        for models in lines.values():
            good = 0
            for model in sorted(models, key=_made, reverse=True):
                if good < GOOD_ONES_KEPT:
                    good += await self._is_good(model)
                elif _made(model) < _us(before):
                    due.append(model)
        return due

    async def _revisions(self, project: str, before: datetime) -> list[Any]:
        """Return the revisions of pipelines that were made before, but for the current and last good ones of each."""
        pipelines = Criterion("base_type", Operator.EQUAL, ("Pipeline",))
        current = {
            pipeline.status.latest_revision.name async for pipeline in self.all("Pipeline", Query(namespace=project))
        }
        of: dict[str, list[Any]] = {}
        async for revision in self.all("Revision", Query(namespace=project, where=pipelines)):
            of.setdefault(revision.spec.base_resource.name, []).append(revision)
        due = []
        for revisions in of.values():
            good = 0
            newest_first = sorted(revisions, key=lambda each: -each.metadata.creationTimestamp.ToNanoseconds())
            for revision in newest_first:
                if good < GOOD_ONES_KEPT:
                    good += revision.status.state == revision_pb2.REVISION_STATE_READY
                elif _made(revision) < _us(before) and revision.metadata.name not in current:
                    due.append(revision)
        return due

    async def _is_good(self, model: Any) -> bool:
        revision = await self._resources.find(Key("Revision", model.metadata.namespace, model.metadata.name))
        ready = revision is not None and revision.status.state == revision_pb2.REVISION_STATE_READY
        return ready and bool(model.spec.deployable_artifact_uri)

    async def _runs(self, project: str, before: datetime) -> list[Any]:
        """Return runs that ended before."""
        ended = Criterion("end_time", Operator.LESS_THAN, (_us(before),))
        query = Query(namespace=project, where=ended, order=(("end_time", False),), limit=2 * MOST_AT_ONCE)
        found = (await self._resources.list("PipelineRun", query)).items
        return [run for run in found if run.status.state != runs.PIPELINE_RUN_STATE_INVALID]

    async def _deployments(self, project: str, before: datetime, offline: bool) -> list[Any]:
        empty = Criterion("state", Operator.EQUAL, (deployment_pb2.DEPLOYMENT_STATE_EMPTY,))
        return [
            found
            async for found in self.all("Deployment", Query(namespace=project, where=empty))
            if (found.spec.definition.type == deployment_pb2.TARGET_TYPE_OFFLINE) == offline
            and not found.status.HasField("current_revision")
            and _written(found) < _us(before)
        ]

    async def _servers(self, project: str, before: datetime) -> list[Any]:
        gone = Criterion("state", Operator.EQUAL, (inference_server_pb2.INFERENCE_SERVER_STATE_DELETED,))
        query = Query(namespace=project, where=gone)
        return [found async for found in self.all("InferenceServer", query) if _written(found) < _us(before)]

    async def unreferenced(self, project: str, found: Sequence[Any]) -> Sequence[Any]:
        """Return those that nothing refers to which stays."""
        candidates = {key_of(resource): resource for resource in found}
        if not candidates:
            return ()
        waiting = [target async for target in self._roots(project, set(candidates))]
        while waiting:
            key = waiting.pop()
            for kept in (key, Key("Model", key.namespace, key.name)) if key.kind == "Revision" else (key,):
                if (resource := candidates.pop(kept, None)) is not None:
                    waiting += _targets(resource)
        return [each for each in candidates.values() if not await self._is_source(each, set(candidates))]

    async def _roots(self, project: str, candidates: set[Key]) -> AsyncIterator[Key]:
        """Yield what is referred to by objects that are no candidates."""
        models = Criterion("base_type", Operator.EQUAL, ("Model",))
        queries = {
            "Deployment": Query(),
            "Model": Query(namespace=project),
            "Revision": Query(namespace=project, where=models),
            "EvaluationReport": Query(namespace=project),
            "CachedOutput": Query(namespace=project),
            "TriggerRun": Query(namespace=project),
        }
        for kind, query in queries.items():
            async for resource in self.all(kind, query):
                owner = Key("Model", resource.metadata.namespace, resource.metadata.name)
                if key_of(resource) not in candidates and not (kind == "Revision" and owner in candidates):
                    for target in _targets(resource):
                        yield target

    async def _is_source(self, resource: Any, candidates: set[Key]) -> bool:
        """Whether another run, which stays, goes on from this one."""
        if resource.DESCRIPTOR.name != "PipelineRun":
            return False
        resumed = Criterion("resume_pipeline_run.name", Operator.EQUAL, (resource.metadata.name,))
        found = (await self._resources.list("PipelineRun", Query(where=resumed, limit=PAGE))).items
        return any(key_of(run) not in candidates for run in found)

    async def all(self, kind: str, query: Query) -> AsyncIterator[Any]:
        """Yield the objects of a list, a page at a time unless they change meanwhile."""
        found: list[Any] = []
        try:
            while True:
                page = await self._resources.list(kind, replace(query, limit=PAGE))
                found += page.items
                if not page.next:
                    break
                query = replace(query, start=page.next)
        except Expired:
            found = list((await self._resources.list(kind, replace(query, start=""))).items)
        for resource in found:
            yield resource

    async def remove(self, resource: Any) -> None:
        """Remove an object, unless it is used by now."""
        key = key_of(resource)
        log.info("%s is kept no longer", key)
        try:
            same = Preconditions(uid=resource.metadata.uid)
            await self._resources.delete(key.kind, key.namespace, key.name, preconditions=same, spare_used=True)
        except FailedPrecondition:
            log.info("%s is kept: something uses it by now", key)
        except NotFound:
            return
        except Conflict as error:
            if error.reason == DEPOSED:
                raise

    async def _list(self, project: Any, due: Sequence[Any]) -> None:
        """Say in the project's annotations what would go, if it changed."""
        names: dict[str, list[str]] = {}
        for resource in due:
            names.setdefault(resource.DESCRIPTOR.name, []).append(resource.metadata.name)
        plan = {kind: {"count": len(of), "first": sorted(of)[:LISTED]} for kind, of in sorted(names.items())}
        text = json.dumps(plan, sort_keys=True) if plan else ""
        if project.metadata.annotations.get(PLAN, "") == text:
            return
        if text:
            project.metadata.annotations[PLAN] = text
        else:
            del project.metadata.annotations[PLAN]
        await self._platform.resources.update(project)


def line_of(model: Any) -> str:
    """Return what a model is the next version of: its family, or the name it shares with the ones before it."""
    return model.spec.model_family.name or NUMBERED.sub("", model.metadata.name)


def _targets(resource: Any) -> list[Key]:
    found = [key for _, key in references(resource)]
    if resource.DESCRIPTOR.name == "Deployment":
        here, status = resource.metadata.namespace, resource.status
        found += [
            Key("Revision", one.namespace or here, one.name)
            for one in (status.current_revision, status.candidate_revision)
        ]
    return found


def _made(resource: Any) -> int:
    return int(resource.metadata.creationTimestamp.seconds * 1_000_000)


def _written(resource: Any) -> int:
    return int(resource.metadata.labels.get(UPDATED_LABEL, "0"))


def _us(time: datetime) -> int:
    return int(time.timestamp() * 1_000_000)
