"""The six operations of every kind, for any transport: who may, what was asked before, what is done, what is recorded.

A transport parses a request, makes a `Call` and hands both over; the answer and the errors are the same for all.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from types import MappingProxyType
from typing import Any

from google.protobuf.message import Message

from api.admission import refuse
from api.calls import Access, Call, Everybody
from api.errors import Conflict, FieldViolation, InvalidArgument, NotFound, PermissionDenied, Unauthenticated
from api.kinds import Kind, kinds
from api.listing import LARGEST_PAGE, query_of
from api.representable import faults
from api.resources import Resources, entry_of
from api.store.base import Key, Preconditions, Request
from api.validation import shown

VERBS = ("Create", "Get", "Update", "Delete", "DeleteCollection", "List")
MUTATING = frozenset({"Create", "Update", "Delete"})
DRY_RUN_ALL = "All"

Handler = Callable[[Kind, Any, Resources], Awaitable[Message]]


@dataclass(frozen=True)
class Operation:
    """One RPC of one kind.  `verb`: Create, Get, Update, Delete, DeleteCollection, List."""

    kind: Kind
    verb: str

    @property
    def path(self) -> str:
        """The gRPC path, such as `/michelangelo.api.v2.ProjectService/GetProject`."""
        return f"/{self.kind.service.full_name}/{self.kind.method(self.verb).name}"

    @property
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
        self._handlers: dict[str, Handler] = {
            "Create": self._create,
            "Get": self._get,
            "Update": self._update,
            "Delete": self._delete,
            "DeleteCollection": self._delete_collection,
            "List": self._list,
        }

    async def call(self, call: Call, operation: Operation, request: Any) -> Message:
        """Carry out one operation.  Raises `api.errors`."""
        kind = operation.kind
        # Fields are named as in the object, not as in the request around it.
        refuse([replace(v, field=v.field.removeprefix(f"{kind.singular}.")) for v in faults(request)])
        key = _key(kind, request)
        try:
            await self._access.require(call, operation.verb, kind.name, key.namespace, key.name)
        except (PermissionDenied, NotFound, Unauthenticated) as error:
            await self._resources.record(
                replace(entry_of(call, operation.verb, key), outcome=error.code, reason=error.reason)
            )
            raise
        named = _named_request(call, operation, request)
        if named is not None and operation.verb in MUTATING:
            answered = await self._resources.remembered(named, kind.name)
            if answered is not None:
                return (
                    _response(kind, "Delete") if operation.verb == "Delete" else _answer(kind, operation.verb, answered)
                )
        return await self._handlers[operation.verb](kind, request, self._resources.of(call, named))

    async def _create(self, kind: Kind, request: Any, resources: Resources) -> Message:
        resource = _named(kind, request)
        return _answer(
            kind,
            "Create",
            await resources.create(resource, dry_run=_dry(request.create_options, "create_options")),
        )

    async def _get(self, kind: Kind, request: Any, resources: Resources) -> Message:
        return _answer(kind, "Get", await resources.get(kind.name, request.namespace, request.name))

    async def _update(self, kind: Kind, request: Any, resources: Resources) -> Message:
        resource = _named(kind, request)
        return _answer(
            kind,
            "Update",
            await resources.update(resource, dry_run=_dry(request.update_options, "update_options")),
        )

    async def _delete(self, kind: Kind, request: Any, resources: Resources) -> Message:
        options = request.delete_options
        await resources.delete(
            kind.name,
            request.namespace,
            request.name,
            preconditions=Preconditions(options.preconditions.uid, options.preconditions.resourceVersion),
            orphan=_orphan(options),
            dry_run=_dry(options, "delete_options"),
        )
        answer: Message = _response(kind, "Delete")
        return answer

    async def _delete_collection(self, kind: Kind, request: Any, resources: Resources) -> Message:
        if not request.namespace:
            told = "is required: a collection is deleted one project at a time"
            refuse([FieldViolation("namespace", told)], "MISSING_FIELD")
        orphan, dry = _orphan(request.delete_options), _dry(request.delete_options, "delete_options")
        query = query_of(kind, request.namespace, request.list_options, _no_extension())
        if not request.list_options.limit:
            query = replace(query, limit=0)
        for item in (await resources.list(kind.name, query)).items:
            # What is gone by now was deleted by another call, or with its owner.
            with contextlib.suppress(NotFound, Conflict):
                await resources.delete(
                    kind.name,
                    item.metadata.namespace,
                    item.metadata.name,
                    preconditions=Preconditions(uid=item.metadata.uid),
                    orphan=orphan,
                    dry_run=dry,
                    part=True,
                )
        answer: Message = _response(kind, "DeleteCollection")
        return answer

    async def _list(self, kind: Kind, request: Any, resources: Resources) -> Message:
        query = query_of(kind, request.namespace, request.list_options, request.list_options_ext)
        page = await resources.list(kind.name, query)
        listing = kind.list_message()
        listing.type_meta.kind = kind.list_message.DESCRIPTOR.name
        listing.type_meta.apiVersion = kind.group_version
        listing.metadata.resourceVersion = str(page.revision)
        setattr(listing.metadata, "continue", page.next)
        if page.remaining is not None and query.limit < LARGEST_PAGE:
            listing.metadata.remainingItemCount = page.remaining
        listing.items.extend(page.items)
        for path in request.list_options_ext.returned_field_skip_list:
            for item in listing.items:
                _skip(item, path)
        response: Message = _response(kind, "List")
        getattr(response, response.DESCRIPTOR.fields[0].name).CopyFrom(listing)
        return response


def _key(kind: Kind, request: Any) -> Key:
    """Return what a request is about; parts that it does not name are empty."""
    here = request
    if kind.singular in request.DESCRIPTOR.fields_by_name:
        here = getattr(request, kind.singular).metadata
        if kind.name == "Project":
            return Key(kind.name, here.namespace or here.name, here.name)
    return Key(kind.name, here.namespace, getattr(here, "name", ""))


def _named_request(call: Call, operation: Operation, request: Any) -> Request | None:
    if not call.repeatable:
        return None
    digest = hashlib.sha256(request.SerializeToString(deterministic=True)).digest()
    return Request(f"{call.principal.subject} {operation.path}", call.request_id, digest)


def _named(kind: Kind, request: Any) -> Any:
    field = kind.singular
    if not request.HasField(field):
        raise InvalidArgument(
            f"{field} is required", violations=[FieldViolation(field, "is required")], reason="MISSING_FIELD"
        )
    return getattr(request, field)


def _response(kind: Kind, verb: str) -> Any:
    described: Any = kind.method(verb).output_type
    return described._concrete_class()


def _answer(kind: Kind, verb: str, resource: Any) -> Message:
    response = _response(kind, verb)
    getattr(response, kind.singular).CopyFrom(resource)
    return response  # type: ignore[no-any-return]


def _dry(options: Any, field: str) -> bool:
    unknown = [value for value in options.dryRun if value != DRY_RUN_ALL]
    if unknown:
        told = f"knows the value {DRY_RUN_ALL!r} only, not {shown(unknown[0])!r}"
        refuse([FieldViolation(f"{field}.dryRun", told)], "INVALID_ARGUMENT")
    return bool(options.dryRun)


def _orphan(options: Any) -> bool:
    policy = options.propagationPolicy
    if policy not in ("", "Background", "Foreground", "Orphan"):
        told = f"is Background, Foreground or Orphan, not {shown(policy)!r}"
        refuse([FieldViolation("delete_options.propagationPolicy", told)], "INVALID_ARGUMENT")
    return bool(policy == "Orphan" or options.orphanDependents)


def _no_extension() -> Any:
    from api.gen.michelangelo.api import list_pb2

    return list_pb2.ListOptionsExt()


def _skip(item: Any, path: str) -> None:
    *parents, last = path.split(".")
    for part in parents:
        if part not in item.DESCRIPTOR.fields_by_name or not item.HasField(part):
            return
        item = getattr(item, part)
    if last in item.DESCRIPTOR.fields_by_name:
        item.ClearField(last)
