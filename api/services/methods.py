"""A gRPC service of few methods, each made by the one function that lets callers in.  Decides nothing."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import grpc

from api.auth.entrance import Entrance
from api.services.handling import Work, endpoint, entering


class Methods(grpc.GenericRpcHandler):
    """Serves the methods of one service.

    methods: for each name the class of its request and its work; kind: what they are about, empty for several;
    lasting: those that answer by a stream, until their caller leaves.
    """

    def __init__(
        self,
        service: str,
        entrance: Entrance,
        methods: Mapping[str, tuple[Any, Work]],
        *,
        kind: str = "",
        lasting: Collection[str] = (),
    ) -> None:
        self._handlers: dict[str, grpc.RpcMethodHandler[Any, Any]] = {}
        for verb, (request, work) in methods.items():
            path, lasts = f"/{service}/{verb}", verb in lasting
            made = endpoint(path, request, work, entering(entrance, verb, kind), entrance, lasts=lasts)
            self._handlers[path] = (
                grpc.stream_stream_rpc_method_handler(made) if lasts else grpc.stream_unary_rpc_method_handler(made)
            )

    def service(self, handler_call_details: Any) -> Any:
        """Return the handler of one method."""
        return self._handlers.get(handler_call_details.method)
