"""The book of the fake Airflow: DAGs, runs, task instances, and how its REST API tells of them.  Changes nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import jsonschema
from starlette.requests import Request

PAGE = 100
ACTIVE_TASKS = {"running", "deferred", "up_for_reschedule", "awaiting_input"}
ENDED_TASKS = {"success", "failed", "skipped", "upstream_failed", "removed"}


@dataclass
class FakeTask:
    """One task instance.  `xcoms`: what it pushed, by key; `tries`: those before the present one.

    log: records of its last try; events: what Airflow notes of it beside its state.
    """

    task_id: str
    map_index: int = -1
    try_number: int = 0
    state: str | None = None
    start: datetime | None = None
    end: datetime | None = None
    xcoms: dict[str, Any] = field(default_factory=dict)
    pool: str = "default_pool"
    scheduled: datetime | None = None
    tries: list[FakeTask] = field(default_factory=list)
    log: list[dict[str, Any]] = field(default_factory=list)
    events: list[dict[str, Any]] = field(default_factory=list)


@dataclass
class FakeRun:
    """One run."""

    dag_id: str
    run_id: str
    conf: dict[str, Any]
    state: str = "queued"
    start: datetime | None = None
    end: datetime | None = None
    due: datetime = field(default_factory=lambda: datetime.now(UTC))
    updated: datetime = field(default_factory=lambda: datetime.now(UTC))
    tasks: dict[tuple[str, int], FakeTask] = field(default_factory=dict)


@dataclass
class FakeDag:
    """One parsed DAG.  `schemas`: JSON Schema by parameter; `tasks`: ids in order.

    follows: which tasks come right after each; None: each comes after the one before.
    version, parsed: which state of it this is, and when its file was read; unreadable: whether that failed.
    """

    dag_id: str
    file: str
    tags: tuple[str, ...] = ()
    schemas: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    tasks: tuple[str, ...] = ("first", "second")
    is_paused: bool = False
    is_stale: bool = False
    description: str | None = None
    max_active_runs: int = 16
    follows: Mapping[str, tuple[str, ...]] | None = None
    owners: tuple[str, ...] = ()
    version: int = 1
    parsed: datetime = field(default_factory=lambda: datetime.now(UTC))
    unreadable: bool = False

    def after(self, task: str) -> tuple[str, ...]:
        """Return the tasks that come right after one."""
        if self.follows is not None:
            return self.follows.get(task, ())
        place = self.tasks.index(task) + 1 if task in self.tasks else len(self.tasks)
        return self.tasks[place : place + 1]


def busy(run: FakeRun) -> bool:
    return any(task.state in ACTIVE_TASKS for task in run.tasks.values())


def conf_faults(dag: FakeDag, conf: Mapping[str, Any]) -> str:
    for name, value in conf.items():
        try:
            jsonschema.validate(value, dag.schemas.get(name, {}))
        except jsonschema.ValidationError as error:
            return f"Invalid input for param {name}: {error.message}"
    return ""


def page(request: Request, key: str, found: list[Any]) -> dict[str, Any]:
    offset, limit = int(request.query_params.get("offset", "0")), int(request.query_params.get("limit", "50"))
    return {key: found[offset : offset + min(limit, PAGE)], "total_entries": len(found)}


def stamp(time: datetime | None) -> str | None:
    return time.isoformat().replace("+00:00", "Z") if time else None


def run_json(run: FakeRun) -> dict[str, Any]:
    return {
        "dag_id": run.dag_id,
        "dag_run_id": run.run_id,
        "logical_date": None,
        "run_after": stamp(run.due),
        "start_date": stamp(run.start),
        "end_date": stamp(run.end),
        "run_type": "manual",
        "state": run.state,
        "triggered_by": "rest_api",
        "triggering_user_name": "Anonymous",
        "conf": run.conf,
    }


def task_json(task: FakeTask) -> dict[str, Any]:
    return {
        "task_id": task.task_id,
        "task_display_name": task.task_id,
        "map_index": task.map_index,
        "try_number": task.try_number,
        "state": task.state,
        "start_date": stamp(task.start),
        "end_date": stamp(task.end),
        "operator_name": "TrainOperator",
        "pool": task.pool,
        "priority_weight": 1,
        "scheduled_when": stamp(task.scheduled),
        "queued_when": None,
    }
