"""From an event to a run: exactly one for each subscription and event, or set of events, that matches.

The run's name is computed from both, so that whoever tries again finds what an earlier try began.  What cannot be run,
because its parameters do not fit, is refused once, and told in the subscription's status.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from api import failpoints
from api.calls import Call, Principal
from api.errors import (
    AlreadyExists,
    ApiError,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    PermissionDenied,
    ResourceExhausted,
)
from api.kinds import kinds
from api.resources import Resources
from api.store.base import Key
from api.subscriptions.matching import alias_of, arguments, came_ns, is_single, matches, run_name, take
from api.subscriptions.values import DEPTH, EVENT, OWN, PAYLOAD, SUBSCRIPTION, as_json, fields, plain

# Who begins runs for events, in the audit log.
BROKER = Principal("system:events", kind="service")
LONGEST_MESSAGE = 1000

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Delivered:
    """What became of a set of events: the run that was begun, or why none was."""

    event: str
    run: str = ""
    message: str = ""


class Deliverer:
    """Begins runs.  Raises `api.errors` for what may be tried again: the store does not answer, another leads."""

    def __init__(self, resources: Resources) -> None:
        self._resources = resources.of(Call(principal=BROKER))

    async def deliver(self, subscription: Any, event: Any) -> Delivered | None:
        """Take an event to a subscription of its project; None if no run comes of it now.

        A subscription for several events notes it in its status, in place.
        """
        spec = subscription.spec
        if not concerns(subscription, event):
            return None
        if is_single(spec):
            return await self._begin(subscription, [event]) if matches(spec.events[0], fields(event)) else None
        names = take(spec, subscription.status, event)
        if not names:
            return None
        found = [event if name == event.metadata.name else await self._find(event, name) for name in names]
        if gone := [name for name, one in zip(names, found, strict=True) if one is None]:
            return Delivered(event.metadata.name, message=f"event {gone[0]} is no longer kept")
        return await self._begin(subscription, found)

    async def _find(self, event: Any, name: str) -> Any | None:
        return await self._resources.find(Key("Event", event.metadata.namespace, name))

    async def _begin(self, subscription: Any, events: Sequence[Any]) -> Delivered:
        event = events[-1].metadata.name if len(events) == 1 else ",".join(each.metadata.name for each in events)
        given = arguments(subscription.spec, events)
        if given.faults:
            return Delivered(event, message="; ".join(given.faults)[:LONGEST_MESSAGE])
        new = self._run(subscription, events, event)
        if given.values:
            new.spec.input.update({"kw_args": dict(given.values)})
        failpoints.hit("event.before_run")
        try:
            await self._resources.create(new)
        except AlreadyExists:
            known = await self._resources.find(Key("PipelineRun", new.metadata.namespace, new.metadata.name))
            if known is not None and known.metadata.annotations.get(EVENT) != event:
                return Delivered(event, message=f"the name {new.metadata.name} is taken by another run")
        except (InvalidArgument, NotFound, FailedPrecondition, PermissionDenied, ResourceExhausted) as error:
            if error.reason == "DISK_FULL":
                raise
            log.warning("no run for event %s: %s", event, error.message)
            return Delivered(event, message=error.message[:LONGEST_MESSAGE])
        failpoints.hit("event.after_run")
        return Delivered(event, run=new.metadata.name)

    @staticmethod
    def _run(subscription: Any, events: Sequence[Any], event: str) -> Any:
        """Return the run without its parameters; what its events told is kept in it."""
        spec, name = subscription.spec, subscription.metadata.name
        new = kinds()["PipelineRun"].new(
            subscription.metadata.namespace, run_name(subscription, [each.metadata.name for each in events])
        )
        new.spec.pipeline.CopyFrom(spec.pipeline)
        new.spec.actor.name = f"subscription/{name}"
        told = {alias_of(match): plain(each.spec.data) for match, each in zip(spec.events, events, strict=True)}
        new.spec.description = f"for {', '.join(each.spec.name for each in events)}"
        new.metadata.labels[SUBSCRIPTION] = name
        new.metadata.annotations.update(
            {
                EVENT: event,
                DEPTH: str(1 + max(each.spec.depth for each in events)),
                PAYLOAD: as_json(next(iter(told.values())) if is_single(spec) else told),
            }
        )
        return new


def concerns(subscription: Any, event: Any) -> bool:
    """Whether an event came while a subscription was there, and is taken: it may be paused now."""
    made = subscription.metadata.creationTimestamp
    happened_ns = came_ns(event)
    if event.spec.name.startswith(OWN) and event.spec.HasField("time"):
        # What the platform says may be read from its changes later than it happened.
        happened_ns = event.spec.time.ToNanoseconds()
    if subscription.spec.paused or subscription.metadata.HasField("deletionTimestamp"):
        return False
    return bool(happened_ns >= made.seconds * 1_000_000_000 + made.nanos)


def note(subscription: Any, delivered: Sequence[Delivered], revision: int) -> bool:
    """Note in a subscription's status what became of events up to a revision; whether anything is to be stored."""
    status = subscription.status
    for each in delivered:
        status.last_event, status.message = each.event, each.message
        if each.run:
            status.runs += 1
            status.last_run.namespace, status.last_run.name = subscription.metadata.namespace, each.run
        else:
            status.refused += 1
    status.position = max(status.position, revision)
    return bool(delivered)


def is_over(error: ApiError) -> bool:
    """Whether another process leads: nothing more is to be done here."""
    return error.reason == "DEPOSED"
