"""gRPC of every kind's operations.  Decides nothing."""

from __future__ import annotations

from typing import Any

import grpc

from api.auth.entrance import Entrance
from api.calls import Call
from api.errors import ApiError
from api.operations import Operation, Operations, operations
from api.services.handling import endpoint, entering


class ResourceService(grpc.GenericRpcHandler):
    """Serves every method of every kind's service; a method that is not ours is left to other handlers."""

    def __init__(self, served: Operations, entrance: Entrance) -> None:
        self._handlers: dict[str, grpc.RpcMethodHandler[Any, Any]] = {
            path: grpc.stream_unary_rpc_method_handler(_endpoint(served, operation, entrance))
            for path, operation in operations().items()
        }

    def service(self, handler_call_details: Any) -> Any:
        """Return the handler of one method."""
        return self._handlers.get(handler_call_details.method)


def _endpoint(served: Operations, operation: Operation, entrance: Entrance) -> Any:
    async def work(call: Call, request: Any, _: Any) -> bytes:
        return (await served.call(call, operation, request)).SerializeToString()

    async def unread(call: Call, error: ApiError) -> None:
        await served.refused(call, operation, error)

    enter = entering(entrance, operation.verb, operation.kind.name)
    return endpoint(operation.path, operation.request, work, enter, entrance.gate, unread)
