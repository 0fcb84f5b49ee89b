"""gRPC of events: Publish.  Decides nothing."""

from __future__ import annotations

from typing import Any

from api.auth.entrance import Entrance
from api.broker.publishing import Publisher
from api.calls import Call
from api.gen.michelangelo.platform.v1 import broker_service_pb2 as wire
from api.services.methods import Methods

NAME = wire.DESCRIPTOR.services_by_name["BrokerService"].full_name


class BrokerService(Methods):
    """Serves michelangelo.platform.v1.BrokerService."""

    def __init__(self, publisher: Publisher, entrance: Entrance) -> None:
        self._publisher = publisher
        super().__init__(NAME, entrance, {"Publish": (wire.PublishRequest, self._publish)}, kind="Event")

    async def _publish(self, call: Call, request: Any, _: Any) -> bytes:
        return bytes((await self._publisher.publish(call, request)).SerializeToString())
