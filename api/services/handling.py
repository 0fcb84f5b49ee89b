"""What every gRPC method does around its work: who calls, bytes to a message, a refusal to a status.  Knows no method.

Methods take streams, so that nothing of a request is read before its caller was let in and has its turn.  Bytes are
parsed here, not by gRPC: a message that cannot be parsed is an answer like any other, and the connection stays usable
(`guarantees.md` 7).
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import grpc
from google.protobuf.message import DecodeError

from api.auth.base import AUTHORIZATION, NO_CERTIFICATE, Headers
from api.auth.entrance import IMPERSONATE_USER, Entrance
from api.call_log import CALLS
from api.calls import LARGEST_REQUEST_BYTES, Call, Principal, named
from api.errors import ApiError, InvalidArgument, ResourceExhausted
from api.services.status import status_of

# What the parser says of bytes that are no message, and what that means; the last entry is for all the rest.
UNREADABLE = {
    "MaxDepth": ("TOO_DEEP", "it is nested deeper than 100 messages"),
    "bad UTF-8": ("BAD_TEXT", "a text in it is not UTF-8"),
    "": ("BAD_MESSAGE", "its bytes cannot be read"),
}

LONGEST_WARNING = 256
REQUEST_ID = "x-request-id"
FORCE = "x-force"
# Metadata that change what a call does.  All others but the token and the request id say nothing.
CHANGING = frozenset({FORCE, IMPERSONATE_USER})

# Values are texts, and bytes where the name ends with `-bin`.
Metadata = Sequence[tuple[str, Any]]
# Returns the call with who makes it, or refuses it.  Takes its metadata and gRPC's context.
Enter = Callable[[Call, Metadata, Any], Awaitable[Call]]
# Takes the call, its message and gRPC's context; returns the bytes of the answer, None when it wrote them itself.
Work = Callable[[Call, Any, Any], Awaitable[bytes | None]]
# Takes who calls and what was read; returns the bytes of the answer, None where `Work` has to be asked.
Swift = Callable[[Principal, Any], bytes | None]
# Is told of a call that was refused before its work began.
Unread = Callable[[Call, ApiError], Awaitable[None]]

log = logging.getLogger(__name__)


async def _untold(_: Call, __: ApiError) -> None:
    """Tell nobody."""


def entering(entrance: Entrance, verb: str, kind: str = "") -> Enter:
    """Return how callers of a method come in.  `kind`: what it is about, empty for several."""

    async def enter(call: Call, metadata: Metadata, context: Any) -> Call:
        headers = texts_of(metadata)
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
    entrance: Entrance,
    unread: Unread = _untold,
    *,
    lasts: bool = False,
    swift: Swift | None = None,
) -> Any:
    """Return what gRPC calls for a method: `work` with its errors made a status, and one line in the log.

    lasts: it goes on until its caller leaves, and is counted elsewhere while it does; swift: what can do without `work`
    and without its errors, if it can.
    """

    gate = entrance.gate

    async def served(_: Any, context: Any) -> bytes | None:
        began_s = time.monotonic()
        code, passed, carried, call = "OK", None, 0, None
        metadata = context.invocation_metadata() or ()
        principal, request_id = known(entrance, metadata) if swift is not None else (None, "")
        try:
            if principal is None:
                call = call_of(metadata, context)
                principal = (await enter(call, metadata, context)).principal
            passed = gate.enter(principal) or await gate.wait(principal)
            raw = await gate.read(passed, context.read())
            carried = len(raw) if isinstance(raw, bytes) else 0
            if lasts:
                gate.leave(passed)
                passed = None
            if swift is not None and (told := swift(principal, raw)) is not None:
                carried += len(told)
                return told
            if call is None:
                call = call_of(metadata, context)
                await enter(call, metadata, context)
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
            code, call = error.code, call or named(request_id)
            await abort(context, error, call.request_id)
        except asyncio.CancelledError:
            code = "CANCELLED"
            raise
        except Exception:
            code, call = "INTERNAL", call or named(request_id)
            log.exception("%s failed, request %s", path, call.request_id)
            await abort(context, ApiError("internal error: quote the request id when you report it"), call.request_id)
        finally:
            if passed is not None:
                gate.leave(passed, carried)
            CALLS.note(path, code, began_s, call.request_id if call is not None else request_id)
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


def known(entrance: Entrance, metadata: Metadata) -> tuple[Principal | None, str]:
    """Return who makes a call and the id that it names, if any; nobody where `enter` has to be asked.

    Whoever is known speaks for itself, and the call is made as calls are that say nothing else.
    """
    authorization, request_id = None, ""
    for name, value in metadata:
        if name == AUTHORIZATION:
            if authorization is not None:
                return None, ""
            authorization = value
        elif name == REQUEST_ID:
            request_id = value
        elif name in CHANGING:
            return None, ""
    principal = entrance.known(authorization)
    return principal, named(request_id).request_id if principal and request_id else ""


def texts_of(metadata: Metadata) -> Headers:
    """Return the metadata that are texts."""
    return [(name, value) for name, value in metadata if isinstance(value, str)]


def call_of(metadata: Metadata, context: Any) -> Call:
    """Return what a client said about its call."""
    sent = dict(texts_of(metadata))
    force = sent.get(FORCE, "").lower() == "true"
    return named(sent.get(REQUEST_ID), source="grpc", force=force, timeout_s=context.time_remaining())


def warnings_of(call: Call) -> tuple[tuple[str, str], ...]:
    """Return the metadata that tell what a call is warned of, as HTTP's `Warning` header does: printable ASCII."""
    told = (text.encode("ascii", "replace").decode().replace('"', "'") for text in call.warnings)
    return tuple(("warning", f'299 - "{text}"'[:LONGEST_WARNING]) for text in told)


async def abort(context: Any, error: ApiError, request_id: str) -> None:
    """Answer a refusal.  Raises always."""
    status = status_of(error, request_id)
    context.set_trailing_metadata((("grpc-status-details-bin", status.SerializeToString()),))
    await context.abort(getattr(grpc.StatusCode, error.code), status.message)
