"""Airflow's Task SDK in this process: no database, no scheduler, a temporary home, and tasks run as it runs them."""

import atexit
import contextvars
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

_home = tempfile.mkdtemp(prefix="airflow-home-")
atexit.register(shutil.rmtree, _home, ignore_errors=True)
_outside = os.environ.get("AIRFLOW_HOME")
os.environ["AIRFLOW_HOME"] = _home
os.environ["AIRFLOW__CORE__UNIT_TEST_MODE"] = "False"
import airflow.sdk  # noqa: E402
from airflow.sdk.bases.operator import ExecutorSafeguard  # noqa: E402
from airflow.sdk.definitions.param import process_params  # noqa: E402
from airflow.sdk.exceptions import TaskDeferred  # noqa: E402
from airflow.sdk.execution_time.context import set_current_context  # noqa: E402

# Airflow reads its home once, when it is imported: nobody else's processes shall find it.
del os.environ["AIRFLOW__CORE__UNIT_TEST_MODE"]
if _outside is None:
    del os.environ["AIRFLOW_HOME"]
else:
    os.environ["AIRFLOW_HOME"] = _outside

RETURNED = "return_value"


@dataclass
class FakeTaskInstance:
    """A task instance whose XComs are a dictionary that a run's tasks share."""

    dag_id: str
    run_id: str
    task_id: str
    xcoms: dict[tuple[str, str], Any]
    map_index: int = -1
    try_number: int = 1

    def xcom_push(self, key: str, value: Any) -> None:
        self.xcoms[self.task_id, key] = value

    def xcom_pull(self, task_ids: str, key: str = RETURNED, default: Any = None, map_indexes: Any = None) -> Any:
        return self.xcoms.get((task_ids, key), default)


@dataclass
class Run:
    """A run of a DAG.  `task` gives a task of a fresh parse, rendered, with its context; `execute` ends one."""

    build: Callable[[], airflow.sdk.DAG]
    run_id: str = "ma__u__1"
    conf: Mapping[str, Any] = field(default_factory=dict)
    xcoms: dict[tuple[str, str], Any] = field(default_factory=dict)

    def task(self, task_id: str, *, try_number: int = 1, map_index: int = -1) -> tuple[Any, dict[str, Any]]:
        dag = self.build()
        task: Any = dag.get_task(task_id)
        ti = FakeTaskInstance(dag.dag_id, self.run_id, task_id, self.xcoms, map_index, try_number)
        context = {
            "dag": dag,
            "task": task,
            "ti": ti,
            "dag_run": SimpleNamespace(
                run_id=self.run_id, conf=dict(self.conf), run_after=datetime(2026, 1, 1, tzinfo=UTC)
            ),
            "params": process_params(dag, task, dict(self.conf), suppress_exception=False),
        }
        task.render_template_fields(context)
        return task, context

    def execute(self, task_id: str, *, try_number: int = 1) -> Any:
        """Execute a task until it returns, raises or defers, and push what it returned as Airflow does."""
        task, context = self.task(task_id, try_number=try_number)
        return self.call(task, context, task.execute)

    def resume(self, task_id: str, deferred: TaskDeferred, event: Any, *, try_number: int = 1) -> Any:
        """Go on with a deferred task in another process: with a fresh task, and what was deferred with it."""
        task, context = self.task(task_id, try_number=try_number)
        arguments = {**(deferred.kwargs or {}), "event": event}
        return self.call(task, context, lambda context: task.resume_execution(deferred.method_name, arguments, context))

    def call(self, task: Any, context: Any, method: Callable[..., Any]) -> Any:
        own = contextvars.copy_context()
        own.run(ExecutorSafeguard.tracker.set, task)
        with set_current_context(context):
            result = own.run(method, context)
        if task.multiple_outputs:
            for key, value in result.items():
                context["ti"].xcom_push(key, value)
        context["ti"].xcom_push(RETURNED, result)
        return result
