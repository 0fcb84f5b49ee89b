"""gRPC of every kind's operations.  Decides nothing."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import grpc
from google.protobuf.message import DecodeError

from api.auth.entrance import Entrance
from api.calls import Call, Principal
from api.errors import ApiError
from api.operations import Operation, Operations, operations
from api.services.handling import Swift, endpoint, entering
from api.store.base import Key

# Of protobuf's wire format: what a message in a message begins with.
LENGTH_DELIMITED = 2
# A namespace and a name.
NAMED = 2
# Requests of one method of which is known what they name, and how long one may be.
MOST_READ = 1_000
LONGEST_READ = 1_024


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
    swift = _straight(served, operation) if operation.verb == "Get" else None
    return endpoint(operation.path, operation.request, work, enter, entrance, unread, swift=swift)


def _straight(served: Operations, operation: Operation) -> Swift:
    """Return what answers a plain get: the stored bytes are a part of the answer's, and need not be read."""
    kind, request_class = operation.kind, operation.request
    begins = bytes([kind.method("Get").output_type.fields_by_name[kind.singular].number << 3 | LENGTH_DELIMITED])

    @lru_cache(MOST_READ)
    def read(raw: bytes) -> Key | None:
        try:
            request = request_class.FromString(raw)
        except DecodeError:
            return None
        return Key(kind.name, request.namespace, request.name) if len(request.ListFields()) == NAMED else None

    def swift(principal: Principal, raw: Any) -> bytes | None:
        key = read(raw) if isinstance(raw, bytes) and len(raw) <= LONGEST_READ else None
        found = served.straight.get(principal, kind, key) if key is not None else None
        return None if found is None else begins + varint(len(found)) + found

    return swift


@lru_cache(MOST_READ)
def varint(number: int) -> bytes:
    """Return a number as protobuf writes it."""
    found = bytearray()
    while number > 0x7F:
        found.append(number & 0x7F | 0x80)
        number >>= 7
    found.append(number)
    return bytes(found)
