"""One servicer for the six RPCs of every kind, driven by the registry.  Bytes are parsed here, not by gRPC.

A message that cannot be parsed is an answer like any other, and the connection stays usable (`guarantees.md` 7).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import grpc
from google.protobuf.message import DecodeError, Message

from api.admission import refuse
from api.errors import ApiError, Conflict, FieldViolation, InvalidArgument, NotFound
from api.kinds import Kind, kinds
from api.listing import LARGEST_PAGE, query_of
from api.representable import faults
from api.resources import Resources
from api.services.status import status_of
from api.store.base import Preconditions
from api.validation import shown

VERBS = ("Create", "Get", "Update", "Delete", "DeleteCollection", "List")
DRY_RUN_ALL = "All"
# What the parser says of bytes that are no message, and what that means; the last entry is for all the rest.
UNREADABLE = {
    "MaxDepth": ("TOO_DEEP", "it is nested deeper than 100 messages"),
    "bad UTF-8": ("BAD_TEXT", "a text in it is not UTF-8"),
    "": ("BAD_MESSAGE", "its bytes cannot be read"),
}

log = logging.getLogger(__name__)

Handler = Callable[[Kind, Any], Awaitable[Message]]


class ResourceService(grpc.GenericRpcHandler):
    """Serves every method of every kind's service; a method that is not ours is left to other handlers."""

    def __init__(self, resources: Resources) -> None:
        self._resources = resources
        self._handlers: dict[str, grpc.RpcMethodHandler[Any, Any]] = {}
        verbs: dict[str, Handler] = {
            "Create": self._create,
            "Get": self._get,
            "Update": self._update,
            "Delete": self._delete,
            "DeleteCollection": self._delete_collection,
            "List": self._list,
        }
        for kind in kinds().values():
            for verb in VERBS:
                method = kind.method(verb)
                path = f"/{kind.service.full_name}/{method.name}"
                self._handlers[path] = grpc.unary_unary_rpc_method_handler(_endpoint(path, kind, method, verbs[verb]))

    def service(self, handler_call_details: Any) -> Any:
        """Return the handler of one method."""
        return self._handlers.get(handler_call_details.method)

    async def _create(self, kind: Kind, request: Any) -> Message:
        resource = _named(kind, request)
        return _answer(
            kind,
            "Create",
            await self._resources.create(resource, dry_run=_dry(request.create_options, "create_options")),
        )

    async def _get(self, kind: Kind, request: Any) -> Message:
        return _answer(kind, "Get", await self._resources.get(kind.name, request.namespace, request.name))

    async def _update(self, kind: Kind, request: Any) -> Message:
        resource = _named(kind, request)
        return _answer(
            kind,
            "Update",
            await self._resources.update(resource, dry_run=_dry(request.update_options, "update_options")),
        )

    async def _delete(self, kind: Kind, request: Any) -> Message:
        options = request.delete_options
        await self._resources.delete(
            kind.name,
            request.namespace,
            request.name,
            preconditions=Preconditions(options.preconditions.uid, options.preconditions.resourceVersion),
            orphan=_orphan(options),
            dry_run=_dry(options, "delete_options"),
        )
        answer: Message = _response(kind, "Delete")
        return answer

    async def _delete_collection(self, kind: Kind, request: Any) -> Message:
        if not request.namespace:
            told = "is required: a collection is deleted one project at a time"
            refuse([FieldViolation("namespace", told)], "MISSING_FIELD")
        orphan, dry = _orphan(request.delete_options), _dry(request.delete_options, "delete_options")
        query = query_of(kind, request.namespace, request.list_options, _no_extension())
        if not request.list_options.limit:
            query = replace(query, limit=0)
        for item in (await self._resources.list(kind.name, query)).items:
            # What is gone by now was deleted by another call, or with its owner.
            with contextlib.suppress(NotFound, Conflict):
                await self._resources.delete(
                    kind.name,
                    item.metadata.namespace,
                    item.metadata.name,
                    preconditions=Preconditions(uid=item.metadata.uid),
                    orphan=orphan,
                    dry_run=dry,
                )
        answer: Message = _response(kind, "DeleteCollection")
        return answer

    async def _list(self, kind: Kind, request: Any) -> Message:
        query = query_of(kind, request.namespace, request.list_options, request.list_options_ext)
        page = await self._resources.list(kind.name, query)
        listing = kind.list_message()
        listing.type_meta.kind = kind.list_message.DESCRIPTOR.name
        listing.type_meta.apiVersion = "michelangelo.api/v2"
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


def _endpoint(path: str, kind: Kind, method: Any, handler: Handler) -> Any:
    request_class = method.input_type._concrete_class

    async def endpoint(raw: bytes, context: Any) -> bytes:
        started = time.monotonic()
        request_id = _request_id(context)
        code = "OK"
        try:
            answer = await handler(kind, _parse(kind, request_class, raw))
            return answer.SerializeToString()
        except ApiError as error:
            code = error.code
            await _abort(context, error, request_id)
        except asyncio.CancelledError:
            code = "CANCELLED"
            raise
        except Exception:
            code = "INTERNAL"
            log.exception("%s failed, request %s", path, request_id)
            await _abort(context, ApiError("internal error: quote the request id when you report it"), request_id)
        finally:
            log.info("%s %s %.1f ms request=%s", path, code, (time.monotonic() - started) * 1000, request_id)
        raise AssertionError("abort returns never")

    return endpoint


def _parse(kind: Kind, request_class: Any, raw: bytes) -> Any:
    try:
        request = request_class.FromString(raw)
    except DecodeError as error:
        reason, why = next(told for part, told in UNREADABLE.items() if part in str(error))
        raise InvalidArgument(f"the request is no {request_class.DESCRIPTOR.name}: {why}", reason=reason) from error
    # Fields are named as in the object, not as in the request around it.
    refuse([replace(v, field=v.field.removeprefix(f"{kind.singular}.")) for v in faults(request)])
    return request


def _request_id(context: Any) -> str:
    for key, value in context.invocation_metadata() or ():
        if key == "x-request-id" and isinstance(value, str) and 0 < len(value) <= 128:
            return value
    return str(uuid.uuid4())


async def _abort(context: Any, error: ApiError, request_id: str) -> None:
    status = status_of(error, request_id)
    context.set_trailing_metadata((("grpc-status-details-bin", status.SerializeToString()),))
    await context.abort(getattr(grpc.StatusCode, error.code), status.message)


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
