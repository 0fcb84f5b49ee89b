"""What an event and a subscription must be: sizes, names, paths, parameters that fit, no circle.  Writes nothing."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from typing import Any

from api.errors import FailedPrecondition, FieldViolation, ResourceExhausted
from api.gen.michelangelo.api import typed_struct_pb2
from api.gen.michelangelo.api.v2 import pipeline_pb2
from api.gen.michelangelo.platform.v1 import subscription_pb2 as wire
from api.kinds import Resource
from api.messages import free
from api.resources import Resources
from api.store.base import Key, Query
from api.subscriptions.cycles import circle
from api.subscriptions.matching import alias_of
from api.subscriptions.values import (
    DEEPEST,
    LARGEST_DATA,
    LONGEST_TTL,
    OWN,
    depth_of,
    event_name,
    path_faults,
    plain,
    size,
)
from api.validation import nearest, shown
from api.workflows import HIDDEN_PARAM, is_built, missing_params, param_faults
from api.workflows import plain as plain_struct

LONGEST_WINDOW = timedelta(days=7)
# Clocks of a publisher's request and of this check differ by how long it took.
TTL_SLACK = timedelta(minutes=1)
# On a pipeline that nothing is to begin, as `trigger_checks` has it.
PAUSED = "michelangelo.airflow/paused"
NO_VALUE = (wire.EVENT_OPERATOR_EXISTS, wire.EVENT_OPERATOR_ABSENT)
SEVERAL = (wire.EVENT_OPERATOR_IN, wire.EVENT_OPERATOR_NOT_IN)
Found = Sequence[FieldViolation]


async def admit_event(resources: Resources, old: Resource | None, new: Any) -> Found:
    """A payload that is small, a name that is free, the depth that its cause gives it."""
    if old is not None:
        return []
    spec, found = new.spec, list[FieldViolation]()
    told = f"has {size(spec.data)} bytes as JSON, at most {LARGEST_DATA} are kept: store it and publish where it lies"
    if size(spec.data) > LARGEST_DATA:
        raise ResourceExhausted(
            f"spec.data {told}", reason="TOO_LARGE", violations=[FieldViolation("spec.data", told, reason="TOO_LARGE")]
        )
    if free.depth(spec.data) > free.DEEPEST:
        found.append(FieldViolation("spec.data", f"is nested deeper than {free.DEEPEST} levels", reason="TOO_DEEP"))
    if spec.name.startswith(OWN) and resources.call.principal.kind != "system":
        told = f"begins with {OWN}, as only what the platform itself says does: choose another"
        found.append(FieldViolation("spec.name", told, shown(spec.name), "RESERVED_NAME"))
    own = event_name(spec.name, spec.source, spec.key)
    if spec.key and new.metadata.name != own:
        told = f"of an event with this name, source and key is {own!r}"
        found.append(FieldViolation("metadata.name", told, shown(new.metadata.name), "BAD_NAME"))
    if spec.HasField("expire_time"):
        found += _expiry_faults(new)
    return [*found, *await _depth_faults(resources, new)]


def _expiry_faults(new: Any) -> Iterator[FieldViolation]:
    left_s = new.spec.expire_time.seconds - time.time()
    if not 0 < left_s <= (LONGEST_TTL + TTL_SLACK).total_seconds():
        yield FieldViolation("spec.expire_time", f"lies ahead, at most {LONGEST_TTL.days} days", reason="BAD_TTL")


async def _depth_faults(resources: Resources, new: Any) -> Found:
    cause = new.spec.cause
    run = None
    if cause.name:
        run = await resources.find(Key("PipelineRun", cause.namespace or new.metadata.namespace, cause.name))
    due = depth_of(run)
    if due >= DEEPEST:
        told = f"was led to by {due} runs that events began one after the other: a chain ends at {DEEPEST}"
        raise FailedPrecondition(
            f"spec.cause {told}; look for a circle in what is published and subscribed to",
            reason="TRIGGER_CYCLE",
            violations=[FieldViolation("spec.cause", told, shown(cause.name), "TRIGGER_CYCLE")],
        )
    if new.spec.depth == due:
        return []
    return [FieldViolation("spec.depth", f"is {due}, as its cause has it", str(new.spec.depth), "BAD_DEPTH")]


async def admit_subscription(resources: Resources, old: Resource | None, new: Any) -> Found:
    """Events that can come, parameters that fit, no circle."""
    spec = new.spec
    if old is not None and old.spec == spec:
        return []
    found = [*_window_faults(spec), *_match_faults(spec), *_parameter_faults(spec)]
    if not spec.pipeline.name:
        return [*found, FieldViolation("spec.pipeline.name", "is required")]
    if found:
        return found
    key = Key("Pipeline", spec.pipeline.namespace or new.metadata.namespace, spec.pipeline.name)
    pipeline = await resources.find(key)
    # That it is missing, admission says of every reference.
    if pipeline is not None:
        if old is None:
            _refuse_unusable(pipeline)
        found += _value_faults(pipeline, spec)
    others = (await resources.list("Subscription", Query(namespace=new.metadata.namespace))).items
    way = circle(new, [each for each in others if each.metadata.name != new.metadata.name])
    if way:
        told = f"closes a circle, {' → '.join(way)}: its runs would begin themselves again for ever"
        out = "wait for one source or name less, or publish an event of your own where the circle is to go on"
        found.append(FieldViolation("spec.events", f"{told}; {out}", reason="TRIGGER_CYCLE"))
    return found


def _window_faults(spec: Any) -> Iterator[FieldViolation]:
    several, given = len(spec.events) > 1, spec.HasField("within")
    if several and not given:
        yield FieldViolation("spec.within", "is required for several events: within how long must all come?")
    if not several and (given or spec.correlate):
        field = "within" if given else "correlate"
        yield FieldViolation(f"spec.{field}", "says something of several events, and there is one")
    if given and not timedelta() < spec.within.ToTimedelta() <= LONGEST_WINDOW:
        yield FieldViolation("spec.within", f"is more than nothing and at most {LONGEST_WINDOW.days} days (604800s)")
    if spec.correlate:
        yield from path_faults(spec.correlate, "spec.correlate")


def _match_faults(spec: Any) -> Iterator[FieldViolation]:
    seen: set[str] = set()
    for position, match in enumerate(spec.events):
        path = f"spec.events[{position}]"
        for field, text in (("name", match.name), ("source", match.source)):
            if "*" in text[:-1]:
                yield FieldViolation(f"{path}.{field}", "has a * at its end alone", shown(text))
        if alias_of(match) in seen:
            told = "is that of another event: give each its own alias"
            yield FieldViolation(f"{path}.alias", told, shown(alias_of(match)))
        seen.add(alias_of(match))
        for number, condition in enumerate(match.conditions):
            yield from _condition_faults(condition, f"{path}.conditions[{number}]")


def _condition_faults(condition: Any, path: str) -> Iterator[FieldViolation]:
    yield from path_faults(condition.path, f"{path}.path")
    count = len(condition.values)
    if condition.operator in NO_VALUE:
        wrong, told = count > 0, "is empty: EXISTS and ABSENT compare with nothing"
    elif condition.operator in SEVERAL:
        wrong, told = count == 0, "has at least one value"
    else:
        wrong, told = count != 1, "has one value; IN and NOT_IN take several"
    if wrong:
        yield FieldViolation(f"{path}.values", told)


def _parameter_faults(spec: Any) -> Iterator[FieldViolation]:
    aliases = [alias_of(match) for match in spec.events]
    for name, source in spec.parameters.items():
        path = f"spec.parameters[{shown(name)}]"
        if source.WhichOneof("from") is None:
            yield FieldViolation(path, "has a path, such as data.day, or a value")
        elif source.WhichOneof("from") == "path":
            yield from path_faults(source.path, f"{path}.path")
        if source.event and source.event not in aliases:
            told = f"is none of spec.events: {', '.join(aliases)}{nearest(source.event, aliases)}"
            yield FieldViolation(f"{path}.event", told, shown(source.event))


def _refuse_unusable(pipeline: Any) -> None:
    """Raise FailedPrecondition for a pipeline that cannot run, or is not to, as for a trigger."""
    name = pipeline.metadata.name
    if pipeline.metadata.annotations.get(PAUSED, "") == "true":
        raise FailedPrecondition(
            f"Pipeline {name!r} is paused: remove its annotation {PAUSED}", reason="PIPELINE_PAUSED"
        )
    if pipeline.status.state == pipeline_pb2.PIPELINE_STATE_ERROR and is_built(pipeline):
        raise FailedPrecondition(
            f"Pipeline {name!r} cannot run: {pipeline.status.error_message}", reason="PIPELINE_ERROR"
        )


def _value_faults(pipeline: Any, spec: Any) -> Found:
    """Check what is known of the parameters before any event came."""
    registered = typed_struct_pb2.TypedStruct()
    if not is_built(pipeline) or not pipeline.status.registered_workflow.Unpack(registered):
        return []
    workflow: Mapping[str, Any] = plain_struct(registered.value)
    schemas, configured = workflow.get("params_schema") or {}, workflow.get("params") or {}
    path, fixed, found = "spec.parameters", {}, list[FieldViolation]()
    known = [name for name in schemas if name != HIDDEN_PARAM]
    for name, source in spec.parameters.items():
        if source.WhichOneof("from") == "value":
            fixed[name] = plain(source.value)
        elif name not in known:
            told = f"is no parameter of this pipeline{nearest(name, known)}"
            found.append(FieldViolation(f"{path}[{shown(name)}]", told, shown(name)))
    found += param_faults(schemas, fixed, path)
    values = {name: schema["default"] for name, schema in schemas.items() if "default" in schema}
    left = {name: schema for name, schema in schemas.items() if name not in spec.parameters}
    return [*found, *missing_params(left, {**values, **configured}, path)]
