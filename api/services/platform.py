"""gRPC of what concerns every kind: Watch, Search, Apply, Plan.  Decides nothing."""

from __future__ import annotations

from typing import Any, cast

from api.auth.entrance import Entrance
from api.calls import Call
from api.events import Event
from api.gen.michelangelo.platform.v1 import resource_service_pb2 as wire
from api.platform import Platform
from api.services.methods import Methods

NAME = wire.DESCRIPTOR.services_by_name["ResourceService"].full_name


class PlatformService(Methods):
    """Serves michelangelo.platform.v1.ResourceService."""

    def __init__(self, platform: Platform, entrance: Entrance) -> None:
        self._platform = platform
        methods = {
            "Watch": (wire.WatchRequest, self._watch),
            "Search": (wire.SearchRequest, self._search),
            "Plan": (wire.PlanRequest, self._plan),
            "Apply": (wire.ApplyRequest, self._apply),
        }
        super().__init__(NAME, entrance, methods, lasting={"Watch"})

    async def _watch(self, call: Call, request: Any, context: Any) -> None:
        async with await self._platform.watch(call, request) as watch:
            # The client learns that nothing after its version can be missed any more.
            await context.send_initial_metadata(())
            async for events in watch:
                await watch.deliver(context.write(b"".join([event.once("grpc", encoded) for event in events])))

    async def _search(self, call: Call, request: Any, _: Any) -> bytes:
        return (await self._platform.search(call, request)).SerializeToString()

    async def _plan(self, call: Call, request: Any, _: Any) -> bytes:
        return (await self._platform.plan(call, request)).SerializeToString()

    async def _apply(self, call: Call, request: Any, _: Any) -> bytes:
        return (await self._platform.apply(call, request)).SerializeToString()


def encoded(event: Event) -> bytes:
    """Return a response with one event.  Such bytes in a row are a response with all their events."""
    told = wire.WatchEvent(
        type=wire.WatchEvent.Type.Value(event.type.value), resource_version=str(event.revision), kind=event.kind
    )
    if event.resource is not None:
        told.object.Pack(cast("Any", event.resource), deterministic=True)
    return wire.WatchResponse(events=[told]).SerializeToString()
