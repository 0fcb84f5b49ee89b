"""gRPC of code: PutPart and PutCode.  Decides nothing."""

from __future__ import annotations

from typing import Any

from api.auth.entrance import Entrance
from api.calls import Call
from api.gen.michelangelo.platform.v1 import code_service_pb2 as wire
from api.services.methods import Methods
from api.uploads import Uploads

NAME = wire.DESCRIPTOR.services_by_name["CodeService"].full_name


class CodeService(Methods):
    """Serves michelangelo.platform.v1.CodeService."""

    def __init__(self, uploads: Uploads, entrance: Entrance) -> None:
        self._uploads = uploads
        methods = {"PutPart": (wire.PutPartRequest, self._part), "PutCode": (wire.PutCodeRequest, self._code)}
        super().__init__(NAME, entrance, methods, kind="Pipeline")

    async def _part(self, call: Call, request: Any, _: Any) -> bytes:
        return bytes((await self._uploads.put_part(call, request)).SerializeToString())

    async def _code(self, call: Call, request: Any, _: Any) -> bytes:
        return bytes((await self._uploads.put_code(call, request)).SerializeToString())
