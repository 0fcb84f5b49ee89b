"""gRPC of events: Publish.  Decides nothing."""

from __future__ import annotations

from typing import Any

import grpc

from api.auth.entrance import Entrance
from api.broker.publishing import Publisher
from api.calls import Call
from api.gen.michelangelo.platform.v1 import broker_service_pb2 as wire
from api.services.handling import Work, endpoint, entering

NAME = wire.DESCRIPTOR.services_by_name["BrokerService"].full_name


class BrokerService(grpc.GenericRpcHandler):
    """Serves michelangelo.platform.v1.BrokerService."""

    def __init__(self, publisher: Publisher, entrance: Entrance) -> None:
        self._publisher = publisher
        path = f"/{NAME}/"

        def method(verb: str, request: Any, work: Work) -> Any:
            made = endpoint(path + verb, request, work, entering(entrance, verb, "Event"), entrance.gate)
            return grpc.stream_unary_rpc_method_handler(made)

        self._handlers: dict[str, grpc.RpcMethodHandler[Any, Any]] = {
            path + "Publish": method("Publish", wire.PublishRequest, self._publish)
        }

    def service(self, handler_call_details: Any) -> Any:
        """Return the handler of one method."""
        return self._handlers.get(handler_call_details.method)

    async def _publish(self, call: Call, request: Any, _: Any) -> bytes:
        return bytes((await self._publisher.publish(call, request)).SerializeToString())
