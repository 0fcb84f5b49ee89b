"""Kubernetes' verbs on resources, as requests of the same operations that gRPC serves.  Holds no rule of its own."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import count
from typing import Any

from api.admission import check_version, refuse
from api.errors import ApiError, Conflict, FieldViolation
from api.http import body, objects, parameters, patch, status, table
from api.http.accept import TABLE, form
from api.http.exchange import Answer, Exchange, answer
from api.http.refusals import MethodNotAllowed, Unsupported
from api.kinds import Kind, kinds
from api.messages.plain import plain
from api.operations import Operation, Operations
from api.validation import shown

WRITABLE = (body.JSON, body.YAML)
DELETABLE = (body.JSON,)
PATCHES = (body.MERGE, body.APPLY)
STRATEGIC = "application/strategic-merge-patch+json"
MOST_TRIES = 16

Handler = Callable[["Resource", Exchange], Awaitable[Answer]]


@dataclass(frozen=True)
class Resource:
    """What a path names: a kind, where, and which one of it; empty for all."""

    kind: Kind
    namespace: str = ""
    name: str = ""


@cache
def operation(kind: str, verb: str) -> Operation:
    """Return one RPC of one kind."""
    return Operation(kinds()[kind], verb)


def is_global(kind: Kind) -> bool:
    """Whether objects of a kind are named without a namespace.  A Project's namespace is its own name."""
    return kind.name == "Project"


class Verbs:
    """Answers requests on resources.  `watch`, `apply`: what streams changes and what applies configurations."""

    def __init__(self, operations: Operations, watch: Handler, apply: Handler) -> None:
        self._operations = operations
        self._watch = watch
        self._apply = apply
        self._one: Mapping[str, Handler] = {
            "GET": self._get,
            "PUT": self._put,
            "PATCH": self._patch,
            "DELETE": self._delete,
        }
        self._all: Mapping[str, Handler] = {
            "GET": self._list,
            "POST": self._post,
            "DELETE": self._delete_collection,
        }

    async def __call__(self, resource: Resource, exchange: Exchange) -> Answer:
        """Answer.  Raises `api.errors`."""
        handlers = self._one if resource.name else self._all
        allowed = [verb for verb in handlers if resource.name or resource.namespace or verb in _everywhere(resource)]
        if exchange.method not in allowed:
            raise MethodNotAllowed(exchange.method, [*allowed, "HEAD"])
        return await handlers[exchange.method](resource, exchange)

    async def _get(self, resource: Resource, exchange: Exchange) -> Answer:
        exchange.query.check(parameters.ITEM)
        return self._single(resource, exchange, await self._read(resource, exchange))

    async def _read(self, resource: Resource, exchange: Exchange) -> Any:
        wanted = operation(resource.kind.name, "Get")
        request = wanted.request(namespace=resource.namespace, name=resource.name)
        got: Any = await self._operations.call(exchange.call, wanted, request)
        return getattr(got, resource.kind.singular)

    def _single(self, resource: Resource, exchange: Exchange, made: Any, code: int = 200) -> Answer:
        if form(exchange.header("accept")) == TABLE:
            shown_as = exchange.query.one_of("includeObject", table.INCLUDED)
            return answer(table.of(resource.kind, [made], made.metadata.resourceVersion, shown_as), code)
        return answer(objects.encoded(resource.kind, made), code)

    async def _list(self, resource: Resource, exchange: Exchange) -> Answer:
        exchange.query.check(parameters.LIST)
        if exchange.query.flag("watch"):
            return await self._watch(resource, exchange)
        wanted = operation(resource.kind.name, "List")
        request = wanted.request(namespace=resource.namespace)
        _select(request, exchange)
        exchange.query.flag("allowWatchBookmarks")
        objects.from_text(request.list_options_ext, exchange.query.text("listOptionsExt"), "listOptionsExt")
        got: Any = await self._operations.call(exchange.call, wanted, request)
        listing = getattr(got, got.DESCRIPTOR.fields[0].name)
        if form(exchange.header("accept")) == TABLE:
            included = exchange.query.one_of("includeObject", table.INCLUDED)
            made = table.of(resource.kind, listing.items, "", included)
            return answer({**made, "metadata": plain(listing.metadata)})
        return answer(objects.listed(resource.kind, listing))

    async def _post(self, resource: Resource, exchange: Exchange) -> Answer:
        return await self._write("Create", "create_options", resource, exchange, 201)

    async def _put(self, resource: Resource, exchange: Exchange) -> Answer:
        return await self._write("Update", "update_options", resource, exchange, 200)

    async def _write(self, verb: str, options: str, resource: Resource, exchange: Exchange, code: int) -> Answer:
        wanted = operation(resource.kind.name, verb)
        async with self._recorded(exchange, wanted):
            exchange.query.check(parameters.WRITE)
            document = objects.read(await body.read(exchange, WRITABLE))
            made = objects.resource(resource.kind, document)
            place(resource, made)
            request = wanted.request(**{resource.kind.singular: made})
            _options(getattr(request, options), exchange)
        written = getattr(await self._operations.call(exchange.call, wanted, request), resource.kind.singular)
        return self._single(resource, exchange, written, code)

    async def _patch(self, resource: Resource, exchange: Exchange) -> Answer:
        media = exchange.header("content-type").split(";")[0].strip().lower()
        if media == body.APPLY:
            return await self._apply(resource, exchange)
        wanted = operation(resource.kind.name, "Update")
        async with self._recorded(exchange, wanted):
            exchange.query.check(parameters.WRITE)
            if media == STRATEGIC:
                told = "a strategic merge patch needs types that are built in"
                raise Unsupported(f"{told}: send {' or '.join(PATCHES)}")
            sent = await body.read(exchange, PATCHES)
            given = objects.read(sent).entries
        call = replace(
            exchange.call, asked=b"%s/%s\n%s" % (resource.namespace.encode(), resource.name.encode(), sent.data)
        )
        for tried in count(1):
            stored = objects.encoded(resource.kind, await self._read(resource, exchange))
            stored.pop("status", None)
            async with self._recorded(exchange, wanted):
                made = objects.resource(resource.kind, patch.document(patch.merge(stored, given)))
                place(resource, made)
                request = wanted.request(**{resource.kind.singular: made})
                _options(request.update_options, exchange)
            try:
                written = getattr(await self._operations.call(call, wanted, request), resource.kind.singular)
            except Conflict:
                # A patch for no version is merged again into what is stored now.
                if tried == MOST_TRIES or patch.version(given):
                    raise
            else:
                break
        return self._single(resource, exchange, written)

    async def _delete(self, resource: Resource, exchange: Exchange) -> Answer:
        wanted = operation(resource.kind.name, "Delete")
        async with self._recorded(exchange, wanted):
            exchange.query.check(parameters.DELETE)
            request = wanted.request(namespace=resource.namespace, name=resource.name)
            await _deletion(request.delete_options, exchange)
        await self._operations.call(exchange.call, wanted, request)
        return answer(status.success(resource.kind, resource.name))

    async def _delete_collection(self, resource: Resource, exchange: Exchange) -> Answer:
        wanted = operation(resource.kind.name, "DeleteCollection")
        async with self._recorded(exchange, wanted):
            exchange.query.check(parameters.LIST | parameters.DELETE)
            request = wanted.request(namespace=resource.namespace)
            _select(request, exchange)
            await _deletion(request.delete_options, exchange)
        await self._operations.call(exchange.call, wanted, request)
        return answer(status.success(resource.kind, ""))

    @contextlib.asynccontextmanager
    async def _recorded(self, exchange: Exchange, wanted: Operation) -> AsyncIterator[None]:
        """Record what is refused before the operation begins."""
        try:
            yield
        except ApiError as error:
            await self._operations.refused(exchange.call, wanted, error)
            raise


def _everywhere(resource: Resource) -> Sequence[str]:
    """Return what can be done with a kind without naming a project."""
    return ("GET", "POST") if is_global(resource.kind) else ("GET",)


def place(resource: Resource, made: Any) -> None:
    """Put an object where its path says.  Raises InvalidArgument where it says something else."""
    found = []
    for key, right in (("namespace", resource.namespace), ("name", resource.name)):
        given = getattr(made.metadata, key)
        if not right or given == right:
            continue
        if given:
            told = f"is {shown(given)!r}, but the path says {shown(right)!r}"
            found.append(FieldViolation(f"metadata.{key}", told, shown(given), "ID_MISMATCH"))
        else:
            setattr(made.metadata, key, right)
    refuse(found)


def _select(request: Any, exchange: Exchange) -> None:
    query, options = exchange.query, request.list_options
    check_version(query.text("resourceVersion"), "resourceVersion")
    query.one_of("resourceVersionMatch", ("NotOlderThan",))
    for name in ("labelSelector", "fieldSelector", "continue", "resourceVersion", "resourceVersionMatch"):
        if text := query.text(name):
            setattr(options, name, text)
    if number := query.number("limit"):
        options.limit = number
    if seconds := query.count("timeoutSeconds"):
        options.timeoutSeconds = seconds


def _options(options: Any, exchange: Exchange) -> None:
    options.dryRun.extend(exchange.query.many("dryRun"))
    query = exchange.query
    options.fieldManager = query.text("fieldManager")
    options.fieldValidation = query.one_of("fieldValidation", parameters.FIELD_VALIDATION)


async def _deletion(options: Any, exchange: Exchange) -> None:
    """Read the options of a deletion: from the body, and from the URL where the body says nothing."""
    sent = await body.read(exchange, DELETABLE)
    if sent.data:
        objects.message(options, objects.read(sent), "", ("apiVersion", "kind"))
    query = exchange.query
    options.dryRun.extend(query.many("dryRun"))
    if policy := query.text("propagationPolicy"):
        options.propagationPolicy = policy
    if query.flag("orphanDependents"):
        options.orphanDependents = True
