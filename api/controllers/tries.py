"""What a step of a run says beside its task's state: earlier tries, and why it was not done.  Reads Airflow."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from api.airflow import Airflow, DagRun, Task
from api.controllers.steps import STEP_STATES, earlier, earlier_tries, log_url, set_time, step_name
from api.gen.michelangelo.api.v2 import pipeline_run_pb2 as wire
from api.reuse import REUSED, reuse_of, stops_before

SKIPPED = wire.PIPELINE_RUN_STEP_STATE_SKIPPED


async def add_earlier_tries(
    airflow: Airflow, url: str, observed: DagRun, task: Task, step: Any, known: Any | None
) -> None:
    """Tell of the tries before the present one.  `known`: the step as it was told last; what ended is read once."""
    if not earlier_tries(task):
        return
    step.attempt_ids[:] = [str(number) for number in range(1, task.try_number + 1)]
    if known is not None and len(known.attempt_details) >= earlier_tries(task):
        step.attempt_details.extend(known.attempt_details)
        return
    for each in earlier(task, await airflow.tries(observed.dag_id, observed.run_id, task)):
        info = wire.PipelineRunStepInfo(
            name=step_name(task),
            display_name=step.display_name,
            state=STEP_STATES.get(each.state or "", wire.PIPELINE_RUN_STEP_STATE_INVALID),
            activity_id=task.task_id,
            log_url=log_url(url, observed.dag_id, observed.run_id, each),
        )
        for field, value in (("start_time", each.start), ("end_time", each.end)):
            if value is not None:
                set_time(getattr(info, field), value)
        if known is not None and list(known.attempt_ids)[-1:] == [str(each.try_number)]:
            # What it pushed is gone from Airflow as soon as the next try begins.
            info.message = known.message
            info.input.CopyFrom(known.input)
            info.output.CopyFrom(known.output)
        step.attempt_details.append(wire.AttemptDetails(attempt_id=str(each.try_number), step_info=info))


async def say_why_skipped(airflow: Airflow, observed: DagRun, task: Task, step: Any) -> None:
    """Make a step whose outputs were taken over a skipped one, and say which were not asked for."""
    conf: Mapping[str, Any] = observed.conf
    if task.state == "skipped" and stops_before(conf, task.task_id):
        step.message = "not asked for: the run stops before it"
    elif task.state == "success" and reuse_of(conf, step.name, task.try_number) is not None:
        told = await airflow.xcom(observed.dag_id, observed.run_id, task, REUSED)
        if isinstance(told, dict):
            step.state = SKIPPED
            step.message = str(told.get("message", ""))
    elif task.state == "success":
        _say_what_the_cache_said(step)


def _say_what_the_cache_said(step: Any) -> None:
    """Make a step whose output was kept a skipped one; of another, say why it had to be done."""
    said = step.output.fields["cache"].struct_value if "cache" in step.output.fields else None
    if said is None:
        return
    step.message = said.fields["why"].string_value
    if said.fields["hit"].bool_value:
        step.state = SKIPPED
