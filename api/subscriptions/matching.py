"""What a subscription asks for: which events match, when a set of them is complete, what its run is given.  Pure.

All of it is decided from what is stored and from the times at which events came: whoever decides again, after a crash,
decides the same.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from api.gen.michelangelo.platform.v1 import subscription_pb2 as wire
from api.subscriptions.values import MISSING, as_json, fields, look_up, plain, slug

MOST_WAITING = 200
DIGITS = 20
LONGEST_NAME = 60


def came_ns(event: Any) -> int:
    """Return when an event came, by the server's clock: nanoseconds since 1970."""
    created = event.metadata.creationTimestamp
    return int(created.seconds * 1_000_000_000 + created.nanos)


def alias_of(match: Any) -> str:
    """Return what parameters call an event."""
    return str(match.alias or match.name)


def named(pattern: str, text: str) -> bool:
    """Whether a name or source is meant: the same, or one that begins as `prefix*` says."""
    return text.startswith(pattern[:-1]) if pattern.endswith("*") else text == pattern


def matches(match: Any, found: Mapping[str, Any]) -> bool:
    """Whether an event, as JSON values, is one that is waited for."""
    if not named(match.name, found["name"]) or (match.source and not named(match.source, found["source"])):
        return False
    return all(holds(condition, look_up(found, condition.path)) for condition in match.conditions)


def holds(condition: Any, value: Any) -> bool:
    """Whether a comparison holds of a field's value, which may be MISSING."""
    operator = condition.operator or wire.EVENT_OPERATOR_EQUAL
    given = [plain(item) for item in condition.values]
    absent = value is MISSING or value is None
    match operator:
        case wire.EVENT_OPERATOR_EXISTS:
            return not absent
        case wire.EVENT_OPERATOR_ABSENT:
            return absent
        case wire.EVENT_OPERATOR_EQUAL | wire.EVENT_OPERATOR_IN:
            return value is not MISSING and any(_same(value, item) for item in given)
        case wire.EVENT_OPERATOR_NOT_EQUAL | wire.EVENT_OPERATOR_NOT_IN:
            return value is MISSING or not any(_same(value, item) for item in given)
        case wire.EVENT_OPERATOR_PREFIX:
            return isinstance(value, str) and isinstance(given[0], str) and value.startswith(given[0])
        case wire.EVENT_OPERATOR_CONTAINS:
            if isinstance(value, list):
                return any(_same(item, given[0]) for item in value)
            return isinstance(value, str) and isinstance(given[0], str) and given[0] in value
    return _ordered(operator, value, given[0])


def _same(one: Any, other: Any) -> bool:
    # True is no 1 in JSON.
    return isinstance(one, bool) == isinstance(other, bool) and bool(one == other)


def _ordered(operator: int, value: Any, limit: Any) -> bool:
    numbers = all(isinstance(item, int | float) and not isinstance(item, bool) for item in (value, limit))
    if not numbers and not (isinstance(value, str) and isinstance(limit, str)):
        return False
    match operator:
        case wire.EVENT_OPERATOR_GREATER_THAN:
            return bool(value > limit)
        case wire.EVENT_OPERATOR_GREATER_THAN_OR_EQUAL_TO:
            return bool(value >= limit)
        case wire.EVENT_OPERATOR_LESS_THAN:
            return bool(value < limit)
    return bool(value <= limit)


def is_single(spec: Any) -> bool:
    """Whether one event is enough."""
    return len(spec.events) == 1


def take(spec: Any, status: Any, event: Any) -> tuple[str, ...]:
    """Put an event among those that wait, in place, and return the names of a set that is complete by it.

    In the set stands one event for each of `spec.events`, in their order, the oldest that came within the time; they no
    longer wait.  Empty when one is missing still, or when the event is not waited for.
    """
    found = fields(event)
    able = [position for position, match in enumerate(spec.events) if matches(match, found)]
    if not able:
        return ()
    value = look_up(found, spec.correlate) if spec.correlate else None
    correlation = "" if value is None or value is MISSING else as_json(value)
    if spec.correlate and not correlation:
        return ()
    now_ns = came_ns(event)
    since_ns = now_ns - spec.within.ToNanoseconds()
    waiting = [one for one in status.waiting if one.time.ToNanoseconds() >= since_ns]
    held = {one.position for one in waiting if one.correlation == correlation}
    position = next((each for each in able if each not in held), able[0])
    newest = wire.WaitingEvent(position=position, event=event.metadata.name, correlation=correlation)
    newest.time.FromNanoseconds(now_ns)
    waiting.append(newest)
    chosen: dict[int, Any] = {}
    for one in waiting:
        if one.correlation == correlation:
            chosen.setdefault(one.position, one)
    complete = len(chosen) == len(spec.events)
    if complete:
        waiting = [one for one in waiting if not any(one is used for used in chosen.values())]
    del status.waiting[:]
    status.waiting.extend(waiting[-MOST_WAITING:])
    return tuple(chosen[each].event for each in range(len(spec.events))) if complete else ()


def run_name(subscription: Any, events: Sequence[str]) -> str:
    """Return what the run is called that a subscription begins for a set of events: the same whoever computes it."""
    digest = hashlib.sha256("/".join((subscription.metadata.uid, *events)).encode()).hexdigest()[:DIGITS]
    return f"{slug(subscription.metadata.name)[:LONGEST_NAME].rstrip('-')}-{digest}"


@dataclass(frozen=True)
class Arguments:
    """Parameters of a run, and what could not be found in its events."""

    values: Mapping[str, Any]
    faults: Sequence[str] = ()


def arguments(spec: Any, events: Sequence[Any]) -> Arguments:
    """Return what a run is given.  `events`: one for each of `spec.events`, in their order."""
    by_alias = {alias_of(match): fields(event) for match, event in zip(spec.events, events, strict=True)}
    first = alias_of(spec.events[0])
    values: dict[str, Any] = {}
    faults = []
    for name, source in sorted(spec.parameters.items()):
        if source.WhichOneof("from") == "value":
            values[name] = plain(source.value)
            continue
        found = look_up(by_alias[source.event or first], source.path)
        if found is MISSING and source.HasField("default"):
            found = plain(source.default)
        if found is MISSING:
            faults.append(f"parameter {name} comes from {source.path}, which event {source.event or first} lacks")
        else:
            values[name] = found
    return Arguments(values, faults)
