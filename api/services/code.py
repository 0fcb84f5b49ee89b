"""gRPC of code: PutPart and PutCode.  Decides nothing."""

from __future__ import annotations

from typing import Any

import grpc

from api.auth.entrance import Entrance
from api.calls import Call
from api.gen.michelangelo.platform.v1 import code_service_pb2 as wire
from api.services.handling import Work, endpoint, entering
from api.uploads import Uploads

NAME = wire.DESCRIPTOR.services_by_name["CodeService"].full_name


class CodeService(grpc.GenericRpcHandler):
    """Serves michelangelo.platform.v1.CodeService."""

    def __init__(self, uploads: Uploads, entrance: Entrance) -> None:
        self._uploads = uploads
        path = f"/{NAME}/"

        def method(verb: str, request: Any, work: Work) -> Any:
            made = endpoint(path + verb, request, work, entering(entrance, verb, "Pipeline"), entrance.gate)
            return grpc.stream_unary_rpc_method_handler(made)

        self._handlers: dict[str, grpc.RpcMethodHandler[Any, Any]] = {
            path + "PutPart": method("PutPart", wire.PutPartRequest, self._part),
            path + "PutCode": method("PutCode", wire.PutCodeRequest, self._code),
        }

    def service(self, handler_call_details: Any) -> Any:
        """Return the handler of one method."""
        return self._handlers.get(handler_call_details.method)

    async def _part(self, call: Call, request: Any, _: Any) -> bytes:
        return bytes((await self._uploads.put_part(call, request)).SerializeToString())

    async def _code(self, call: Call, request: Any, _: Any) -> bytes:
        return bytes((await self._uploads.put_code(call, request)).SerializeToString())
