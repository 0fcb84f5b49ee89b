"""From Airflow's task instances to the steps of a PipelineRun.  Pure; what a task pushed is fetched by the caller."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any
from urllib.parse import quote

from api.airflow import Task
from api.gen.michelangelo.api.v2 import pipeline_run_pb2 as wire

STEP_STATES = {
    "success": wire.PIPELINE_RUN_STEP_STATE_SUCCEEDED,
    "failed": wire.PIPELINE_RUN_STEP_STATE_FAILED,
    "upstream_failed": wire.PIPELINE_RUN_STEP_STATE_SKIPPED,
    "skipped": wire.PIPELINE_RUN_STEP_STATE_SKIPPED,
    "removed": wire.PIPELINE_RUN_STEP_STATE_SKIPPED,
    "running": wire.PIPELINE_RUN_STEP_STATE_RUNNING,
    "deferred": wire.PIPELINE_RUN_STEP_STATE_RUNNING,
    "awaiting_input": wire.PIPELINE_RUN_STEP_STATE_RUNNING,
    "up_for_retry": wire.PIPELINE_RUN_STEP_STATE_RUNNING,
    "up_for_reschedule": wire.PIPELINE_RUN_STEP_STATE_RUNNING,
    "restarting": wire.PIPELINE_RUN_STEP_STATE_RUNNING,
}
ENDED = {"success", "failed", "upstream_failed", "skipped", "removed"}


def set_time(target: Any, value: datetime) -> None:
    """Set a Timestamp field from an aware time."""
    target.FromDatetime(value)


def log_url(airflow_url: str, dag_id: str, run_id: str, task: Task) -> str:
    """Return the page of a task's log in Airflow's UI."""
    mapped = f"/mapped/{task.map_index}" if task.map_index >= 0 else ""
    return (
        f"{airflow_url}/dags/{quote(dag_id, safe='')}/runs/{quote(run_id, safe='')}"
        f"/tasks/{quote(task.task_id, safe='')}{mapped}?try_number={max(task.try_number, 1)}"
    )


def run_url(airflow_url: str, dag_id: str, run_id: str) -> str:
    """Return the page of a run in Airflow's UI."""
    return f"{airflow_url}/dags/{quote(dag_id, safe='')}/runs/{quote(run_id, safe='')}"


def step_of(task: Task, url: str) -> wire.PipelineRunStepInfo:
    """Return the step of one task instance, without what it pushed."""
    step = wire.PipelineRunStepInfo(
        name=task.task_id if task.map_index < 0 else f"{task.task_id}[{task.map_index}]",
        display_name=task.display_name,
        state=STEP_STATES.get(task.state or "", wire.PIPELINE_RUN_STEP_STATE_PENDING),
        log_url=url,
        attempt_ids=[str(number) for number in range(1, task.try_number + 1)],
        activity_id=task.task_id,
    )
    if task.start is not None:
        set_time(step.start_time, task.start)
    if task.end is not None and task.state in ENDED:
        set_time(step.end_time, task.end)
    return step


def in_order(tasks: Sequence[Task]) -> list[Task]:
    """Return tasks in the order in which they started, those that did not at the end."""
    return sorted(tasks, key=lambda task: (task.start is None, task.start.timestamp() if task.start else 0.0))


def grouped(steps: Sequence[tuple[Task, wire.PipelineRunStepInfo]]) -> list[wire.PipelineRunStepInfo]:
    """Return the steps with the instances of a mapped task below one step."""
    found: dict[str, wire.PipelineRunStepInfo] = {}
    for task, step in steps:
        if task.map_index < 0:
            found[task.task_id] = step
            continue
        parent = found.setdefault(task.task_id, wire.PipelineRunStepInfo(name=task.task_id, display_name=task.task_id))
        parent.sub_steps.append(step)
        parent.state = _worst([child.state for child in parent.sub_steps])
    return list(found.values())


def settle(steps: Iterable[wire.PipelineRunStepInfo], state: Any) -> None:
    """End the steps of a run that ended in `state`: what still ran shares its end, what had not begun is skipped.

    Airflow calls the tasks of a killed run failed; one that gave no verdict was killed with it.
    """
    killed = state == wire.PIPELINE_RUN_STATE_KILLED
    for step in steps:
        settle(step.sub_steps, state)
        if step.state == wire.PIPELINE_RUN_STEP_STATE_RUNNING:
            step.state = wire.PIPELINE_RUN_STEP_STATE_KILLED if killed else wire.PIPELINE_RUN_STEP_STATE_FAILED
        elif step.state == wire.PIPELINE_RUN_STEP_STATE_PENDING:
            step.state = wire.PIPELINE_RUN_STEP_STATE_SKIPPED
        elif killed and step.state == wire.PIPELINE_RUN_STEP_STATE_FAILED and not step.message:
            step.state = wire.PIPELINE_RUN_STEP_STATE_KILLED


def first_failed(steps: Iterable[wire.PipelineRunStepInfo]) -> wire.PipelineRunStepInfo | None:
    """Return the first failed step, of a mapped task the instance that failed; None if there is none."""
    for step in steps:
        if step.state == wire.PIPELINE_RUN_STEP_STATE_FAILED:
            return first_failed(step.sub_steps) or step
    return None


def _worst(states: Sequence[Any]) -> Any:
    for state in (
        wire.PIPELINE_RUN_STEP_STATE_FAILED,
        wire.PIPELINE_RUN_STEP_STATE_RUNNING,
        wire.PIPELINE_RUN_STEP_STATE_PENDING,
        wire.PIPELINE_RUN_STEP_STATE_SUCCEEDED,
    ):
        if state in states:
            return state
    return states[0]
