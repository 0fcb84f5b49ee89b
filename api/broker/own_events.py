"""What the platform itself says happened, read from its changes: a run ended, a model was registered, a dataset made.

An event is made only where a subscription waits for it: a project without subscriptions has none.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from api.gen.michelangelo.api.v2 import pipeline_run_pb2 as runs
from api.kinds import kinds
from api.messages.free import fill
from api.store.base import Change, ChangeType
from api.subscriptions.cycles import DATASET, ENDS, MODEL, source_of
from api.subscriptions.values import as_json, event_name
from api.workflows import plain

# What is told of a run's parameters and outputs, as JSON; what has more is read from the run.
LARGEST_PART = 16 * 1024
LONGEST_ERROR = 1000
LONGEST_SUBJECT = 500
DATASET_URI = "dataset_uri"
STATE_PREFIX = "PIPELINE_RUN_STATE_"


def said(change: Change) -> Iterator[Any]:
    """Yield the events that a change means, not stored yet."""
    if change.key.kind == "PipelineRun" and change.type is ChangeType.MODIFIED:
        yield from _of_run(change.resource, change.previous)
    elif change.key.kind == "Model" and change.type is ChangeType.ADDED:
        yield _of_model(change.resource)


def _of_run(run: Any, before: Any | None) -> Iterator[Any]:
    known = dict(_datasets(before.status.steps)) if before is not None else {}
    for step, uri in _datasets(run.status.steps):
        if known.get(step) != uri:
            data = {"uri": uri, "step": step, "run": run.metadata.name, "pipeline": run.spec.pipeline.name}
            yield _event(run, DATASET, f"{run.metadata.uid}/{step}/{uri}", uri, data)
    if _end(run) and (before is None or _end(run) != _end(before)):
        yield _event(run, ENDS[state_of(run)], f"{run.metadata.uid}/{_end(run)}", run.metadata.name, _told(run))


def state_of(run: Any) -> str:
    """Return a run's state as people write it."""
    return runs.PipelineRunState.Name(run.status.state).removeprefix(STATE_PREFIX)


def _end(run: Any) -> str:
    """Return how and when a run ended, empty if it has not."""
    state = state_of(run)
    return f"{state} {run.status.end_time.ToJsonString()}" if state in ENDS and run.status.HasField("end_time") else ""


def _told(run: Any) -> dict[str, Any]:
    told = {
        "run": run.metadata.name,
        "pipeline": run.spec.pipeline.name,
        "state": state_of(run),
        "error": run.status.error_message[:LONGEST_ERROR],
    }
    given = run.spec.input.fields
    parameters = plain(given["kw_args"].struct_value) if "kw_args" in given else {}
    outputs = {step.name: plain(step.output) for step in run.status.steps if step.HasField("output")}
    for name, part in (("parameters", parameters), ("outputs", outputs)):
        if len(as_json(part).encode()) <= LARGEST_PART:
            told[name] = part
    return told


def _datasets(steps: Any) -> Iterator[tuple[str, str]]:
    for step in steps:
        uri = step.output.fields[DATASET_URI].string_value if DATASET_URI in step.output.fields else ""
        if uri and step.state == runs.PIPELINE_RUN_STEP_STATE_SUCCEEDED:
            yield step.name, uri
        yield from _datasets(step.sub_steps)


def _event(run: Any, name: str, key: str, subject: str, data: dict[str, Any]) -> Any:
    namespace, pipeline = run.metadata.namespace, run.spec.pipeline
    new = _new(namespace, name, source_of(namespace, pipeline.namespace, pipeline.name), key)
    new.spec.subject = subject[:LONGEST_SUBJECT]
    fill(new.spec.data, data)
    new.spec.cause.name = run.metadata.name
    if name in ENDS.values():
        new.spec.time.CopyFrom(run.status.end_time)
    else:
        new.spec.time.GetCurrentTime()
    return new


def _of_model(model: Any) -> Any:
    spec, name = model.spec, model.metadata.name
    new = _new(model.metadata.namespace, MODEL, f"models/{spec.model_family.name or name}", model.metadata.uid)
    new.spec.subject = name
    run = spec.source_pipeline_run
    data = {"model": name, "family": spec.model_family.name, "algorithm": spec.algorithm, "run": run.name}
    fill(new.spec.data, data)
    if run.name and run.namespace in ("", model.metadata.namespace):
        new.spec.cause.name = run.name
    new.spec.time.seconds = model.metadata.creationTimestamp.seconds
    new.spec.time.nanos = model.metadata.creationTimestamp.nanos
    return new


def _new(namespace: str, name: str, source: str, key: str) -> Any:
    new = kinds()["Event"].new(namespace, event_name(name, source[:LONGEST_SUBJECT], key[:LONGEST_SUBJECT]))
    new.spec.name, new.spec.source, new.spec.key = name, source[:LONGEST_SUBJECT], key[:LONGEST_SUBJECT]
    return new
