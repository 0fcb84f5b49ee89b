"""Runs the DAG of a template or of steps in this process, as Airflow's workers would: no scheduler, no database.

The operators are the same, and so are the programs of their jobs; a job runs where it is submitted.  A failure is
repeated as often as on Airflow, without the wait before it.
"""

from __future__ import annotations

import asyncio
import contextvars
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from graphlib import TopologicalSorter
from types import SimpleNamespace
from typing import Any

from airflow.sdk import DAG
from airflow.sdk.bases.operator import ExecutorSafeguard
from airflow.sdk.definitions.param import process_params
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException, TaskDeferred
from airflow.sdk.execution_time.context import set_current_context

from operators.authoring.local_run import FAILED, RETRYING, RUNNING, SKIP, SUCCEEDED, UPSTREAM_FAILED, Event
from operators.engines.here import HereEngine
from operators.job import JobOperator
from operators.templates.digests import digest_of

RETURNED = "return_value"


@dataclass
class Instance:
    """A task instance whose XComs are a dictionary that the tasks of a run share."""

    dag_id: str
    run_id: str
    task_id: str
    try_number: int
    xcoms: dict[tuple[str, str], Any]
    map_index: int = -1

    def xcom_push(self, key: str, value: Any) -> None:
        """Keep a value."""
        self.xcoms[self.task_id, key] = value

    def xcom_pull(self, task_ids: str, key: str = RETURNED, default: Any = None, **_: Any) -> Any:
        """Return what a task pushed."""
        return self.xcoms.get((task_ids, key), default)


@dataclass
class Ended:
    """How a run went.  outputs: what each step returned; error: what the first step that failed raised."""

    events: list[Event] = field(default_factory=list)
    outputs: dict[str, Any] = field(default_factory=dict)
    error: BaseException | None = None

    def steps(self) -> list[dict[str, Any]]:
        """Return each step with its last state, tries, digest and outputs, in the order in which they ended."""
        last = {event.step: event for event in self.events}
        return [
            {
                "step": name,
                "state": SKIP if event.state == UPSTREAM_FAILED else event.state,
                "tries": event.attempt,
                "digest": event.digest,
                "outputs": self.outputs.get(name),
                "message": event.message,
            }
            for name, event in last.items()
        ]


@dataclass(frozen=True)
class Asked:
    """What to run.  build: gives the DAG, anew for each task; run: the name of the run; conf: its parameters."""

    build: Callable[[], DAG]
    run: str
    conf: Mapping[str, Any]

    @property
    def run_id(self) -> str:
        """What Airflow would call it."""
        return f"ma__{self.run}__1"


def run_here(asked: Asked, on_event: Callable[[Event], None] = lambda event: None) -> Ended:
    """Run every task of a DAG and return how that went.  Raises ParamValidationError for a wrong parameter."""
    return _Run(asked, on_event).ended()


class _Run:
    def __init__(self, asked: Asked, on_event: Callable[[Event], None]) -> None:
        self._asked, self._on_event = asked, on_event
        self._engine = HereEngine()
        self._xcoms: dict[tuple[str, str], Any] = {}
        self._ended = Ended()
        self._due = datetime.now(UTC)

    def ended(self) -> Ended:
        dag = self._asked.build()
        needs = {task.task_id: sorted(task.upstream_task_ids) for task in dag.tasks}
        for task in dag.tasks:
            process_params(dag, task, self._conf(), suppress_exception=False)
        left: set[str] = set()
        for name in TopologicalSorter(needs).static_order():
            if left & set(needs[name]):
                left.add(name)
                self._say(name, UPSTREAM_FAILED)
            elif not self._step(name, dag.get_task(name).retries or 0):
                left.add(name)
        return self._ended

    def _conf(self) -> dict[str, Any]:
        return {**self._asked.conf, "ma": {"pipeline_run": self._asked.run, "owner_uid": self._asked.run}}

    def _step(self, name: str, retries: int) -> bool:
        """Run a task until it has ended; return whether what needs it may run."""
        began = time.perf_counter()
        for attempt in range(1, retries + 2):
            self._say(name, RUNNING, attempt)
            try:
                outputs = self._attempt(name, attempt)
            except AirflowSkipException as error:
                self._say(name, SKIP, attempt, message=str(error))
                return False
            except (Exception, SystemExit) as error:
                again = attempt <= retries and not isinstance(error, AirflowFailException)
                took = time.perf_counter() - began
                self._say(name, RETRYING if again else FAILED, attempt, message=str(error), seconds=took)
                if not again:
                    self._ended.error = self._ended.error or error
                    return False
                continue
            self._ended.outputs[name] = outputs
            digest = digest_of(outputs, {self._asked.run: "RUN"})
            self._say(name, SUCCEEDED, attempt, digest, seconds=time.perf_counter() - began)
            break
        return True

    def _attempt(self, name: str, attempt: int) -> Any:
        method = "execute"
        arguments: dict[str, Any] = {}
        while True:
            task, context = self._task(name, attempt)
            try:
                result = self._call(task, context, method, arguments)
                break
            except TaskDeferred as deferred:
                event = asyncio.run(_first(deferred.trigger))
                method, arguments = deferred.method_name, {**(deferred.kwargs or {}), "event": event}
        if task.multiple_outputs:
            for key, value in result.items():
                context["ti"].xcom_push(key, value)
        context["ti"].xcom_push(RETURNED, result)
        return result

    def _task(self, name: str, attempt: int) -> tuple[Any, Any]:
        """Return a fresh task with its values filled in: once, as a value may look like a template."""
        dag = self._asked.build()
        task: Any = dag.get_task(name)
        if isinstance(task, JobOperator):
            task.run_on(self._engine)
        conf = self._conf()
        context = {
            "dag": dag,
            "task": task,
            "ti": Instance(dag.dag_id, self._asked.run_id, name, attempt, self._xcoms),
            "dag_run": SimpleNamespace(run_id=self._asked.run_id, conf=conf, run_after=self._due),
            "params": process_params(dag, task, conf, suppress_exception=False),
        }
        task.render_template_fields(context)
        return task, context

    def _call(self, task: Any, context: Any, method: str, arguments: Mapping[str, Any]) -> Any:
        own = contextvars.copy_context()
        own.run(ExecutorSafeguard.tracker.set, task)
        with set_current_context(context):
            if method == "execute":
                return own.run(task.execute, context)
            return own.run(task.resume_execution, method, dict(arguments), context)

    def _say(
        self, step: str, state: str, attempt: int = 0, digest: str = "", message: str = "", seconds: float = 0.0
    ) -> None:
        event = Event(step, (), state, attempt, digest, message, seconds)
        self._ended.events.append(event)
        self._on_event(event)


async def _first(trigger: Any) -> Any:
    """Wait as the triggerer does: for the first event."""
    async for event in trigger.run():
        return event.payload
    raise RuntimeError(f"{type(trigger).__name__} ended without an event")
