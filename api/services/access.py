"""gRPC of questions about rights.  Decides nothing: access does, and is asked as for the call itself."""

from __future__ import annotations

from typing import Any

from api.auth.entrance import Entrance
from api.auth.roles import RoleAccess
from api.calls import Access, Call
from api.errors import InvalidArgument, NotFound, PermissionDenied
from api.gen.michelangelo.platform.v1 import access_service_pb2 as wire
from api.services.methods import Methods

NAME = wire.DESCRIPTOR.services_by_name["AccessService"].full_name
EVERYBODY = "everybody"


class AccessService(Methods):
    """Serves michelangelo.platform.v1.AccessService."""

    def __init__(self, access: Access, entrance: Entrance) -> None:
        self._access = access
        methods = {"CanI": (wire.CanIRequest, self._can_i), "WhoCan": (wire.WhoCanRequest, self._who_can)}
        super().__init__(NAME, entrance, methods)

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
