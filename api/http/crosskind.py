"""What concerns every kind over HTTP: search, server-side apply and plans, as messages of the platform."""

from __future__ import annotations

from typing import Any

from api.admission import refuse
from api.asked import DRY_RUN_ALL
from api.errors import FieldViolation
from api.gen.michelangelo.platform.v1 import resource_service_pb2 as wire
from api.http import body, objects, parameters, table
from api.http.accept import TABLE, form
from api.http.exchange import Answer, Exchange, answer
from api.http.refusals import MethodNotAllowed
from api.http.resources import Resource, place
from api.messages.plain import plain
from api.platform import Platform

SEARCHED = (body.JSON,)
APPLIED = (body.APPLY,)
CREATED = wire.ApplyResponse.CREATED


class CrossKind:
    """Answers searches and plans, and applies configurations."""

    def __init__(self, platform: Platform) -> None:
        self._platform = platform

    async def search(self, exchange: Exchange) -> Answer:
        """Answer a search: a SearchRequest as JSON.  Raises `api.errors`."""
        if exchange.method != "POST":
            raise MethodNotAllowed(exchange.method, ("POST",))
        exchange.query.check(frozenset())
        request = wire.SearchRequest()
        objects.message(request, objects.read(await body.read(exchange, SEARCHED)))
        return answer(plain(await self._platform.search(exchange.call, request)))

    async def plan(self, exchange: Exchange) -> Answer:
        """Answer a plan: a PlanRequest as JSON.  Raises `api.errors`."""
        if exchange.method != "POST":
            raise MethodNotAllowed(exchange.method, ("POST",))
        exchange.query.check(frozenset())
        request = wire.PlanRequest()
        objects.message(request, objects.read(await body.read(exchange, SEARCHED)))
        return answer(plain(await self._platform.plan(exchange.call, request)))

    async def apply(self, resource: Resource, exchange: Exchange) -> Answer:
        """Apply a configuration in the name of its field manager.  Raises `api.errors`."""
        exchange.query.check(parameters.APPLY)
        made = objects.resource(resource.kind, objects.read(await body.read(exchange, APPLIED)))
        place(resource, made)
        dry = exchange.query.many("dryRun")
        if any(value != DRY_RUN_ALL for value in dry):
            told = f"knows the value {DRY_RUN_ALL!r} only"
            refuse([FieldViolation("dryRun", told)], "INVALID_ARGUMENT")
        request = wire.ApplyRequest(
            field_manager=exchange.query.text("fieldManager"), force=exchange.query.flag("force"), dry_run=bool(dry)
        )
        request.object.Pack(made, deterministic=True)
        applied: Any = await self._platform.apply(exchange.call, request)
        stored = resource.kind.message()
        applied.object.Unpack(stored)
        code = 201 if applied.outcome == CREATED else 200
        if form(exchange.header("accept")) == TABLE:
            return answer(table.of(resource.kind, [stored], stored.metadata.resourceVersion), code)
        return answer(objects.encoded(resource.kind, stored), code)
