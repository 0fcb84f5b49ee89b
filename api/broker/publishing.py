"""Publishing, for any transport: an event is stored once, whoever says it and however often.

Like `Operations`: a transport parses a PublishRequest, makes a `Call` and hands both over.  Publishing takes the right
to create an Event in the project; each call has one audit record.
"""

from __future__ import annotations

import copy
import uuid
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from api import failpoints
from api.admission import refuse
from api.asked import check_call, named_request
from api.calls import Access, Call, Everybody
from api.errors import AlreadyExists, ApiError, FieldViolation
from api.gen.michelangelo.platform.v1 import broker_service_pb2 as wire
from api.kinds import kinds
from api.outcomes import entry_of
from api.representable import faults
from api.resources import Resources
from api.store.base import Key
from api.subscriptions.values import DEFAULT_TTL, LONGEST_TTL, depth_of, event_name
from api.validation import shown

PUBLISH = "/michelangelo.platform.v1.BrokerService/Publish"
LONGEST_KEY = 500
# Where a field of an Event stands in a request.
IN_REQUEST = {"spec.expire_time": "ttl", "spec.": "", "metadata.namespace": "namespace"}
# What an event with a key is compared by when the key comes again.
TOLD = ("data", "subject", "attributes")


class Publisher:
    """Takes events in.  `access`: who may publish where."""

    def __init__(self, resources: Resources, access: Access | None = None) -> None:
        self._resources = resources
        self._access = access or Everybody()

    async def publish(self, call: Call, request: Any) -> Any:
        """Store what a PublishRequest says.  Raises `api.errors`; AlreadyExists (KEY_REUSED) for other content."""
        call = replace(call, force=False)
        key = Key("Event", request.namespace, "")
        named = named_request(call, PUBLISH, request)
        resources = self._resources.of(call, named, self._access)
        try:
            check_call(call, mutating=True)
            refuse(list(faults(request)))
            await self._access.require(call, "Create", "Event", request.namespace)
            new = self._event(call, request)
            key = Key("Event", request.namespace, new.metadata.name)
            answer = await self._stored(resources, new)
        except ApiError as error:
            await self._record(call, key, error.code, error.reason)
            raise as_asked(error) from error.__cause__
        if answer.duplicate:
            await self._record(call, key, "OK", "NO_EFFECT")
        failpoints.hit("event.after_publish")
        return answer

    def _event(self, call: Call, request: Any) -> Any:
        """Return the event that a request asks for.  Raises InvalidArgument."""
        given = request.key
        if len(given) > LONGEST_KEY:
            told = f"has {len(given)} characters, at most {LONGEST_KEY} are kept"
            refuse([FieldViolation("key", told, shown(given), "TOO_LONG")])
        # A repeat of the same call is the same event, even without a key.
        unique = given or (call.request_id if call.repeatable else str(uuid.uuid4()))
        source = request.source or call.principal.subject
        new = kinds()["Event"].new(request.namespace, event_name(request.name, source, unique))
        new.spec.name, new.spec.source, new.spec.key = request.name, source, unique
        new.spec.subject = request.subject
        new.spec.attributes.update(request.attributes)
        for field in ("data", "time", "cause"):
            if request.HasField(field):
                getattr(new.spec, field).CopyFrom(getattr(request, field))
        ttl = request.ttl.ToTimedelta() if request.HasField("ttl") else DEFAULT_TTL
        if not 0 < ttl.total_seconds() <= LONGEST_TTL.total_seconds():
            told = f"is more than nothing and at most {LONGEST_TTL.days} days ({LONGEST_TTL.total_seconds():.0f}s)"
            refuse([FieldViolation("ttl", told, reason="BAD_TTL")])
        new.spec.expire_time.GetCurrentTime()
        new.spec.expire_time.seconds += round(ttl.total_seconds())
        return new

    async def _stored(self, resources: Resources, new: Any) -> Any:
        key = Key("Event", new.metadata.namespace, new.metadata.name)
        if resources.request is not None and await resources.remembered(resources.request, "Event") is not None:
            return wire.PublishResponse(event=key.name)
        known = await resources.find(key)
        if known is None:
            run = None
            if cause := new.spec.cause.name:
                run = await resources.find(Key("PipelineRun", new.spec.cause.namespace or key.namespace, cause))
            new.spec.depth = depth_of(run)
            try:
                await resources.create(new)
                return wire.PublishResponse(event=key.name)
            except AlreadyExists:
                # Somebody published the same at the same moment; or a namesake is not ours to see.
                known = await resources.find(key)
                if known is None:
                    raise
        if any(getattr(known.spec, field) != getattr(new.spec, field) for field in TOLD):
            told = f"was published with other content, as {known.metadata.name}: give each event a key of its own"
            raise AlreadyExists(
                f"key {shown(new.spec.key)!r} of {shown(new.spec.name)!r} {told}",
                reason="KEY_REUSED",
                violations=[FieldViolation("key", told, shown(new.spec.key), "KEY_REUSED")],
            )
        return wire.PublishResponse(event=key.name, duplicate=True)

    async def _record(self, call: Call, key: Key, outcome: str, reason: str) -> None:
        if call.principal.kind != "system":
            entry = entry_of(call, "Publish", key, self._access.policy)
            await self._resources.record(replace(entry, outcome=outcome, reason=reason))


def as_asked(error: ApiError, names: Mapping[str, str] = IN_REQUEST) -> ApiError:
    """Return a refusal whose fields are named as in the request.  `names`: what replaces the beginning of a path."""
    renamed = copy.copy(error)
    violations = []
    for violation in error.violations:
        path = violation.field
        for old, new in names.items():
            if path == old or (old.endswith(".") and path.startswith(old)):
                path = new + path.removeprefix(old)
                break
        renamed.message = renamed.message.replace(f"{violation.field} ", f"{path} ")
        violations.append(replace(violation, field=path))
    renamed.violations = tuple(violations)
    return renamed
