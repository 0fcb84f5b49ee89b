"""Runs that ended so long ago that nobody wants them kept: the label `michelangelo.airflow/ttl` says how long.

The label of the run decides, without one that of its pipeline, without that the project's.  What something refers to
stays, however old (`api.controllers.retention`).
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, timedelta
from typing import Any

from api.controllers.platform import Platform
from api.controllers.retention import MOST_AT_ONCE, Retention
from api.controllers.run_report import has_ended
from api.kinds import Resource
from api.store.base import Change, Criterion, LabelRequirement, Operator, Query
from api.ttl import TTL, ttl_of

SOONEST_LOOK_S = 5.0
LATEST_LOOK_S = 900.0
MORE_S = 1.0
LABELLED = (LabelRequirement(TTL, "exists"),)


def is_to_be_kept_for(change: Change) -> bool:
    """Whether a change says for how long runs are kept, or ends a run that says it."""
    resource: Any = change.resource
    if TTL not in resource.metadata.labels:
        return False
    return change.key.kind == "Pipeline" or (change.key.kind == "PipelineRun" and has_ended(resource))


class RunTtl:
    """Removes such runs, project by project."""

    def __init__(self, platform: Platform, retention: Retention) -> None:
        self._platform = platform
        self._retention = retention

    async def look(self, project: Any) -> float | None:
        """Remove what is due.  Returns the seconds until the next look, None if nobody says how long runs are kept."""
        name, now = project.metadata.name, self._platform.now()
        pipelines = {each.metadata.name: each async for each in self._retention.all("Pipeline", _labelled(name))}
        shared = [found for each in (project, *pipelines.values()) if (found := ttl_of(each)) is not None]
        due, left = [], list(shared)
        async for run in self._ended(name, now - min(shared) if shared else None):
            pipeline = pipelines.get(run.spec.pipeline.name)
            kept = ttl_of(*(each for each in (run, pipeline, project) if each is not None))
            if kept is None:
                continue
            left_for = run.status.end_time.ToDatetime(tzinfo=UTC) + kept - now
            if left_for <= timedelta(0):
                due.append(run)
            else:
                left.append(left_for)
        for run in (await self._retention.unreferenced(name, due))[:MOST_AT_ONCE]:
            await self._retention.remove(run)
        if len(due) > MOST_AT_ONCE:
            return MORE_S
        return min(max(min(left).total_seconds(), SOONEST_LOOK_S), LATEST_LOOK_S) if left or due else None

    async def _ended(self, project: str, before: Any) -> AsyncIterator[Resource]:
        """Yield the runs that say themselves how long they are kept, and those that ended before an instant."""
        seen: set[str] = set()
        async for run in self._retention.all("PipelineRun", _labelled(project)):
            if has_ended(run):
                seen.add(run.metadata.name)
                yield run
        if before is None:
            return
        ended = Criterion("end_time", Operator.LESS_THAN, (int(before.timestamp() * 1_000_000),))
        async for run in self._retention.all("PipelineRun", Query(namespace=project, where=ended)):
            if has_ended(run) and run.metadata.name not in seen:
                yield run


def _labelled(project: str) -> Query:
    return Query(namespace=project, labels=LABELLED)
