"""From Airflow's task instances to the steps of a PipelineRun.  Pure; what a task pushed is fetched by the caller."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
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
LISTS_ITEMS = "ItemsOperator"
ENDED = {"success", "failed", "upstream_failed", "skipped", "removed"}
GOING_ON = {wire.PIPELINE_RUN_STEP_STATE_RUNNING, wire.PIPELINE_RUN_STEP_STATE_PENDING}
# Of the present try; a task in any other state waits for its next.
TRYING = ENDED | {"running", "deferred", "awaiting_input", "up_for_reschedule", "queued", "scheduled"}


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


def step_name(task: Task) -> str:
    """Return the name of a task instance's step."""
    return task.task_id if task.map_index < 0 else f"{task.task_id}[{task.map_index}]"


def step_of(task: Task, url: str) -> wire.PipelineRunStepInfo:
    """Return the step of one task instance, without what it pushed."""
    step = wire.PipelineRunStepInfo(
        name=step_name(task),
        display_name=task.display_name,
        state=STEP_STATES.get(task.state or "", wire.PIPELINE_RUN_STEP_STATE_PENDING),
        log_url=url,
        attempt_ids=[str(number) for number in range(1, task.try_number + 1)],
        activity_id=task.task_id,
    )
    if task.start is not None and task.state is not None:
        set_time(step.start_time, task.start)
    if task.end is not None and task.state in ENDED:
        set_time(step.end_time, task.end)
    return step


def in_order(tasks: Sequence[Task]) -> list[Task]:
    """Return tasks in the order in which they started, those that did not at the end.

    What lists a loop's items is no step of the pipeline, unless the run failed by it.
    """
    steps = (task for task in tasks if task.operator != LISTS_ITEMS or task.state == "failed")
    return sorted(steps, key=lambda task: (task.start is None, task.start.timestamp() if task.start else 0.0))


def nested(
    steps: Sequence[tuple[Task, wire.PipelineRunStepInfo]], *, groups: bool = True
) -> list[wire.PipelineRunStepInfo]:
    """Return the steps with the instances of a mapped task, and the tasks of a group, below one step.

    groups: whether a dot in a task's id parts it from its group's, as Airflow writes it.
    """
    found: list[wire.PipelineRunStepInfo] = []
    parents: dict[str, wire.PipelineRunStepInfo] = {}
    for task, step in steps:
        above = _path(task, groups)
        if groups and above:
            step.display_name = step.display_name.removeprefix(f"{_group(task.task_id)}.")
        siblings: Any = found
        for name in above:
            if name not in parents:
                parents[name] = siblings.add() if siblings is not found else wire.PipelineRunStepInfo()
                parents[name].name, parents[name].display_name = name, name.rpartition(".")[2] if groups else name
                if name == task.task_id:
                    parents[name].activity_id = name
                if siblings is found:
                    found.append(parents[name])
            siblings = parents[name].sub_steps
        siblings.append(step)
    for step in found:
        _sum_up(step)
    return found


def _path(task: Task, groups: bool) -> list[str]:
    """Return the names of the steps that a task's step is below, outermost first."""
    parts = task.task_id.split(".") if groups else [task.task_id]
    above = [".".join(parts[: place + 1]) for place in range(len(parts) - 1)]
    return [*above, task.task_id] if task.map_index >= 0 else above


def _group(task_id: str) -> str:
    return task_id.rpartition(".")[0]


def _sum_up(step: wire.PipelineRunStepInfo) -> None:
    """Give a step that consists of others their state, and the time from the first to the last."""
    if not step.sub_steps:
        return
    for below in step.sub_steps:
        _sum_up(below)
    states = {below.state for below in step.sub_steps}
    step.state = _worst(states)
    began = [below.start_time.ToNanoseconds() for below in step.sub_steps if below.HasField("start_time")]
    if began:
        step.start_time.FromNanoseconds(min(began))
    ended = [below.end_time.ToNanoseconds() for below in step.sub_steps if below.HasField("end_time")]
    if ended and not states & GOING_ON:
        step.end_time.FromNanoseconds(max(ended))


def flat(steps: Iterable[Any]) -> Iterator[Any]:
    """Yield steps and all that are below them."""
    for step in steps:
        yield step
        yield from flat(step.sub_steps)


def settle(steps: Iterable[wire.PipelineRunStepInfo], state: Any) -> None:
    """End the steps of a run that ended in `state`: what still ran shares its end, what had not begun is skipped.

    Airflow calls the tasks of a killed run failed; one that gave no verdict was killed with it.
    """
    killed = state == wire.PIPELINE_RUN_STATE_KILLED
    for step in steps:
        if step.sub_steps:
            settle(step.sub_steps, state)
            _sum_up(step)
            continue
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


def _worst(states: Collection[Any]) -> Any:
    """Return the state of a step that consists of steps in these states.  Half done is running."""
    for state in (
        wire.PIPELINE_RUN_STEP_STATE_FAILED,
        wire.PIPELINE_RUN_STEP_STATE_KILLED,
        wire.PIPELINE_RUN_STEP_STATE_RUNNING,
    ):
        if state in states:
            return state
    if wire.PIPELINE_RUN_STEP_STATE_PENDING in states:
        begun = wire.PIPELINE_RUN_STEP_STATE_SUCCEEDED in states
        return wire.PIPELINE_RUN_STEP_STATE_RUNNING if begun else wire.PIPELINE_RUN_STEP_STATE_PENDING
    if wire.PIPELINE_RUN_STEP_STATE_SUCCEEDED in states:
        return wire.PIPELINE_RUN_STEP_STATE_SUCCEEDED
    return wire.PIPELINE_RUN_STEP_STATE_SKIPPED


def earlier(task: Task, tries: Iterable[Task]) -> list[Task]:
    """Return the tries of a task that are over and not its present one."""
    return [
        each
        for each in tries
        if each.state in ENDED and (each.try_number < task.try_number or task.state not in TRYING)
    ]


def earlier_tries(task: Task) -> int:
    """Return how many tries a task had before its present one."""
    return max(0, task.try_number - (1 if task.state in TRYING else 0))
