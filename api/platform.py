"""What concerns resources of every kind at once, for any transport: watch, search, apply, plan.

Like `Operations`: a transport parses a message of michelangelo.platform.v1, makes a `Call` and hands both over.
Who may, what is recorded and how it is refused is the same for all.
"""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from google.protobuf.message import Message

from api import server_fields
from api.admission import check_version, refuse
from api.apply import Terms, apply, declared
from api.asked import check_call, named_request
from api.broker.publishing import Publisher
from api.calls import Access, Call, Everybody
from api.criteria import bad_filter
from api.errors import ApiError, Expired, FieldViolation, NotFound, PermissionDenied, Unauthenticated
from api.gen.michelangelo.platform.v1 import resource_service_pb2 as wire
from api.hub import Hub
from api.kinds import Kind, kinds
from api.listing import parse_fields, parse_selector
from api.masking import masked, masked_error
from api.outcomes import entry_of
from api.plans.effects import Schemas
from api.plans.planner import Planner, given, terms_of
from api.representable import faults
from api.resources import Resources
from api.search import search
from api.selection import Selection
from api.store.base import Key, Request
from api.store.values import key_of
from api.validation import nearest, shown
from api.watch import Watch
from api.workflows import Workflow

DENIED = (PermissionDenied, NotFound, Unauthenticated)
MOST_NAMESPACES = 1000
# How long a watch shows what its caller may no longer see.
RECHECK_S = 30.0
APPLY = "/michelangelo.platform.v1.ResourceService/Apply"
LONGEST_WATCH_S = 3600.0

Scopes = Mapping[str, frozenset[str] | None]


async def no_schemas(workflow: Workflow) -> Mapping[str, Any]:
    """Know no template: values of parameters are not checked, as where nothing controls."""
    return {name: {} for name in workflow.params}


class Platform:
    """Watch, search, apply and plan.  `access`: who may do what.

    publisher: takes events in by the same rights; schemas: of the parameters of a pipeline.
    """

    def __init__(
        self, resources: Resources, hub: Hub, access: Access | None = None, schemas: Schemas = no_schemas
    ) -> None:
        self._resources = resources
        self._schemas = schemas
        self._hub = hub
        self._access = access or Everybody()
        self.publisher = Publisher(resources, access)

    async def close(self) -> None:
        """End all watches."""
        await self._hub.close()

    async def watch(self, call: Call, request: Any) -> Watch:
        """Open the watch that a WatchRequest asks for; it must be closed.  Raises what `Hub.watch` raises.

        It ends when its caller may see more or less than at its beginning, and after an hour.
        """
        check_call(call, mutating=False)
        refuse(list(faults(request)))
        check_version(request.resource_version, "resource_version")
        wanted = known_kinds(request.kinds)
        labels = parse_selector(request.label_selector, "label_selector")
        fields = {kind.name: parse_fields(kind, request.field_selector, "field_selector") for kind in wanted}
        scopes = await self.scopes(call, "Watch", request)
        watch = await self._hub.watch(
            Selection.of(scopes, labels, {kind: group for kind, group in fields.items() if group is not None}),
            int(request.resource_version) if request.resource_version else None,
            bookmarks=request.allow_bookmarks,
            principal=call.principal.subject,
        )
        recheck = asyncio.create_task(self._recheck(call, request, scopes, watch))
        watch.on_close(recheck.cancel)
        too_long = partial(watch.stop, "a watch lasts an hour at most", "WATCH_ENDED")
        watch.on_close(asyncio.get_running_loop().call_later(LONGEST_WATCH_S, too_long).cancel)
        return watch

    async def search(self, call: Call, request: Any) -> Message:
        """Find what a SearchRequest asks for, in what its caller may list."""
        check_call(call, mutating=False)
        refuse(list(faults(request)))
        scopes = await self.scopes(call, "List", request)
        return await search(self._resources, request, scopes, call.principal.subject)

    async def apply(self, call: Call, request: Any) -> Message:
        """Declare what an ApplyRequest holds, for a caller who may create and update.  Raises what `apply` raises."""
        # A forced apply takes fields over; it does not write over what it has not read.
        call = replace(call, force=False)
        key = Key(request.object.TypeName().rsplit(".", 1)[-1], "", "")
        named = named_request(call, APPLY, request)
        resources = self._resources.of(call, None if request.dry_run else named, self._access)
        try:
            check_call(call, mutating=True)
            # Fields are named as in the object, not as in the request around it.
            refuse([replace(fault, field=fault.field.removeprefix("object.")) for fault in faults(request)])
            resource = declared(request)
            key = key_of(resource)
            for verb in ("Update", "Create"):
                await self._access.require(call, verb, key.kind, key.namespace, key.name)
            stored, outcome = await self._applied(resources, resource, request)
        except ApiError as error:
            await self._record(call, key, error.code, error.reason)
            raise masked_error(kinds()[key.kind], error) if key.kind in kinds() else error from error.__cause__
        if not resources.outcome.effects and not resources.outcome.replayed:
            await self._record(call, key, "OK", "NO_EFFECT", resources.request, stored)
        kind = kinds()[key.kind]
        answer = wire.ApplyResponse(outcome=wire.ApplyResponse.Outcome.Value(outcome))
        answer.object.Pack(stored if await self._unmasked(call, kind, key) else masked(kind, copy.deepcopy(stored)))
        return answer

    async def plan(self, call: Call, request: Any) -> Message:
        """Tell what an apply of a PlanRequest's resources would change, to a caller who may do it."""
        # A plan is for what was read, as the apply is.
        call = replace(call, force=False)
        check_call(call, mutating=False)
        refuse(list(faults(request)))
        objects, terms = given(request), terms_of(request)
        for resource in objects:
            key = key_of(resource)
            for verb in ("Update", "Create"):
                await self.require(call, verb, key)
        visible = await self._access.visible(call, "List", "TriggerRun")
        resources = self._resources.of(call, None, self._access)
        return await Planner(resources, self._schemas, visible).plan(objects, terms)

    async def _applied(self, resources: Resources, resource: Any, request: Any) -> tuple[Any, str]:
        if resources.request is not None:
            answered = await resources.remembered(resources.request, resource.DESCRIPTOR.name)
            if answered is not None:
                resources.outcome.replayed = True
                return answered, "CREATED" if server_fields.is_new(answered) else "CONFIGURED"
        base = request.base if request.HasField("base") else None
        terms = Terms(request.field_manager, request.force, request.replace, base, request.dry_run)
        return await apply(resources, resource, terms)

    async def _record(
        self, call: Call, key: Key, outcome: str, reason: str, named: Request | None = None, answer: Any | None = None
    ) -> None:
        if call.principal.kind != "system" or named is not None:
            entry = replace(entry_of(call, "Apply", key, self._access.policy), outcome=outcome, reason=reason)
            await self._resources.record(entry, named, answer)

    async def _unmasked(self, call: Call, kind: Kind, key: Key) -> bool:
        try:
            await self._access.require(call, "Unmask", kind.name, key.namespace)
        except DENIED:
            return False
        return True

    async def _recheck(self, call: Call, request: Any, scopes: Scopes, watch: Watch) -> None:
        """End a watch whose caller may see something else than it did."""
        while True:
            await asyncio.sleep(RECHECK_S)
            try:
                now = await self.scopes(call, "Watch", request)
            except DENIED as error:
                watch.end(error)
                return
            except ApiError:
                continue
            if now != scopes:
                watch.end(
                    Expired("what you may see has changed: list again and watch from there", reason="VIEW_CHANGED")
                )
                return

    async def scopes(self, call: Call, verb: str, request: Any) -> Scopes:
        """Return the namespaces of each kind that a request selects and its caller may see, None for all.

        What is named must be allowed; what is not named is narrowed to what is.  Raises PermissionDenied, NotFound.
        """
        if len(request.namespaces) > MOST_NAMESPACES:
            told = f"has {len(request.namespaces)} entries, at most {MOST_NAMESPACES} are allowed"
            raise bad_filter("namespaces", told)
        wanted, named = known_kinds(request.kinds), frozenset(request.namespaces)
        found: dict[str, frozenset[str] | None] = {}
        for kind in wanted:
            visible = await self._access.visible(call, verb, kind.name)
            if named and request.kinds:
                for namespace in sorted(named - (named if visible is None else visible)):
                    await self.require(call, verb, Key(kind.name, namespace, ""))
                found[kind.name] = named
            elif named:
                found[kind.name] = named if visible is None else visible & named
            else:
                found[kind.name] = visible
        if all(namespaces is not None and not namespaces for namespaces in found.values()):
            # Nothing is to be seen: whether that is a refusal, access says.
            await self.require(call, verb, Key(wanted[0].name, min(named, default=""), ""))
        return found

    async def require(self, call: Call, verb: str, key: Key) -> None:
        """Return if the caller may; a refusal is recorded.  Raises PermissionDenied, NotFound, Unauthenticated."""
        try:
            await self._access.require(call, verb, key.kind, key.namespace, key.name)
        except DENIED as error:
            entry = entry_of(call, verb, key, self._access.policy)
            await self._resources.record(replace(entry, outcome=error.code, reason=error.reason))
            raise


def known_kinds(names: Sequence[str]) -> list[Kind]:
    """Return the kinds of some names, all kinds for none.  Raises InvalidArgument for a name that is none."""
    found = [
        FieldViolation(f"kinds[{position}]", f"{shown(name)!r} is no kind{nearest(name, kinds())}", shown(name))
        for position, name in enumerate(names)
        if name not in kinds()
    ]
    refuse(found, "UNKNOWN_KIND")
    return [kinds()[name] for name in dict.fromkeys(names)] if names else list(kinds().values())
