"""What every gRPC method does around its work: who calls, bytes to a message, a refusal to a status.  Knows no method.

Methods take streams, so that nothing of a request is read before its caller was let in and has its turn.  Bytes are
parsed here, not by gRPC: a message that cannot be parsed is an answer like any other, and the connection stays usable
(`guarantees.md` 7).
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
from google.protobuf.message import DecodeError

from api.auth.base import AUTHORIZATION, NO_CERTIFICATE, Headers
from api.auth.entrance import Entrance
from api.call_log import CALLS
from api.calls import LARGEST_REQUEST_BYTES, Call, named
from api.errors import ApiError, InvalidArgument, ResourceExhausted
from api.gate import Gate
from api.services.status import status_of

# What the parser says of bytes that are no message, and what that means; the last entry is for all the rest.
UNREADABLE = {
    "MaxDepth": ("TOO_DEEP", "it is nested deeper than 100 messages"),
    "bad UTF-8": ("BAD_TEXT", "a text in it is not UTF-8"),
    "": ("BAD_MESSAGE", "its bytes cannot be read"),
}

LONGEST_WARNING = 256

# Returns the call with who makes it, or refuses it.  Takes its metadata and gRPC's context.
Enter = Callable[[Call, Headers, Any], Awaitable[Call]]
# Takes the call, its message and gRPC's context; returns the bytes of the answer, None when it wrote them itself.
Work = Callable[[Call, Any, Any], Awaitable[bytes | None]]
# Takes the call and what was read of it; returns the bytes of the answer, None where `Work` has to be asked.
Swift = Callable[[Call, Any], bytes | None]
# Is told of a call that was refused before its work began.
Unread = Callable[[Call, ApiError], Awaitable[None]]

log = logging.getLogger(__name__)


async def _untold(_: Call, __: ApiError) -> None:
    """Tell nobody."""


def entering(entrance: Entrance, verb: str, kind: str = "") -> Enter:
    """Return how callers of a method come in.  `kind`: what it is about, empty for several."""

    async def enter(call: Call, headers: Headers, context: Any) -> Call:
        # gRPC takes 6 us to tell a certificate; where a token is sent, nobody asks for it.
        has_token = any(name == AUTHORIZATION for name, _ in headers)
        certificate = NO_CERTIFICATE if has_token else context.auth_context()
        return await entrance.enter(call, headers, context.peer(), certificate, verb=verb, kind=kind)

    return enter


def endpoint(
    path: str,
    request_class: Any,
    work: Work,
    enter: Enter,
    gate: Gate,
    unread: Unread = _untold,
    *,
    lasts: bool = False,
    swift: Swift | None = None,
) -> Any:
    """Return what gRPC calls for a method: `work` with its errors made a status, and one line in the log.

    lasts: it goes on until its caller leaves, and is counted elsewhere while it does; swift: what can do without `work`
    and without its errors, if it can.
    """

    async def served(_: Any, context: Any) -> bytes | None:
        began_s = time.monotonic()
        headers = [(name, value) for name, value in context.invocation_metadata() or () if isinstance(value, str)]
        call = call_of(headers, context.time_remaining())
        code, passed, carried = "OK", None, 0
        try:
            call = await enter(call, headers, context)
            passed = gate.enter(call.principal) or await gate.wait(call.principal)
            raw = await gate.read(passed, context.read())
            carried = len(raw) if isinstance(raw, bytes) else 0
            if lasts:
                gate.leave(passed)
                passed = None
            if swift is not None and (told := swift(call, raw)) is not None:
                carried += len(told)
                return told
            try:
                request = parse(request_class, raw)
            except ApiError as error:
                await unread(call, error)
                raise
            answer = await work(call, request, context)
            carried += len(answer or b"")
            if call.warnings:
                context.set_trailing_metadata(warnings_of(call))
            return answer
        except ApiError as error:
            code = error.code
            await abort(context, error, call.request_id)
        except asyncio.CancelledError:
            code = "CANCELLED"
            raise
        except Exception:
            code = "INTERNAL"
            log.exception("%s failed, request %s", path, call.request_id)
            await abort(context, ApiError("internal error: quote the request id when you report it"), call.request_id)
        finally:
            if passed is not None:
                gate.leave(passed, carried)
            CALLS.note(path, code, began_s, call.request_id)
        raise AssertionError("abort returns never")

    return served


def parse(request_class: Any, raw: Any) -> Any:
    """Return the message of what was read, which may be nothing.  Raises InvalidArgument, ResourceExhausted."""
    if not isinstance(raw, bytes):
        raise InvalidArgument("the call brings no message", reason="BAD_MESSAGE")
    if len(raw) > LARGEST_REQUEST_BYTES:
        told = f"the request has {len(raw)} bytes, at most {LARGEST_REQUEST_BYTES} are read"
        raise ResourceExhausted(f"{told}: store large values elsewhere and give their URI", reason="TOO_LARGE")
    try:
        return request_class.FromString(raw)
    except DecodeError as error:
        reason, why = next(told for part, told in UNREADABLE.items() if part in str(error))
        raise InvalidArgument(f"the request is no {request_class.DESCRIPTOR.name}: {why}", reason=reason) from error


def call_of(headers: Headers, timeout_s: float | None) -> Call:
    """Return what a client said about its call."""
    sent = dict(headers)
    force = sent.get("x-force", "").lower() == "true"
    return named(sent.get("x-request-id"), source="grpc", force=force, timeout_s=timeout_s)


def warnings_of(call: Call) -> tuple[tuple[str, str], ...]:
    """Return the metadata that tell what a call is warned of, as HTTP's `Warning` header does: printable ASCII."""
    told = (text.encode("ascii", "replace").decode().replace('"', "'") for text in call.warnings)
    return tuple(("warning", f'299 - "{text}"'[:LONGEST_WARNING]) for text in told)


async def abort(context: Any, error: ApiError, request_id: str) -> None:
    """Answer a refusal.  Raises always."""
    status = status_of(error, request_id)
    context.set_trailing_metadata((("grpc-status-details-bin", status.SerializeToString()),))
    await context.abort(getattr(grpc.StatusCode, error.code), status.message)
