"""What Airflow says of a run, as the status of its PipelineRun.  Reads Airflow; stores nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from google.protobuf import json_format

from api.airflow import DagRun, Task
from api.controllers import run_verdict
from api.controllers.conditions import set_condition
from api.controllers.pending import waits_no_more
from api.controllers.platform import Platform
from api.controllers.steps import (
    ENDED,
    first_failed,
    flat,
    in_order,
    log_url,
    nested,
    run_url,
    set_time,
    settle,
    step_of,
)
from api.controllers.tries import add_earlier_tries, say_why_skipped
from api.controllers.waiting import Waiting
from api.gen.michelangelo.api.v2 import pipeline_run_pb2 as wire
from api.plain_dags import DAG_ANNOTATION, bounded
from api.workflows import STEPS_TYPE, content

STATES = {
    "queued": wire.PIPELINE_RUN_STATE_PENDING,
    "running": wire.PIPELINE_RUN_STATE_RUNNING,
    "success": wire.PIPELINE_RUN_STATE_SUCCEEDED,
    "failed": wire.PIPELINE_RUN_STATE_FAILED,
}
TERMINAL = {
    wire.PIPELINE_RUN_STATE_SUCCEEDED,
    wire.PIPELINE_RUN_STATE_KILLED,
    wire.PIPELINE_RUN_STATE_FAILED,
    wire.PIPELINE_RUN_STATE_SKIPPED,
}
NOBODY = wire.PIPELINE_RUN_EXCEPTION_TYPE_INVALID
SYSTEM = wire.PIPELINE_RUN_EXCEPTION_TYPE_SYSTEM
USER = wire.PIPELINE_RUN_EXCEPTION_TYPE_USER


def has_ended(run: Any) -> bool:
    """Whether a run's status is final."""
    return run.status.state in TERMINAL and run.status.HasField("end_time")


def end(run: Any, state: Any, reason: str, message: str, at: datetime, blame: Any = NOBODY) -> None:
    """End a run.  `at`: when it ended; `blame`: who can mend the failure, SYSTEM or USER, as far as it is known."""
    status, fine = run.status, state in (wire.PIPELINE_RUN_STATE_SUCCEEDED, wire.PIPELINE_RUN_STATE_SKIPPED)
    status.state = state
    status.error_message = "" if fine else message
    status.exception_type = blame
    set_time(status.end_time, at)
    set_condition(run, "Succeeded", fine, reason, message)
    waits_no_more(run)
    asked = state == wire.PIPELINE_RUN_STATE_KILLED
    judged = state in (wire.PIPELINE_RUN_STATE_FAILED, wire.PIPELINE_RUN_STATE_KILLED)
    run_verdict.write(status, run_verdict.without_task(run, reason, message, asked=asked) if judged else None)


class RunReport:
    """Describes runs."""

    def __init__(self, platform: Platform) -> None:
        self._airflow = platform.airflow
        self._url = platform.config.airflow_url
        self._now = platform.now
        self._verdict = run_verdict.RunVerdict(platform)
        self._waiting = Waiting(platform)

    async def describe(self, run: Any, observed: DagRun) -> None:
        """Set the status of `run` from its DAG run and its tasks."""
        status = run.status
        status.workflow_id = observed.dag_id
        status.workflow_run_id = observed.run_id
        status.log_url = run_url(self._url, observed.dag_id, observed.run_id)
        set_condition(run, "Triggered", True, "DagRunCreated")
        tasks = await self._airflow.tasks(observed.dag_id, observed.run_id)
        steps = [(task, await self._step(run, observed, task)) for task in in_order(tasks)]
        del status.steps[:]
        # The names of explicit steps may have dots; those of tasks in groups do.
        groups = content(status.source_pipeline.pipeline.spec)[0] != STEPS_TYPE
        status.steps.extend(nested(steps, groups=groups))
        state = STATES.get(observed.state, wire.PIPELINE_RUN_STATE_RUNNING)
        if state == wire.PIPELINE_RUN_STATE_FAILED and run.spec.kill:
            state = wire.PIPELINE_RUN_STATE_KILLED
        if state not in TERMINAL:
            waits = await self._waiting.tell(run, observed, tasks)
            status.state = max(status.state, wire.PIPELINE_RUN_STATE_PENDING if waits else state)
            run_verdict.write(status, None)
            return
        await self._finish(run, observed, state, {step.name: task for task, step in steps})

    async def _finish(self, run: Any, observed: DagRun, state: Any, tasks: Mapping[str, Task]) -> None:
        status, at = run.status, observed.end or self._now()
        settle(status.steps, state)
        failed = first_failed(status.steps)
        if state == wire.PIPELINE_RUN_STATE_KILLED:
            end(run, state, "Killed", "killed on request", at)
            if (killed := _first_killed(status.steps)) is not None:
                verdict = await self._verdict.of(run, observed, killed, tasks.get(killed.name), asked=True)
                run_verdict.write(status, verdict)
        elif state == wire.PIPELINE_RUN_STATE_SUCCEEDED and _was_unnecessary(status.steps):
            end(run, wire.PIPELINE_RUN_STATE_SKIPPED, "NotNecessary", "no step had anything to do", at)
        elif state == wire.PIPELINE_RUN_STATE_SUCCEEDED:
            end(run, state, "Succeeded", "", at)
        elif failed is None:
            end(run, state, "ExternallyChanged", "marked failed in Airflow", at)
        else:
            verdict = await self._verdict.of(run, observed, failed, tasks.get(failed.name), asked=False)
            failed.message = failed.message or verdict.summary
            end(run, state, "Failed", f"{failed.name}: {failed.message}", at, USER if verdict.users else SYSTEM)
            run_verdict.write(status, verdict)

    async def _step(self, run: Any, observed: DagRun, task: Task) -> wire.PipelineRunStepInfo:
        """Return one step with what its task took and gave.  What an ended step pushed is fetched once."""
        step = step_of(task, log_url(self._url, observed.dag_id, observed.run_id, task))
        known = _known(run.status.steps, step.name)
        await add_earlier_tries(self._airflow, self._url, observed, task, step, known)
        same = known is not None and known.attempt_ids == step.attempt_ids and task.state in ENDED
        skipped = known is not None and known.state == wire.PIPELINE_RUN_STEP_STATE_SKIPPED and known.message
        if known is not None and same and (known.state == step.state or skipped):
            step.state = known.state
            step.input.CopyFrom(known.input)
            step.output.CopyFrom(known.output)
            step.message = known.message
            return step
        if task.state == "skipped":
            await say_why_skipped(self._airflow, observed, task, step)
        if task.start is None or task.state is None:
            return step
        shown = bounded if DAG_ANNOTATION in run.metadata.annotations else _as_it_is
        if known is not None and known.attempt_ids == step.attempt_ids and known.input.fields:
            # A try's inputs do not change.
            step.input.CopyFrom(known.input)
        else:
            _fill(step.input, shown(await self._airflow.xcom(observed.dag_id, observed.run_id, task, "inputs")))
        if task.state == "success":
            given = await self._airflow.xcom(observed.dag_id, observed.run_id, task, "return_value")
            _fill(step.output, shown(given))
            await say_why_skipped(self._airflow, observed, task, step)
        elif task.state == "failed":
            verdict = await self._airflow.xcom(observed.dag_id, observed.run_id, task, "verdict")
            step.message = str(verdict.get("message", "")) if isinstance(verdict, dict) else ""
        return step


def _as_it_is(value: Any) -> Any:
    return value


def _first_killed(steps: Sequence[Any]) -> Any | None:
    """Return the first step that was killed, of a mapped task the instance; None if none was."""
    killed = (step for step in flat(steps) if step.state == wire.PIPELINE_RUN_STEP_STATE_KILLED)
    return next((step for step in killed if not step.sub_steps), None)


def _was_unnecessary(steps: Sequence[Any]) -> bool:
    """Whether a run had steps, and none of them did anything."""
    leaves = [step for step in flat(steps) if not step.sub_steps]
    return bool(leaves) and all(step.state == wire.PIPELINE_RUN_STEP_STATE_SKIPPED for step in leaves)


def _known(steps: Sequence[Any], name: str) -> Any | None:
    for step in steps:
        if step.name == name:
            return step
        if (below := _known(step.sub_steps, name)) is not None:
            return below
    return None


def _fill(struct: Any, value: Any) -> None:
    if isinstance(value, dict):
        json_format.ParseDict(value, struct)
    elif value is not None:
        json_format.ParseDict({"value": value}, struct)
