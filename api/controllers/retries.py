"""Retry of one task of an ended run (`spec.retry_info`): it and what follows is done again in the same DAG run.

What is to be cleared is written down before Airflow is asked, with the try that the task stood at: whoever goes on
after a crash sees whether it was done.  A wish that was carried out, or is void, is taken out of the spec.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from google.protobuf import any_pb2

from api.airflow import DagRun, Task
from api.controllers.attempts import begin_again, condition_of, note, noted
from api.controllers.conditions import STATUSES, set_condition
from api.controllers.platform import Platform
from api.controllers.run_report import has_ended
from api.controllers.steps import ENDED, step_name
from api.errors import AlreadyExists, Conflict, InvalidArgument, NotFound
from api.store.values import key_of

RETRIED = "Retried"
VOID = "RetryVoid"
MOST_WRITES = 20
SHOWN = 200
ACTIVE = ("queued", "running")


def is_wished(run: Any) -> bool:
    """Whether a retry is wished that nobody has looked at."""
    return bool(run.spec.HasField("retry_info"))


def is_due(run: Any) -> bool:
    """Whether a retry was accepted, and it is not known that Airflow was told."""
    found = condition_of(run, RETRIED)
    return bool(found is not None and found.status == STATUSES[None] and not has_ended(run))


class Retries:
    """Carries retries out."""

    def __init__(self, platform: Platform) -> None:
        self._platform = platform

    async def accept(self, run: Any) -> Any:
        """Let an ended run begin again as its wish says, or void the wish.  Returns the run without the wish.

        A run that has not ended had its wish accepted before: only the wish is left to be removed.
        """
        if has_ended(run):
            wish = run.spec.retry_info
            task, told = await self._wished(run, wish)
            if task is None:
                set_condition(run, RETRIED, False, VOID, told)
            else:
                name, why = step_name(task), f": {wish.reason[:SHOWN]}" if wish.reason else ""
                begin_again(run, "Retried", f"{name} and what follows it{why}")
                set_condition(run, RETRIED, None, "Retrying", f"{name} is to be done again{why}")
                note(run, RETRIED, {"task": task.task_id, "map_index": task.map_index, "try": task.try_number})
            run = await self._platform.resources.update_status(run)
        return await self._without_wish(run)

    async def _wished(self, run: Any, wish: Any) -> tuple[Task | None, str]:
        """Return the task that is to be done again, or None and why the wish is void."""
        status = run.status
        for field in ("workflow_run_id", "workflow_id"):
            given = getattr(wish, field)
            if given and given != getattr(status, field):
                return None, f"spec.retry_info.{field} is {given[:SHOWN]!r}, the run's is {getattr(status, field)!r}"
        if not status.workflow_run_id:
            return None, "the run ended before it began in Airflow: start another"
        try:
            observed = await self._platform.airflow.run(status.workflow_id, status.workflow_run_id)
            tasks = await self._platform.airflow.tasks(status.workflow_id, status.workflow_run_id)
        except NotFound:
            return None, "Airflow has the run no longer: resume from it with another"
        if observed.state in ACTIVE:
            return None, "the run was begun again in Airflow meanwhile: wait until it has ended"
        named = [task for task in tasks if wish.activity_id in (task.task_id, step_name(task))]
        if not named:
            known = ", ".join(sorted(step_name(task) for task in tasks))[:SHOWN]
            return None, f"spec.retry_info.activity_id is {wish.activity_id[:SHOWN]!r}; the run's steps: {known}"
        exact = [task for task in named if step_name(task) == wish.activity_id]
        if exact:
            return exact[0], ""
        # All instances of a mapped task: -1 stands for them.
        return replace(named[0], map_index=-1, try_number=max(task.try_number for task in named)), ""

    async def _without_wish(self, run: Any) -> Any:
        """Take the wish out of the spec, unless another took its place.  A write leaves the object settled."""
        wish = run.spec.retry_info
        for attempt in range(MOST_WRITES):
            found = await self._platform.resources.find(key_of(run))
            if found is None or found.metadata.uid != run.metadata.uid or found.spec.retry_info != wish:
                return found if found is not None else run
            found.spec.ClearField("retry_info")
            try:
                found = await self._platform.resources.update(found)
                break
            except Conflict as error:
                if error.reason == "DEPOSED" or attempt == MOST_WRITES - 1:
                    raise
        assert found is not None
        condition = condition_of(found, RETRIED)
        if condition is not None:
            condition.observed_generation = found.metadata.generation
        return await self._platform.resources.update_status(found)

    async def tell_airflow(self, run: Any, observed: DagRun) -> DagRun:
        """Have the task cleared, if it was not yet, and return the DAG run as it is then.  Raises Unavailable."""
        kept = noted(run, RETRIED)
        airflow, dag_id, run_id = self._platform.airflow, observed.dag_id, observed.run_id
        if run.spec.kill:
            _settle(run, False, "Killed", "the run was killed before the task was done again")
            return observed
        if observed.state not in ACTIVE:
            tasks = await airflow.tasks(dag_id, run_id)
            if any(_stands(task, kept) for task in tasks):
                try:
                    await airflow.clear(dag_id, run_id, str(kept["task"]), int(kept["map_index"]))
                except AlreadyExists:
                    pass
                except (InvalidArgument, NotFound) as error:
                    _settle(run, False, VOID, error.message)
                    return observed
            observed = await airflow.run(dag_id, run_id)
        _settle(run, True, "Retried", f"{kept.get('task')} was begun again in Airflow")
        return observed


def _stands(task: Task, kept: Mapping[str, Any]) -> bool:
    """Whether a task is as it was when its retry was accepted."""
    same = task.task_id == kept.get("task") and kept.get("map_index") in (-1, task.map_index)
    return same and task.try_number == kept.get("try") and task.state in ENDED


def _settle(run: Any, status: bool, reason: str, message: str) -> None:
    set_condition(run, RETRIED, status, reason, message)
    next(item for item in run.status.conditions if item.type == RETRIED).metadata.CopyFrom(any_pb2.Any())
