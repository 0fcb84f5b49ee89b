"""The door of every HTTP request to the API: who calls, what the path names, and every refusal as JSON.

An ASGI application.  The path is read from the request line alone, never from a URL that a header is part of; what a
caller may do is decided below, by what is asked of which object, never by the path.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Collection, Mapping, MutableMapping, Sequence
from typing import Any
from urllib.parse import unquote_to_bytes

from api.admission import refuse
from api.audit import Entry
from api.auth.base import NO_CERTIFICATE, Anyone
from api.auth.entrance import Entrance
from api.call_log import CALLS
from api.calls import Call, Everybody, named
from api.errors import ApiError, FieldViolation
from api.gate import Caller, Gate
from api.http import discovery, guard, openapi, status
from api.http.accept import DISCOVERY, form
from api.http.body import Gone
from api.http.cloudevents import CloudEvents
from api.http.crosskind import CrossKind
from api.http.exchange import Answer, Exchange, Receive, Scope, Send, answer
from api.http.namespaces import Namespaces
from api.http.parameters import DOCUMENT, Parameters
from api.http.protocol import CERTIFICATE, KNOWN
from api.http.refusals import MethodNotAllowed, NoRoute
from api.http.resources import Resource, Verbs, is_global
from api.http.swift import Swift
from api.http.watch import Watching
from api.kinds import Kind
from api.operations import Operations
from api.platform import Platform
from api.validation import nearest, shown

ROOTS = ("api", "apis", "openapi", "openapi.json", "version")
DISCOVERED = b"application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
LARGEST_PATH = 8 * 1024
OK = 200
# What a method asks for, in the words of the audit log.
VERBS = {"GET": "Get", "HEAD": "Get", "POST": "Create", "PUT": "Update", "PATCH": "Update", "DELETE": "Delete"}

log = logging.getLogger(__name__)


class Gateway:
    """Serves every kind.  `entrance`: who calls, default everybody the same; `hosts`: this server's names."""

    def __init__(
        self,
        operations: Operations,
        platform: Platform,
        entrance: Entrance | None = None,
        hosts: Collection[str] | None = guard.LOOPBACK,
    ) -> None:
        self._entrance = entrance or Entrance(Anyone(), Everybody(), _untold)
        self._hosts = hosts
        self._crosskind = CrossKind(platform)
        self._cloudevents = CloudEvents(platform.publisher)
        self._verbs = Verbs(operations, Watching(operations, platform), self._crosskind.apply)
        self._namespaces = Namespaces(operations)
        self._swift = Swift(self._entrance, operations.straight)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        began_s = time.monotonic()
        target = Target()
        call: Call | None = None
        method = str(scope["method"])
        gate, turn = self._entrance.gate, None
        try:
            headers = guard.checked(scope["headers"], self._hosts)
            query = Parameters(scope.get("query_string", b""))
            call = _call(headers, query)
            path = _segments(scope)
            target.find(path)
            call = await self._enter(call, headers, scope, target, method)
            passed = gate.enter(call.principal) or await gate.wait(call.principal)
            read = "GET" if method == "HEAD" else method
            turn = _Turn(gate, passed, receive)
            done = await self._answer(Exchange(call, read, path, query, headers, turn.receive), target)
            turn.carried += len(done.body)
            if KNOWN in scope and target.kind is not None and target.name and done.status == OK and not call.warnings:
                again = self._swift.again(headers, target.kind, target.namespace, target.name)
                if again is not None:
                    scope[KNOWN](again)
        except Gone:
            return
        except ApiError as error:
            call = call or Call(source="http")
            done = status.refusal(error, call.request_id, target.kind, target.name)
        except Exception:
            call = call or Call(source="http")
            log.exception("%s failed, request %s", method, call.request_id)
            hidden = ApiError("internal error: quote the request id when you report it")
            done = status.refusal(hidden, call.request_id, target.kind, target.name)
        finally:
            if turn is not None:
                gate.leave(turn.passed, turn.carried)
        for text in call.warnings:
            done.warn(text)
        try:
            await _send(done, call, receive, send, silent=method == "HEAD")
        finally:
            CALLS.note(f"{method} {target}", done.status, began_s, call.request_id)

    async def _enter(
        self, call: Call, headers: Sequence[tuple[str, str]], scope: Scope, target: Target, method: str
    ) -> Call:
        """Return the call with who makes it.  Raises Unauthenticated, PermissionDenied, InvalidArgument."""
        client = scope.get("client")
        peer = f"{client[0]}:{client[1]}" if client else ""
        kind = target.kind.name if target.kind is not None else ""
        certificate = scope.get(CERTIFICATE, NO_CERTIFICATE)
        return await self._entrance.enter(call, headers, peer, certificate, verb=VERBS.get(method, method), kind=kind)

    async def _answer(self, exchange: Exchange, target: Target) -> Answer:
        if target.missing is not None:
            raise target.missing
        if target.kind is not None:
            return await self._verbs(Resource(target.kind, target.namespace, target.name), exchange)
        match exchange.path:
            case ["apis", "michelangelo.platform", "v1", "search"]:
                return await self._crosskind.search(exchange)
            case ["apis", "michelangelo.platform", "v1", "plan"]:
                return await self._crosskind.plan(exchange)
            case ["apis", "michelangelo.platform", "v1", "namespaces", project, "cloudevents"]:
                return await self._cloudevents(project, exchange)
            case ["api", "v1", "namespaces"]:
                return await self._namespaces("", exchange)
            case ["api", "v1", "namespaces", name]:
                return await self._namespaces(name, exchange)
        document = _document(exchange)
        if exchange.method != "GET":
            raise MethodNotAllowed(exchange.method, ("GET", "HEAD"))
        exchange.query.check(DOCUMENT)
        return document


class Target:
    """What a request turned out to be about: for access, for its log line and for its refusal."""

    def __init__(self) -> None:
        self.kind: Kind | None = None
        self.namespace = self.name = ""
        self.missing: NoRoute | None = None

    def find(self, path: Sequence[str]) -> None:
        """Look up the kind that a path names; what has none is kept for later, as it tells of nothing."""
        match path:
            case ["apis", "michelangelo.platform", "v1", "search" | "plan"]:
                return
            case ["apis", "michelangelo.platform", "v1", "namespaces", _, "cloudevents"]:
                return
            case ["apis", group, version, *rest] if rest:
                try:
                    named_here = _resource(group, version, rest)
                except NoRoute as error:
                    self.missing = error
                else:
                    self.kind, self.namespace, self.name = named_here.kind, named_here.namespace, named_here.name

    def __str__(self) -> str:
        return f"{self.kind.name}/{self.namespace}/{self.name}" if self.kind else "-"


async def _untold(_: Entry) -> None:
    """Record nothing: everybody is let in."""


def _call(headers: Sequence[tuple[str, str]], query: Parameters) -> Call:
    """Return what a request says about its call.  `timeout`: how long its caller waits, as kubectl writes it."""
    sent = dict(reversed(headers))
    force = sent.get("x-force", "").strip().lower() == "true"
    return named(sent.get("x-request-id"), source="http", force=force, timeout_s=query.duration_s("timeout"))


class _Turn:
    """The turn of a call, which it must not hold while nothing of its request comes.  carried: bytes that it moved."""

    def __init__(self, gate: Gate, passed: Caller, receive: Receive) -> None:
        self.passed = passed
        self.carried = 0
        self._gate = gate
        self._receive = receive
        self._began: float | None = None

    async def receive(self) -> MutableMapping[str, Any]:
        """Return the next part of the request."""
        self._began = self._began or asyncio.get_running_loop().time()
        message = await self._gate.read(self.passed, self._receive(), self._began)
        self.carried += len(message.get("body", b""))
        return message


def _segments(scope: Scope) -> list[str]:
    """Return the parts of the path as they were sent, each unquoted by itself; a slash at the end says nothing."""
    raw = scope.get("raw_path") or str(scope["path"]).encode()
    raw = raw.partition(b"?")[0]
    if len(raw) > LARGEST_PATH:
        raise NoRoute("the path is too long")
    parts = raw.split(b"/")[1:]
    if parts and not parts[-1]:
        parts.pop()
    try:
        found = [unquote_to_bytes(part).decode() if b"%" in part else part.decode("ascii") for part in parts]
    except UnicodeDecodeError:
        refuse([FieldViolation("path", "is not UTF-8 in percent codes", reason="BAD_TEXT")])
    if any("\0" in part for part in found):
        refuse([FieldViolation("path", "holds a NUL character", reason="BAD_TEXT")])
    return found


def _resource(group: str, version: str, rest: Sequence[str]) -> Resource:
    """Return what a path names.  Raises NoRoute."""
    kinds = discovery.by_path()
    match rest:
        case ["namespaces", namespace, plural] if namespace:
            name = ""
        case ["namespaces", namespace, plural, name] if namespace and name:
            pass
        case [plural]:
            namespace = name = ""
        case [plural, name] if name:
            namespace = name
        case _:
            raise _nowhere(rest)
    kind = kinds.get((group, version, plural))
    if kind is None:
        known = [key[2] for key in kinds if key[:2] == (group, version)]
        hint = nearest(plural, known) if known else f": use {' or '.join(discovery.group_versions())}"
        raise NoRoute(f"there is no {shown(plural)!r} in {shown(f'{group}/{version}')}{hint}")
    if len(rest) == 2 and not is_global(kind):
        raise NoRoute(f"a {kind.name} is named with its project: namespaces/PROJECT/{rest[0]}/{shown(name)}")
    return Resource(kind, namespace, name)


def _nowhere(path: Sequence[str]) -> NoRoute:
    return NoRoute(f"there is nothing at {shown('/'.join(path))!r}: see /apis and /openapi.json")


def _document(exchange: Exchange) -> Answer:
    """Return what describes the API.  Raises NoRoute."""
    path = tuple(exchange.path)
    if path in (("api",), ("apis",)) and form(exchange.header("accept")) == DISCOVERY:
        made = answer(discovery.aggregated(of_core=path == ("api",)))
        made.media = DISCOVERED
        return made
    documents: Mapping[tuple[str, ...], Callable[[], Any]] = _documents()
    if path in documents:
        return answer(documents[path]())
    raise _nowhere(path)


def _documents() -> dict[tuple[str, ...], Callable[[], Any]]:
    found: dict[tuple[str, ...], Callable[[], Any]] = {
        ("api",): discovery.core_versions,
        ("api", "v1"): discovery.core,
        ("apis",): discovery.groups,
        ("version",): discovery.version,
        ("openapi.json",): openapi.document,
        ("openapi", "v3.1"): openapi.document,
        ("openapi", "v3"): openapi.index,
        ("openapi", "v3", "api", "v1"): openapi.core,
    }
    for group_version in discovery.group_versions():
        group, version = group_version.split("/")
        found["apis", group] = lambda group=group: discovery.group(group)  # type: ignore[misc]
        found["apis", group, version] = lambda of=group_version: discovery.resources(of)  # type: ignore[misc]
        found["openapi", "v3", "apis", group, version] = lambda of=group_version: openapi.group(of)  # type: ignore[misc]
    return found


async def _send(done: Answer, call: Call, receive: Receive, send: Send, *, silent: bool) -> None:
    headers = [
        *guard.HEADERS,
        (b"content-type", done.media),
        (b"x-request-id", call.request_id.encode()),
        *done.headers,
    ]
    if done.stream is None:
        headers.append((b"content-length", str(len(done.body)).encode()))
        await send({"type": "http.response.start", "status": done.status, "headers": headers})
        await send({"type": "http.response.body", "body": b"" if silent else done.body})
        return
    await send({"type": "http.response.start", "status": done.status, "headers": headers})
    # The client sees at once that it watches.
    await send({"type": "http.response.body", "body": b"", "more_body": True})

    async def write(part: bytes) -> None:
        await send({"type": "http.response.body", "body": part, "more_body": True})

    if not silent:
        await _until_gone(done.stream(write), receive)
    with contextlib.suppress(Exception):
        await send({"type": "http.response.body", "body": b""})


async def _until_gone(streaming: Awaitable[None], receive: Receive) -> None:
    """Stream until the end, or until nobody listens."""

    async def gone() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass

    tasks = [asyncio.ensure_future(streaming), asyncio.ensure_future(gone())]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
    for result in results:
        if isinstance(result, Exception):
            log.warning("a stream ended early: %s", type(result).__name__)
