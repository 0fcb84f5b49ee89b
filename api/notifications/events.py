"""Which change of an object is an event that somebody may want to hear of.  Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from api.gen.michelangelo.api.v2 import notification_pb2, pipeline_pb2, pipeline_run_pb2, trigger_run_pb2
from api.kinds import Resource

Wire = notification_pb2.Notification


@dataclass(frozen=True)
class Event:
    """What happened.  `type`: the wire's number; kind: of the object; state: the one it entered; word: for people."""

    type: int
    kind: str
    state: int
    word: str


EVENTS = (
    Event(
        Wire.EVENT_TYPE_PIPELINE_RUN_STATE_SUCCEEDED,
        "PipelineRun",
        pipeline_run_pb2.PIPELINE_RUN_STATE_SUCCEEDED,
        "succeeded",
    ),
    Event(
        Wire.EVENT_TYPE_PIPELINE_RUN_STATE_KILLED,
        "PipelineRun",
        pipeline_run_pb2.PIPELINE_RUN_STATE_KILLED,
        "was killed",
    ),
    Event(
        Wire.EVENT_TYPE_PIPELINE_RUN_STATE_FAILED, "PipelineRun", pipeline_run_pb2.PIPELINE_RUN_STATE_FAILED, "failed"
    ),
    Event(
        Wire.EVENT_TYPE_PIPELINE_RUN_STATE_SKIPPED,
        "PipelineRun",
        pipeline_run_pb2.PIPELINE_RUN_STATE_SKIPPED,
        "was skipped",
    ),
    Event(
        Wire.EVENT_TYPE_TRIGGER_RUN_STATE_KILLED, "TriggerRun", trigger_run_pb2.TRIGGER_RUN_STATE_KILLED, "was killed"
    ),
    Event(Wire.EVENT_TYPE_TRIGGER_RUN_STATE_FAILED, "TriggerRun", trigger_run_pb2.TRIGGER_RUN_STATE_FAILED, "failed"),
    Event(
        Wire.EVENT_TYPE_TRIGGER_RUN_STATE_SUCCEEDED,
        "TriggerRun",
        trigger_run_pb2.TRIGGER_RUN_STATE_SUCCEEDED,
        "succeeded",
    ),
    Event(Wire.EVENT_TYPE_PIPELINE_STATE_READY, "Pipeline", pipeline_pb2.PIPELINE_STATE_READY, "is ready"),
    Event(Wire.EVENT_TYPE_PIPELINE_STATE_ERROR, "Pipeline", pipeline_pb2.PIPELINE_STATE_ERROR, "cannot be built"),
)
KINDS = ("Pipeline", "PipelineRun", "TriggerRun")
# What people call them.
NOUNS: Mapping[str, str] = {"Pipeline": "Pipeline", "PipelineRun": "Run", "TriggerRun": "Trigger"}
RESOURCE_TYPES: Mapping[int, str] = {
    Wire.RESOURCE_TYPE_PIPELINE_RUN: "PipelineRun",
    Wire.RESOURCE_TYPE_TRIGGER_RUN: "TriggerRun",
    Wire.RESOURCE_TYPE_PIPELINE: "Pipeline",
}
BY_TYPE: Mapping[int, Event] = {event.type: event for event in EVENTS}
_ENTERED: Mapping[tuple[str, int], Event] = {(event.kind, event.state): event for event in EVENTS}


def event_now(resource: Resource) -> Event | None:
    """Return the event that led to where an object stands, None while it is on its way."""
    found: Any = resource
    return _ENTERED.get((found.DESCRIPTOR.name, found.status.state))


def event_of(previous: Resource | None, resource: Resource) -> Event | None:
    """Return what happened between two versions of an object, None if nothing that anybody is told.

    A run that ended, was begun again and ended the same way ended twice; a pipeline is built once for each spec.
    """
    event = event_now(resource)
    if event is None or previous is None or event_now(previous) is not event:
        return event
    old: Any = previous
    new: Any = resource
    if event.kind == "PipelineRun":
        again = old.status.HasField("end_time") and old.status.end_time != new.status.end_time
    else:
        again = event.kind == "Pipeline" and old.status.build_id != new.status.build_id
    return event if again else None
