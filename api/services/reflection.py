"""Server reflection, v1alpha (what Michelangelo's client asks for) and v1 (what current tools ask for).

grpcio-reflection has v1alpha alone; v1 has the same messages under another package, so the same servicer answers both.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import grpc
from grpc_reflection.v1alpha import reflection
from grpc_reflection.v1alpha._async import ReflectionServicer

V1 = "grpc.reflection.v1.ServerReflection"


class _V1(grpc.GenericRpcHandler):
    def __init__(self, servicer: Any) -> None:
        from grpc_reflection.v1alpha import reflection_pb2

        self._handler = grpc.stream_stream_rpc_method_handler(
            servicer.ServerReflectionInfo,
            request_deserializer=reflection_pb2.ServerReflectionRequest.FromString,
            response_serializer=reflection_pb2.ServerReflectionResponse.SerializeToString,
        )

    def service(self, handler_call_details: Any) -> Any:
        return self._handler if handler_call_details.method == f"/{V1}/ServerReflectionInfo" else None


def add(server: Any, services: Sequence[str]) -> None:
    """Serve reflection of `services` (full names) on a grpc.aio server."""
    names = [*services, reflection.SERVICE_NAME, V1]
    reflection.enable_server_reflection(names, server)
    server.add_generic_rpc_handlers((_V1(ReflectionServicer(names)),))
