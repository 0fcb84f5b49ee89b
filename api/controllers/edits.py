"""What somebody changed of a run in Airflow: the status follows, and says so.  Changes nothing itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from api.calls import Call, Principal
from api.controllers.attempts import condition_of
from api.controllers.conditions import set_condition
from api.controllers.steps import flat
from api.gen.michelangelo.api.v2 import pipeline_run_pb2 as wire

CHANGED = "ExternallyChanged"
# In whose name the audit log has what a person did in Airflow: who it was is in Airflow's own.
SOMEBODY = Principal("system:airflow", kind="service")
DONE = (wire.PIPELINE_RUN_STEP_STATE_SUCCEEDED, wire.PIPELINE_RUN_STEP_STATE_FAILED)
OVER = (*DONE, wire.PIPELINE_RUN_STEP_STATE_SKIPPED)
NAMES = {
    wire.PIPELINE_RUN_STEP_STATE_SUCCEEDED: "success",
    wire.PIPELINE_RUN_STEP_STATE_FAILED: "failed",
    wire.PIPELINE_RUN_STEP_STATE_SKIPPED: "skipped",
}
MOST_NAMED = 5


def ended_steps(run: Any) -> Mapping[str, tuple[Any, tuple[str, ...]]]:
    """Return the state and the tries of the steps that have ended, by name."""
    return {
        step.name: (step.state, tuple(step.attempt_ids))
        for step in flat(run.status.steps)
        if not step.sub_steps and step.state in DONE
    }


def marked_steps(before: Mapping[str, tuple[Any, tuple[str, ...]]], run: Any) -> Sequence[str]:
    """Return which steps ended otherwise than they had, without another try: only a person can do that."""
    return [
        f"{step.name} was marked {NAMES[step.state]}"
        for step in flat(run.status.steps)
        if not step.sub_steps
        and step.name in before
        and step.state in OVER
        and step.state != before[step.name][0]
        and tuple(step.attempt_ids) == before[step.name][1]
    ][:MOST_NAMED]


def is_marked_failed(run: Any) -> bool:
    """Whether a run ended as failed although no step of it did."""
    ended = condition_of(run, "Succeeded")
    return bool(ended is not None and ended.reason == CHANGED and run.status.HasField("end_time"))


def say_changed(run: Any, message: str) -> None:
    """Say that somebody changed the run in Airflow."""
    set_condition(run, CHANGED, True, "ChangedInAirflow", message)


def in_somebodys_name() -> Call:
    """Return a call that leaves an audit record."""
    return Call(principal=SOMEBODY)
