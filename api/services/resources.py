"""gRPC of every kind's operations.  Bytes are parsed here, not by gRPC.

A message that cannot be parsed is an answer like any other, and the connection stays usable (`guarantees.md` 7).
"""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from typing import Any

import grpc
from google.protobuf.message import DecodeError

from api.calls import Call
from api.errors import ApiError, InvalidArgument
from api.operations import Operation, Operations, operations
from api.services.status import status_of

# What the parser says of bytes that are no message, and what that means; the last entry is for all the rest.
UNREADABLE = {
    "MaxDepth": ("TOO_DEEP", "it is nested deeper than 100 messages"),
    "bad UTF-8": ("BAD_TEXT", "a text in it is not UTF-8"),
    "": ("BAD_MESSAGE", "its bytes cannot be read"),
}

log = logging.getLogger(__name__)


class ResourceService(grpc.GenericRpcHandler):
    """Serves every method of every kind's service; a method that is not ours is left to other handlers."""

    def __init__(self, served: Operations) -> None:
        self._handlers: dict[str, grpc.RpcMethodHandler[Any, Any]] = {
            path: grpc.unary_unary_rpc_method_handler(_endpoint(served, operation))
            for path, operation in operations().items()
        }

    def service(self, handler_call_details: Any) -> Any:
        """Return the handler of one method."""
        return self._handlers.get(handler_call_details.method)


def _endpoint(served: Operations, operation: Operation) -> Any:
    path, request_class = operation.path, operation.request

    async def endpoint(raw: bytes, context: Any) -> bytes:
        started = time.monotonic()
        call = _call(context)
        code = "OK"
        try:
            answer = await served.call(call, operation, _parse(request_class, raw))
            return answer.SerializeToString()
        except ApiError as error:
            code = error.code
            await _abort(context, error, call.request_id)
        except asyncio.CancelledError:
            code = "CANCELLED"
            raise
        except Exception:
            code = "INTERNAL"
            log.exception("%s failed, request %s", path, call.request_id)
            await _abort(context, ApiError("internal error: quote the request id when you report it"), call.request_id)
        finally:
            log.info("%s %s %.1f ms request=%s", path, code, (time.monotonic() - started) * 1000, call.request_id)
        raise AssertionError("abort returns never")

    return endpoint


def _parse(request_class: Any, raw: bytes) -> Any:
    try:
        return request_class.FromString(raw)
    except DecodeError as error:
        reason, why = next(told for part, told in UNREADABLE.items() if part in str(error))
        raise InvalidArgument(f"the request is no {request_class.DESCRIPTOR.name}: {why}", reason=reason) from error


def _call(context: Any) -> Call:
    for key, value in context.invocation_metadata() or ():
        if key == "x-request-id" and isinstance(value, str) and 0 < len(value) <= 128:
            return Call(request_id=value, source="grpc")
    return Call(request_id=str(uuid.uuid4()), source="grpc")


async def _abort(context: Any, error: ApiError, request_id: str) -> None:
    status = status_of(error, request_id)
    context.set_trailing_metadata((("grpc-status-details-bin", status.SerializeToString()),))
    await context.abort(getattr(grpc.StatusCode, error.code), status.message)
