"""What the fake Airflow does to do things once more, and what it says of who waits for what."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request

from tests.robustness.fakes.airflow_book import ACTIVE_TASKS, FakeDag, FakeRun, FakeTask, stamp, task_json


class Again:
    """`pools`: how many places each has; the others have any number."""

    runs: dict[tuple[str, str], FakeRun]
    pools: dict[str, int]

    def _dag(self, request: Request) -> FakeDag:
        raise NotImplementedError

    def _run(self, request: Request) -> FakeRun:
        raise NotImplementedError

    def _changed(self, run: FakeRun) -> None:
        raise NotImplementedError

    def _clear(self, run: FakeRun, tasks: Iterable[FakeTask]) -> None:
        """Do tasks once more: what they did becomes a try of the past."""
        run.state, run.start, run.end = "queued", None, None
        for task in tasks:
            if task.try_number > len(task.tries):
                task.tries.append(replace(task, tries=[], xcoms={}))
            task.state, task.start, task.end = None, None, None
            task.xcoms = {}
        self._changed(run)

    def retry(self, run: FakeRun, task_id: str) -> None:
        """Fail a task whose retries are not used up, and have it wait for the next."""
        task = run.tasks[task_id, -1]
        task.state, task.end = "failed", task.start
        task.tries.append(replace(task, tries=[], xcoms={}))
        task.state = "up_for_retry"
        self._changed(run)

    def _clear_tasks(self, request: Request, body: Any) -> dict[str, Any]:
        dag = self._dag(request)
        run = self.runs.get((dag.dag_id, body["dag_run_id"]))
        if run is None:
            raise HTTPException(404, f"Dag Run id {body['dag_run_id']} not found in dag {dag.dag_id}")
        marked = [(item, None) if isinstance(item, str) else (item[0], item[1]) for item in body["task_ids"]]
        wanted, below = set(marked), [name for name, _ in marked]
        while below and body["include_downstream"]:
            for name in dag.after(below.pop()):
                if (name, None) not in wanted:
                    wanted.add((name, None))
                    below.append(name)
        tasks = [
            task
            for task in run.tasks.values()
            if (task.task_id, None) in wanted or (task.task_id, task.map_index) in wanted
        ]
        if body["prevent_running_task"] and any(task.state in ACTIVE_TASKS for task in tasks):
            raise HTTPException(409, "AirflowClearRunningTaskException")
        if tasks and not body["dry_run"]:
            self._clear(run, tasks)
        return {"task_instances": [task_json(task) for task in tasks], "total_entries": len(tasks)}

    def _tries(self, request: Request, _: Any) -> dict[str, Any]:
        name, index = request.path_params["task"], int(request.path_params.get("index", "-1"))
        task = self._run(request).tasks.get((name, index))
        if task is None:
            raise HTTPException(404, f"The Task Instance with task_id: `{name}` was not found")
        found = [*task.tries, *([task] if task.state != "up_for_retry" else [])]
        return {"task_instances": [task_json(one) for one in found], "total_entries": len(found)}

    def _dag_tasks(self, request: Request, _: Any) -> dict[str, Any]:
        dag = self._dag(request)
        return {"tasks": [{"task_id": name, "downstream_task_ids": list(dag.after(name))} for name in dag.tasks]}

    def _pool(self, request: Request, _: Any) -> dict[str, Any]:
        name = request.path_params["pool"]
        if name not in self.pools and name != "default_pool":
            raise HTTPException(404, f"The Pool with name: `{name}` was not found")
        tasks = [task for run in self.runs.values() for task in run.tasks.values() if task.pool == name]
        taken = sum(task.state in ("running", "queued") for task in tasks)
        return {"name": name, "slots": self.pools.get(name, 128), "occupied_slots": taken}

    def _waiting(self, request: Request) -> list[dict[str, Any]]:
        """Return the tasks of all runs in a state, of one pool."""
        state, pool = request.query_params["state"], request.query_params["pool"]
        return [
            task_json(task) | {"dag_id": run.dag_id, "dag_run_id": run.run_id, "run_after": stamp(run.due)}
            for run in self.runs.values()
            for task in run.tasks.values()
            if (task.state, task.pool) == (state, pool)
        ]
