"""Attempts of a run: each time that an ended run is begun again, by a retry or by somebody in Airflow, it is another.

The states of one attempt only move forward (`guarantees.md` G8); which attempt a status tells of is its condition
`Attempt`, absent for the first.  All attempts are the same DAG run, unless Airflow lost it: then the next one has a DAG
run of its own, named by their number.  That number is in the status before that DAG run is asked for.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from api.controllers.conditions import set_condition
from api.gen.michelangelo.api import typed_struct_pb2
from api.gen.michelangelo.api.v2 import pipeline_run_pb2 as wire
from api.workflows import plain, typed

ATTEMPT = "Attempt"
ATTEMPT_TYPE = "michelangelo.airflow/Attempt"


def attempt_of(run: Any) -> int:
    """Return which attempt the status of a run tells of, from 1."""
    return int(noted(run, ATTEMPT).get("number", 1))


def dag_run_of(run: Any) -> int:
    """Return which DAG run the status of a run tells of, from 1."""
    return int(noted(run, ATTEMPT).get("dag_run", 1))


def begin_anew(run: Any, reason: str, message: str) -> None:
    """Let the status tell of the next attempt, in a DAG run that is to be made: Airflow has the one before no more."""
    number = dag_run_of(run) + 1
    begin_again(run, reason, message)
    note(run, ATTEMPT, {"number": attempt_of(run), "dag_run": number})
    status = run.status
    for field in ("workflow_run_id", "log_url"):
        status.ClearField(field)
    del status.steps[:]


def begin_again(run: Any, reason: str, message: str) -> None:
    """Let the status tell of the next attempt, which has not begun.  `message`: why, and who wished it."""
    number, dag_run = attempt_of(run) + 1, dag_run_of(run)
    status = run.status
    status.state = wire.PIPELINE_RUN_STATE_PENDING
    status.error_message = ""
    for field in ("end_time", "exception_type", "details"):
        status.ClearField(field)
    set_condition(run, "Succeeded", None, reason)
    set_condition(run, ATTEMPT, True, reason, f"attempt {number}: {message}")
    note(run, ATTEMPT, {"number": number, "dag_run": dag_run})


def note(run: Any, name: str, value: Mapping[str, Any]) -> None:
    """Keep what the controller wants to know later beside a condition that is set."""
    condition = next(item for item in run.status.conditions if item.type == name)
    condition.metadata.Pack(typed(ATTEMPT_TYPE, value))


def noted(run: Any, name: str) -> Mapping[str, Any]:
    """Return what was kept beside a condition, nothing if it is not set."""
    kept = typed_struct_pb2.TypedStruct()
    for item in run.status.conditions:
        if item.type == name and item.metadata.Unpack(kept):
            found: Mapping[str, Any] = plain(kept.value)
            return found
    return {}


def condition_of(run: Any, name: str) -> Any:
    """Return a condition, None if it is not set."""
    return next((item for item in run.status.conditions if item.type == name), None)


def in_airflow(state: Any) -> Any:
    """Return the state that Airflow has for a run that is told to be in `state`: it knows two ways to end."""
    if state == wire.PIPELINE_RUN_STATE_KILLED:
        return wire.PIPELINE_RUN_STATE_FAILED
    return wire.PIPELINE_RUN_STATE_SUCCEEDED if state == wire.PIPELINE_RUN_STATE_SKIPPED else state
