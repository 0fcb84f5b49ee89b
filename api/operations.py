"""The six operations of every kind, for any transport: who may, what was asked before, what is done, what is recorded.

A transport parses a request, makes a `Call` and hands both over; the answer and the errors are the same for all.  What
writes is finished once it has begun, whether or not its caller still waits: each call has one record (`docs/calls.md`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache, cached_property
from types import MappingProxyType
from typing import Any

from google.protobuf.message import Message

from api.admission import refuse
from api.asked import (
    answer_of,
    check_call,
    is_dry,
    is_foreground,
    is_orphaning,
    key_asked,
    mask_answer,
    named_request,
    resource_asked,
    skip_field,
)
from api.calls import Access, Call, Everybody
from api.errors import (
    AlreadyExists,
    ApiError,
    Conflict,
    DeadlineExceeded,
    FailedPrecondition,
    FieldViolation,
    InvalidArgument,
    NotFound,
    PermissionDenied,
    Unauthenticated,
)
from api.gen.michelangelo.api import list_pb2
from api.hooks import Event
from api.kinds import Kind, kinds
from api.listing import query_of
from api.masking import masked, masked_error
from api.outcomes import entry_of
from api.representable import faults
from api.resources import Resources
from api.store.base import LARGEST_PAGE, Key, Preconditions, Request
from api.straight import Straight

VERBS = ("Create", "Get", "Update", "Delete", "DeleteCollection", "List")
MUTATING = frozenset({"Create", "Update", "Delete", "DeleteCollection"})
DENIED = (PermissionDenied, NotFound, Unauthenticated)
LONGEST_CALL_S = 300.0

Handler = Callable[[Kind, Any, Resources], Awaitable[Message]]
Reader = Callable[[Kind, Any, Call], Awaitable[Message]]


@dataclass(frozen=True)
class Operation:
    """One RPC of one kind.  `verb`: Create, Get, Update, Delete, DeleteCollection, List."""

    kind: Kind
    verb: str

    @cached_property
    def path(self) -> str:
        """The gRPC path, such as `/michelangelo.api.v2.ProjectService/GetProject`."""
        return f"/{self.kind.service.full_name}/{self.kind.method(self.verb).name}"

    @cached_property
    def request(self) -> Any:
        """The class of its requests."""
        described: Any = self.kind.method(self.verb).input_type
        return described._concrete_class


@cache
def operations() -> Mapping[str, Operation]:
    """Return every operation by its gRPC path."""
    found = (Operation(kind, verb) for kind in kinds().values() for verb in VERBS)
    return MappingProxyType({operation.path: operation for operation in found})


class Operations:
    """Carries out operations.  `access`: who may do what."""

    def __init__(self, resources: Resources, access: Access | None = None) -> None:
        self._resources = resources
        self._access = access or Everybody()
        self.straight = Straight(resources, self._access)
        self._readers: dict[str, Reader] = {"Get": self._get, "List": self._list}
        self._writers: dict[str, Handler] = {
            "Create": self._create,
            "Update": self._update,
            "Delete": self._delete,
            "DeleteCollection": self._delete_collection,
        }
        # Held here: the loop alone would forget them.
        self._running: set[asyncio.Future[Message]] = set()

    async def call(self, call: Call, operation: Operation, request: Any) -> Message:
        """Carry out one operation.  Raises `api.errors`."""
        if operation.verb not in MUTATING and call.timeout_s is None:
            # What a read waits for has limits of its own; a timer costs a tenth of a get (14 us of CPU).
            return await self._read(call, operation, request)
        waits_s = LONGEST_CALL_S if call.timeout_s is None else min(call.timeout_s, LONGEST_CALL_S)
        try:
            async with asyncio.timeout(waits_s if waits_s >= 0 else LONGEST_CALL_S):
                if operation.verb not in MUTATING:
                    return await self._read(call, operation, request)
                task = asyncio.ensure_future(self._recorded(call, operation, request))
                self._running.add(task)
                task.add_done_callback(self._ended)
                return await asyncio.shield(task)
        except TimeoutError:
            raise DeadlineExceeded(
                "the call took longer than its caller waits: ask again; with the same x-request-id it has one effect"
            ) from None

    def _ended(self, task: asyncio.Future[Message]) -> None:
        self._running.discard(task)
        if not task.cancelled():
            # Its caller may be gone: what went wrong is in the audit log.
            task.exception()

    async def settled(self, timeout_s: float | None = None) -> None:
        """Wait for what has begun, at most so long."""
        if self._running:
            await asyncio.wait(self._running, timeout=timeout_s)

    async def refused(self, call: Call, operation: Operation, error: ApiError) -> None:
        """Record a call that its transport refused: its bytes are no message, or nobody knows who sent it."""
        if operation.verb in MUTATING or isinstance(error, DENIED):
            await self._record(call, operation.verb, Key(operation.kind.name, "", ""), error)

    async def _record(
        self, call: Call, verb: str, key: Key, error: ApiError | None = None, reason: str = "", also: int = 0
    ) -> None:
        if call.principal.kind == "system":
            return
        entry = replace(entry_of(call, verb, key, self._access.policy), reason=reason, also=also)
        if error is not None:
            entry = replace(entry, outcome=error.code, reason=getattr(error, "why", "") or error.reason)
        await self._resources.record(entry)

    async def _recorded(self, call: Call, operation: Operation, request: Any) -> Message:
        """Carry out what may write, with exactly one record of it, or one for each effect."""
        kind, key = operation.kind, key_asked(operation.kind, request)
        named = named_request(call, operation.path, request)
        resources = self._resources.of(call, named, self._access)
        try:
            answer = await self._write(call, operation, request, resources)
        except ApiError as error:
            answered = await self._answered_since(named, kind, error)
            if answered is not None:
                shows = not kind.sensitive or await self.unmasked(call, kind.name, key.namespace)
                return answer_of(kind, operation.verb, answered if shows else masked(kind, answered))
            await self._record(call, operation.verb, key, error, also=resources.outcome.effects)
            raise
        except Exception:
            await self._record(call, operation.verb, key, ApiError("internal error"))
            raise
        outcome = resources.outcome
        if outcome.replayed or (outcome.effects and operation.verb != "DeleteCollection"):
            return answer
        reason = "" if outcome.effects else "NO_EFFECT"
        if named is None:
            await self._record(call, operation.verb, key, reason=reason, also=outcome.effects)
        else:
            left = outcome.answer if outcome.answer is not None else kind.message()
            entry = entry_of(call, operation.verb, key, self._access.policy)
            entry = replace(entry, reason=reason, also=outcome.effects)
            await self._resources.record(entry, named, left)
        return answer

    async def _answered_since(self, named: Request | None, kind: Kind, error: ApiError) -> Any | None:
        """Return the answer of the same request that was sent twice at a time, if the other one is why this failed."""
        if named is None or error.reason == "REQUEST_ID_REUSED":
            return None
        if not isinstance(error, Conflict | AlreadyExists | NotFound):
            return None
        return await self._resources.remembered(named, kind.name)

    async def _read(self, call: Call, operation: Operation, request: Any) -> Message:
        kind, verb = operation.kind, operation.verb
        key = key_asked(kind, request)
        _check(call, operation, request)
        try:
            await self._access.require(call, verb, kind.name, key.namespace, key.name)
        except DENIED as error:
            await self._record(call, verb, key, error)
            raise
        shows = not kind.sensitive or await self.unmasked(call, kind.name, key.namespace)
        hooks = self._resources.hooks
        try:
            if hooks.all:
                await hooks.before(Event(f"before_{verb.lower()}", call, kind.name, key.namespace, key.name))
            answer = await self._readers[verb](kind, request, call)
        except ApiError as error:
            raise masked_error(kind, error) from error.__cause__
        if not shows:
            mask_answer(kind, verb, answer)
        elif kind.sensitive:
            await self._record(call, verb, key, reason="UNMASKED")
        if hooks.all:
            found = getattr(answer, answer.DESCRIPTOR.fields[0].name)
            hooks.after_read(Event(f"after_{verb.lower()}", call, kind.name, key.namespace, key.name, new=found))
        return answer

    async def _write(self, call: Call, operation: Operation, request: Any, resources: Resources) -> Message:
        kind, verb = operation.kind, operation.verb
        key = key_asked(kind, request)
        _check(call, operation, request)
        await self._access.require(call, verb, kind.name, key.namespace, key.name)
        shows = not kind.sensitive or await self.unmasked(call, kind.name, key.namespace)
        try:
            named = resources.request
            if named is not None:
                answered = await resources.remembered(named, kind.name)
                if answered is not None:
                    resources.outcome.replayed = True
                    return answer_of(kind, verb, answered if shows else masked(kind, answered))
            answer = await self._writers[verb](kind, request, resources)
        except ApiError as error:
            raise masked_error(kind, error) from error.__cause__
        if not shows:
            mask_answer(kind, verb, answer)
        return answer

    async def unmasked(self, call: Call, kind: str, namespace: str) -> bool:
        """Whether the caller sees the sensitive fields of a kind."""
        try:
            await self._access.require(call, "Unmask", kind, namespace)
        except DENIED:
            return False
        return True

    async def _create(self, kind: Kind, request: Any, resources: Resources) -> Message:
        resource = resource_asked(kind, request)
        return answer_of(
            kind,
            "Create",
            await resources.create(resource, dry_run=is_dry(request.create_options, "create_options")),
        )

    async def _get(self, kind: Kind, request: Any, _: Call) -> Message:
        return answer_of(kind, "Get", await self._resources.get(kind.name, request.namespace, request.name))

    async def _update(self, kind: Kind, request: Any, resources: Resources) -> Message:
        resource = resource_asked(kind, request)
        return answer_of(
            kind,
            "Update",
            await resources.update(resource, dry_run=is_dry(request.update_options, "update_options")),
        )

    async def _delete(self, kind: Kind, request: Any, resources: Resources) -> Message:
        options = request.delete_options
        await resources.delete(
            kind.name,
            request.namespace,
            request.name,
            preconditions=Preconditions(options.preconditions.uid, options.preconditions.resourceVersion),
            orphan=is_orphaning(options),
            foreground=is_foreground(options),
            dry_run=is_dry(options, "delete_options"),
        )
        return answer_of(kind, "Delete")

    async def _delete_collection(self, kind: Kind, request: Any, resources: Resources) -> Message:
        if not request.namespace:
            told = "is required: a collection is deleted one project at a time"
            refuse([FieldViolation("namespace", told)], "MISSING_FIELD")
        orphan, dry = is_orphaning(request.delete_options), is_dry(request.delete_options, "delete_options")
        foreground = is_foreground(request.delete_options)
        query = query_of(kind, request.namespace, request.list_options, list_pb2.ListOptionsExt())
        if not request.list_options.limit:
            query = replace(query, limit=0)
        used: list[FailedPrecondition] = []
        for item in (await resources.list(kind.name, query)).items:
            try:
                await resources.delete(
                    kind.name,
                    item.metadata.namespace,
                    item.metadata.name,
                    preconditions=Preconditions(uid=item.metadata.uid),
                    orphan=orphan,
                    foreground=foreground,
                    dry_run=dry,
                    part=True,
                )
            except (NotFound, Conflict):
                # What is gone by now was deleted by another call, or with its owner.
                continue
            except FailedPrecondition as error:
                used.append(error)
        if used:
            told = f"{len(used)} were not deleted, all others were: {'; '.join(error.message for error in used[:5])}"
            violations = [violation for error in used for violation in error.violations]
            raise FailedPrecondition(told, reason=used[0].reason, violations=violations)
        return answer_of(kind, "DeleteCollection")

    async def _list(self, kind: Kind, request: Any, call: Call) -> Message:
        query = query_of(kind, request.namespace, request.list_options, request.list_options_ext)
        seen = None if query.namespace else await self._access.visible(call, "List", kind.name)
        query = replace(query, principal=call.principal.subject, namespaces=seen)
        page = await self._resources.list(kind.name, query)
        response = answer_of(kind, "List")
        listing = getattr(response, response.DESCRIPTOR.fields[0].name)
        listing.type_meta.kind = kind.list_message.DESCRIPTOR.name
        listing.type_meta.apiVersion = kind.group_version
        listing.metadata.resourceVersion = str(page.revision)
        setattr(listing.metadata, "continue", page.next)
        if page.remaining is not None and query.limit < LARGEST_PAGE:
            listing.metadata.remainingItemCount = page.remaining
        listing.items.extend(page.items)
        for path in request.list_options_ext.returned_field_skip_list:
            for item in listing.items:
                skip_field(item, path)
        return response


def _check(call: Call, operation: Operation, request: Any) -> None:
    """Refuse what can be seen of a call before anything is looked up.  Raises InvalidArgument."""
    kind = operation.kind
    check_call(call, mutating=operation.verb in MUTATING)
    try:
        # Fields are named as in the object, not as in the request around it.
        refuse([replace(v, field=v.field.removeprefix(f"{kind.singular}.")) for v in faults(request)])
    except InvalidArgument as error:
        raise masked_error(kind, error) from None
