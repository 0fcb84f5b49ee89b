"""Why a run or a step that Airflow has does not go on yet, and its place in the queue.  Reads Airflow; never fails.

What many runs ask is asked of Airflow once in two seconds.  Who has waited for less than a second is not explained.
What a job of a cluster waits for lies where the job's engine tells it, in the artifact store.
"""

from __future__ import annotations

import asyncio
import functools
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

from api import evidence as left
from api.airflow import DagRun, Task
from api.artifact_urls import below
from api.code_store import files_at
from api.controllers import pending
from api.controllers.platform import Platform
from api.controllers.steps import ENDED, flat, step_name
from api.errors import NotFound, Unavailable
from api.gen.michelangelo.api.v2 import pipeline_run_pb2 as wire
from api.run_names import job_name

EXPLAINED_S = 1.0
# Airflow itself lets nobody wait so long who could begin.
BUSY_S = 10.0
FRESH_S = 2.0
# Which task follows which changes with the DAG.
ORDER_FRESH_S = 60.0
MOST_KEPT = 1000
MOST_EXPLAINED = 50
MOST_NAMED = 3
LONGEST_REASON, LONGEST_MESSAGE = 64, 500
WAITING_TASKS = ("scheduled", "queued")
Told = tuple[str, str]
"""Reason and message, both empty for who does not wait, or not for long."""
NOTHING: Told = ("", "")


class Waiting:
    """Explains."""

    def __init__(self, platform: Platform) -> None:
        self._airflow = platform.airflow
        self._now = platform.now
        config = platform.config
        # Only jobs of a cluster wait after Airflow has begun them.
        self._jobs = files_at(below(config.artifacts_url, "jobs")) if config.kubernetes.on else None
        self._kept: dict[tuple[str, ...], tuple[datetime, Any]] = {}

    async def tell(self, run: Any, observed: DagRun, tasks: Sequence[Task]) -> bool:
        """Set the condition and the messages of steps of a run.  Returns whether it waits to begin."""
        told = NOTHING
        try:
            if observed.state == "queued":
                told = await self._in_line(observed)
            else:
                outside = await self._in_cluster(observed, tasks)
                explained = await self._explained(run, observed, tasks, outside)
                told = NOTHING if _has_begun(observed, [task for task in tasks if task not in outside]) else explained
        except (Unavailable, NotFound):
            return False
        if told[0]:
            pending.waits(run, *told)
        elif observed.state != "queued":
            pending.waits_no_more(run)
        return bool(told[0])

    async def _in_line(self, observed: DagRun) -> Told:
        """Return why a run is not begun."""
        waited_s = (self._now() - observed.due).total_seconds()
        if waited_s < EXPLAINED_S:
            return NOTHING
        name = observed.dag_id
        dag = await self._fresh(("dag", name), FRESH_S, lambda: self._airflow.dag(name))
        if dag.is_paused:
            return pending.PAUSED, f"{name} is paused in Airflow: unpause it there, or kill the run"
        active = await self._fresh(("active", name), FRESH_S, lambda: self._airflow.active_runs(name))
        running = sum(each.state == "running" for each in active)
        queued = [each.run_id for each in active if each.state == "queued"]
        if dag.max_active_runs and running >= dag.max_active_runs:
            most = dag.max_active_runs
            text = f"{name} has {'one run' if most == 1 else f'{most} runs'} at a time"
            return pending.CONCURRENCY, _place(queued, observed.run_id, "runs") + text
        return (pending.RESOURCES, "Airflow's scheduler is busy or stands still") if waited_s > BUSY_S else NOTHING

    async def _in_cluster(self, observed: DagRun, tasks: Sequence[Task]) -> Mapping[Task, Told]:
        """Return what the jobs of tasks wait for that a cluster has, but has not begun."""
        waiting = [task for task in tasks if task.state == "deferred"][:MOST_EXPLAINED] if self._jobs else ()
        found: dict[Task, Told] = {}
        for task in waiting:
            job = job_name(observed.dag_id, observed.run_id, task.task_id, task.map_index)
            ask = functools.partial(asyncio.to_thread, self._told_of, job)
            told = await self._fresh(("job", job), FRESH_S, ask)
            if told[0]:
                found[task] = told
        return found

    def _told_of(self, job: str) -> Told:
        assert self._jobs is not None
        try:
            told = json.loads(self._jobs.read(f"{job}/{left.PENDING}"))
            return str(told.get("reason", ""))[:LONGEST_REASON], str(told.get("message", ""))[:LONGEST_MESSAGE]
        except (OSError, ValueError, AttributeError):
            return NOTHING

    async def _explained(self, run: Any, observed: DagRun, tasks: Sequence[Task], outside: Mapping[Task, Told]) -> Told:
        """Set the messages of steps that wait; returns why the first of them waits for its place."""
        steps = {step.name: step for step in flat(run.status.steps)}
        found, before = NOTHING, await self._before(observed, tasks)
        for task in tasks[:MOST_EXPLAINED]:
            step = steps.get(step_name(task))
            if step is None:
                continue
            if task in outside:
                step.state = wire.PIPELINE_RUN_STEP_STATE_PENDING
                step.message = f"its job waits in the cluster, {': '.join(filter(None, outside[task]))}"
                found = found if found[0] else (outside[task][0], step.message)
            elif task.state in WAITING_TASKS:
                told = await self._for_a_place(observed, task, tasks)
                step.message = told[1]
                found = found if found[0] else told
            elif task.state is None:
                step.message = _after(before.get(task.task_id, ()), tasks)
            elif task.state == "up_for_retry":
                step.message = f"try {task.try_number} failed: the next one begins in a moment"
        return found

    async def _before(self, observed: DagRun, tasks: Sequence[Task]) -> Mapping[str, Sequence[str]]:
        """Return which tasks come right before each."""
        if all(task.state is not None for task in tasks):
            return {}
        name = observed.dag_id
        follows = await self._fresh(("order", name), ORDER_FRESH_S, lambda: self._airflow.follows(name))
        found: dict[str, list[str]] = {}
        for task, after in follows.items():
            for each in after:
                found.setdefault(each, []).append(task)
        return found

    async def _for_a_place(self, observed: DagRun, task: Task, tasks: Sequence[Task]) -> Told:
        since = task.queued if task.state == "queued" else task.scheduled
        waited_s = (self._now() - (since or observed.start or observed.due)).total_seconds()
        if waited_s < EXPLAINED_S:
            return NOTHING
        if task.state == "queued":
            return pending.RESOURCES, "waits for a worker of Airflow: all are busy"
        pool = await self._fresh(("pool", task.pool), FRESH_S, lambda: self._airflow.pool(task.pool))
        if 0 <= pool.slots <= pool.taken:
            line = await self._fresh(("line", task.pool), FRESH_S, lambda: self._airflow.waiting(task.pool))
            keys = [(key, each.task_id, each.map_index) for key, each in line]
            mine = ((observed.dag_id, observed.run_id), task.task_id, task.map_index)
            many = "its one place is" if pool.slots == 1 else f"all {pool.slots} places are"
            return pending.POOL, _place(keys, mine, "tasks") + f"{many} taken in pool {pool.name}"
        name = observed.dag_id
        dag = await self._fresh(("dag", name), FRESH_S, lambda: self._airflow.dag(name))
        going_on = sum(each.state in ("running", "queued") for each in tasks)
        if dag.max_active_tasks and going_on >= dag.max_active_tasks:
            return pending.CONCURRENCY, f"{dag.max_active_tasks} tasks of a run go on at a time"
        return (pending.RESOURCES, "Airflow's scheduler is busy or stands still") if waited_s > BUSY_S else NOTHING

    async def _fresh(self, key: tuple[str, ...], fresh_s: float, ask: Callable[[], Awaitable[Any]]) -> Any:
        """Return what was asked lately, or ask."""
        now = self._now()
        at, value = self._kept.get(key, (None, None))
        if at is None or not 0 <= (now - at).total_seconds() < fresh_s:
            value = await ask()
            if len(self._kept) >= MOST_KEPT:
                self._kept.clear()
            self._kept[key] = now, value
        return value


def _has_begun(observed: DagRun, tasks: Sequence[Task]) -> bool:
    """Whether a task of the present attempt has begun."""
    began = observed.start
    return any(task.state is not None and task.start and (began is None or task.start >= began) for task in tasks)


def _after(before: Sequence[str], tasks: Sequence[Task]) -> str:
    """Return which tasks a task comes after that have not ended."""
    done = {task.task_id for task in tasks if task.state in ENDED}
    left = [name for name in before if name not in done]
    more = f" and {len(left) - MOST_NAMED} more" if len(left) > MOST_NAMED else ""
    return f"comes after {', '.join(left[:MOST_NAMED])}{more}" if left else ""


def _place(line: Sequence[Any], mine: Any, what: str) -> str:
    if mine not in line:
        return ""
    return f"number {line.index(mine) + 1} of {len(line)} {what} that wait: "
