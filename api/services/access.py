"""gRPC of questions about rights.  Decides nothing: access does, and is asked as for the call itself."""

from __future__ import annotations

from typing import Any

import grpc

from api.auth.entrance import Entrance
from api.auth.roles import RoleAccess
from api.calls import Access, Call
from api.errors import InvalidArgument, NotFound, PermissionDenied
from api.gen.michelangelo.platform.v1 import access_service_pb2 as wire
from api.services.handling import Work, endpoint, entering

NAME = wire.DESCRIPTOR.services_by_name["AccessService"].full_name
EVERYBODY = "everybody"


class AccessService(grpc.GenericRpcHandler):
    """Serves michelangelo.platform.v1.AccessService."""

    def __init__(self, access: Access, entrance: Entrance) -> None:
        self._access = access
        path = f"/{NAME}/"

        def method(verb: str, request: Any, work: Work) -> Any:
            made = endpoint(path + verb, request, work, entering(entrance, verb), entrance.gate)
            return grpc.stream_unary_rpc_method_handler(made)

        self._handlers: dict[str, grpc.RpcMethodHandler[Any, Any]] = {
            path + "CanI": method("CanI", wire.CanIRequest, self._can_i),
            path + "WhoCan": method("WhoCan", wire.WhoCanRequest, self._who_can),
        }

    def service(self, handler_call_details: Any) -> Any:
        """Return the handler of one method."""
        return self._handlers.get(handler_call_details.method)

    async def _can_i(self, call: Call, request: Any, _: Any) -> bytes:
        who = call.principal
        answer = wire.CanIResponse(subject=who.subject, groups=sorted(who.groups))
        try:
            if request.verb:
                await self._access.require(call, request.verb, request.kind, request.namespace)
                answer.allowed = True
        except (PermissionDenied, NotFound, InvalidArgument) as error:
            answer.reason = error.message
        return answer.SerializeToString()

    async def _who_can(self, call: Call, request: Any, _: Any) -> bytes:
        await self._access.require(call, "WhoCan", "RoleBinding", request.namespace)
        if not isinstance(self._access, RoleAccess):
            return wire.WhoCanResponse(subjects=[EVERYBODY]).SerializeToString()
        subjects = self._access.who_can(request.verb, request.kind, request.namespace)
        return wire.WhoCanResponse(subjects=subjects).SerializeToString()
