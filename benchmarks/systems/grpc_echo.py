"""python -m benchmarks.systems.grpc_echo PORT: answers every call with its own bytes, the least that grpcio can do."""

from __future__ import annotations

import sys
from typing import Any

import grpc
import uvloop

from benchmarks.systems.grpc_calls import ECHO


class Echo(grpc.GenericRpcHandler):
    """Returns what it is sent."""

    def service(self, handler_call_details: Any) -> Any:
        """Return the one handler."""

        async def answer(raw: bytes, _: Any) -> bytes:
            return raw

        return grpc.unary_unary_rpc_method_handler(answer) if handler_call_details.method == ECHO else None


async def serve(port: int) -> None:
    """Serve until the process is stopped."""
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((Echo(),))
    server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    await server.wait_for_termination()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1])))
