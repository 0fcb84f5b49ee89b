"""`?watch=true`: changes as lines of JSON, as they happen.  Selects and cuts nothing itself: the platform's watch does.

Without a version, or from version 0, the stream begins with every object that there is.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Any

from api.admission import refuse
from api.errors import ApiError, FieldViolation
from api.events import Event, EventType
from api.gen.michelangelo.platform.v1 import resource_service_pb2 as wire
from api.http import objects, table
from api.http.accept import TABLE, form
from api.http.exchange import Answer, Exchange, Stream, as_json
from api.http.resources import Resource, operation
from api.http.status import failure
from api.kinds import Kind
from api.operations import Operations
from api.platform import Platform
from api.watch import Watch

ANY_VERSION = ("", "0")
LAST_WORDS_S = 1.0
PAGE = 500

Encode = Callable[[str, int, Any], bytes]
Write = Callable[[bytes], Awaitable[None]]


class Watching:
    """Answers watches."""

    def __init__(self, operations: Operations, platform: Platform) -> None:
        self._operations = operations
        self._platform = platform

    async def __call__(self, resource: Resource, exchange: Exchange) -> Answer:
        """Open a watch; the answer streams it.  Raises what `Platform.watch` raises."""
        query = exchange.query
        if query.flag("sendInitialEvents"):
            told = "is not possible here: list first, and watch from the list's resourceVersion"
            refuse([FieldViolation("sendInitialEvents", told, reason="BAD_PARAMETER")])
        if query.text("listOptionsExt"):
            told = "orders and pages lists: use labelSelector and fieldSelector"
            refuse([FieldViolation("listOptionsExt", told, reason="BAD_PARAMETER")])
        timeout_s = query.count("timeoutSeconds") or None
        request = wire.WatchRequest(
            kinds=[resource.kind.name],
            namespaces=[resource.namespace] if resource.namespace else [],
            label_selector=query.text("labelSelector"),
            field_selector=query.text("fieldSelector"),
            resource_version=query.text("resourceVersion"),
            allow_bookmarks=query.flag("allowWatchBookmarks"),
        )
        name, encode = _encoder(resource.kind, exchange)
        first = None
        if request.resource_version in ANY_VERSION:
            first = await self._page(resource, exchange, "")
            request.resource_version = first.metadata.resourceVersion
        watch = await self._platform.watch(exchange.call, request)

        async def stream(write: Write) -> None:
            async with watch:
                try:
                    async with asyncio.timeout(timeout_s):
                        page = first
                        while page is not None:
                            await watch.deliver(write(b"".join([encode("ADDED", 0, item) for item in page.items])))
                            after = getattr(page.metadata, "continue")
                            page = await self._page(resource, exchange, after) if after else None
                        await _follow(watch, write, name, encode)
                except ApiError as error:
                    line = as_json({"type": "ERROR", "object": failure(error, exchange.call.request_id)}) + b"\n"
                    async with asyncio.timeout(LAST_WORDS_S):
                        await write(line)

        return Answer(stream=_in_time(stream))

    async def _page(self, resource: Resource, exchange: Exchange, after: str) -> Any:
        """Return a page of the selected objects; all pages are of the version of the first."""
        wanted = operation(resource.kind.name, "List")
        request = wanted.request(namespace=resource.namespace)
        options = request.list_options
        options.labelSelector = exchange.query.text("labelSelector")
        options.fieldSelector = exchange.query.text("fieldSelector")
        options.limit = PAGE
        setattr(options, "continue", after)
        got: Any = await self._operations.call(exchange.call, wanted, request)
        return getattr(got, got.DESCRIPTOR.fields[0].name)


def _in_time(stream: Stream) -> Stream:
    """Return a stream whose end in time is an end like any other."""

    async def ended(write: Write) -> None:
        with contextlib.suppress(TimeoutError):
            await stream(write)

    return ended


async def _follow(watch: Watch, write: Write, name: str, encode: Encode) -> None:
    """Write events until the watch ends.  Raises why."""

    def encoded(event: Event) -> bytes:
        return encode(event.type.value, event.revision, event.resource)

    async for events in watch:
        await watch.deliver(write(b"".join([event.once(name, encoded) for event in events])))


def _encoder(kind: Kind, exchange: Exchange) -> tuple[str, Encode]:
    """Return what makes lines of events, and the name under which others who want the same find them."""
    if form(exchange.header("accept")) != TABLE:
        return f"json {kind.name}", lambda told, revision, item: _line(told, _object(kind, told, revision, item))
    included = exchange.query.one_of("includeObject", table.INCLUDED) or "Metadata"

    def as_table(told: str, revision: int, item: Any) -> bytes:
        rows = [] if item is None else [item]
        made = table.of(kind, rows, str(revision or item.metadata.resourceVersion), included)
        return _line(told, made)

    return f"table {included} {kind.name}", as_table


def _line(told: str, found: dict[str, Any]) -> bytes:
    return as_json({"type": told, "object": found}) + b"\n"


def _object(kind: Kind, told: str, revision: int, item: Any) -> dict[str, Any]:
    if item is None:
        return {
            "apiVersion": kind.group_version,
            "kind": kind.name,
            "metadata": {"resourceVersion": str(revision), "creationTimestamp": None},
        }
    found = objects.encoded(kind, item)
    if told == EventType.DELETED.value:
        # Whoever goes on from the last version that it saw does not see the deletion again.
        found["metadata"]["resourceVersion"] = str(revision)
    return found
