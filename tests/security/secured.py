"""A real gRPC server over a real store with access on, and callers with tokens of their own.  Fakes nothing."""

from __future__ import annotations

import asyncio
import json
import os
import threading
import time
import uuid
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import grpc
import httpx
from starlette.routing import Route

from api.admitters import ADMITTERS
from api.audit import Entry, Record
from api.audit import read as entry_of
from api.auth.setup import access_of
from api.auth.static import digest
from api.blobs import opened
from api.config import AuthConfig, Config
from api.controllers import reports
from api.gen.michelangelo.platform.v1 import role_binding_pb2 as wire
from api.http import app
from api.http.gateway import Gateway
from api.http.port import http_server
from api.hub import Hub
from api.kinds import kinds
from api.limits import LimitsConfig
from api.operations import Operations
from api.platform import Platform
from api.resources import Resources
from api.server import grpc_server
from api.store.sqlite import SqliteStore
from api.uploads import Uploads
from tests.api.running import Refusal, read, request_of
from tests.patience import PATIENCE_S

T = TypeVar("T")

OWNER = "token-of-the-owner-of-this-platform"
CALL_S = 20.0
# Tests are refused more often than a person who mistypes a token.
PATIENT = LimitsConfig(bad_tokens=10_000)
KINDS = {"user": wire.SUBJECT_KIND_USER, "group": wire.SUBJECT_KIND_GROUP, "service": wire.SUBJECT_KIND_SERVICE}

Metadata = Sequence[tuple[str, str]]


def token_of(name: str) -> str:
    """Return the token that a user of these tests has."""
    return f"token-of-{name}-which-nobody-guesses"


def known(name: str, **more: Any) -> dict[str, Any]:
    """Return the entry of a user in a tokens file."""
    return {"name": name, "sha256": digest(token_of(name)), **more}


@dataclass(frozen=True)
class Caller:
    """Calls with the metadata of one caller."""

    channel: grpc.Channel
    metadata: Metadata = ()

    def raw(self, path: str, body: bytes, more: Metadata = ()) -> bytes:
        """Send bytes to one method and return the bytes of the answer."""
        sent: Any = self.channel.unary_unary(path, request_serializer=None, response_deserializer=None)
        answer: bytes = sent(body, timeout=CALL_S, metadata=[*self.metadata, *more])
        return answer

    def call(self, kind: str, verb: str, request: Any = None, *, more: Metadata = (), **fields: Any) -> Any:
        """Call one method with a request message, or with one made from `fields`."""
        method: Any = kinds()[kind].method(verb)
        message = request if request is not None else request_of(kind, verb, **fields)
        path = f"/{kinds()[kind].service.full_name}/{method.name}"
        return method.output_type._concrete_class.FromString(self.raw(path, message.SerializeToString(), more))

    def create(self, resource: Any) -> Any:
        """Create an object and return it as it was stored."""
        kind = kinds()[resource.DESCRIPTOR.name]
        return getattr(self.call(kind.name, "Create", **{kind.singular: resource}), kind.singular)

    def update(self, resource: Any) -> Any:
        """Update an object and return it as it was stored."""
        kind = kinds()[resource.DESCRIPTOR.name]
        return getattr(self.call(kind.name, "Update", **{kind.singular: resource}), kind.singular)

    def get(self, kind: str, namespace: str, name: str) -> Any:
        """Return one object."""
        return getattr(self.call(kind, "Get", namespace=namespace, name=name), kinds()[kind].singular)

    def list(self, kind: str, namespace: str = "", **fields: Any) -> Any:
        """Return one page."""
        return getattr(self.call(kind, "List", namespace=namespace, **fields), f"{kinds()[kind].singular}_list")

    def project(self) -> str:
        """Create a project of a new name and return the name."""
        name = f"p-{uuid.uuid4().hex[:8]}"
        self.create(kinds()["Project"].new(name, name))
        return name

    def bind(self, project: str, role: str, *subjects: str, name: str = "") -> Any:
        """Give a role to subjects, each written as `user:alice`."""
        new = kinds()["RoleBinding"].new(project, name or f"b-{uuid.uuid4().hex[:8]}")
        new.spec.role = wire.Role.Value(f"ROLE_{role}")
        for subject in subjects:
            kind, _, called = subject.partition(":")
            new.spec.subjects.add(kind=KINDS[kind], name=called)
        return self.create(new)


class Secured:
    """One server with its own store, in a thread of its own.  users: entries of its tokens file."""

    def __init__(
        self, home: Path, users: Sequence[Mapping[str, Any]] = (), *, limits: LimitsConfig = PATIENT, **auth: Any
    ) -> None:
        self.home = home
        self.tokens_file = home / "tokens.json"
        self.write_tokens(users)
        settings = replace(AuthConfig(tokens_file=self.tokens_file), **auth)
        self.config = Config(home=home, projects_root=home, token=OWNER, auth=settings, limits=limits)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._stack = AsyncExitStack()
        self._channels: list[grpc.Channel] = []
        self.address = f"127.0.0.1:{self.run(self._start())}"
        self.owner = self.caller(OWNER)
        self.nobody = self.caller("")

    async def _start(self) -> int:
        self.store = SqliteStore(self.home / "store.db")
        self.resources = Resources(self.store, ADMITTERS)
        self.access, self.entrance = await self._stack.enter_async_context(access_of(self.config, self.resources))
        platform = Platform(self.resources, Hub(self.resources), self.access)
        gateway = Gateway(Operations(self.resources, self.access), platform, self.entrance)
        limits = self.config.limits
        application = app.build(self._ready, self.routes(), gateway)
        http_port = await self._stack.enter_async_context(http_server(application, 0, limits=limits))
        self.http = httpx.Client(base_url=f"http://127.0.0.1:{http_port}", timeout=CALL_S)
        uploads = Uploads(self.resources, opened(str(self.home / "blobs")), str(self.home / "artifacts"), self.access)
        server = grpc_server(
            self.resources,
            0,
            platform,
            access=self.access,
            entrance=self.entrance,
            limits=limits,
            uploads=uploads,
        )
        return await self._stack.enter_async_context(server)

    @staticmethod
    async def _ready() -> bool:
        return True

    @staticmethod
    def routes() -> list[Route]:
        """Return the routes that controllers bring, as the platform's server has them."""

        async def nothing(*_: object) -> None:
            """Hear of nothing."""

        return reports.routes(OWNER, nothing, nothing)

    def close(self) -> None:
        """Stop the servers and their thread."""
        self.http.close()
        for channel in self._channels:
            channel.close()
        self.run(self._stack.aclose())
        self.run(self.store.close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine in the server's loop."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(30)

    def write_tokens(self, users: Sequence[Mapping[str, Any]], revoked: Sequence[Mapping[str, Any]] = ()) -> None:
        """Replace the tokens file, as `ma token` does."""
        fresh = self.home / "tokens.new"
        fresh.write_text(json.dumps({"tokens": list(users), "revoked": list(revoked)}))
        fresh.chmod(0o600)
        os.replace(fresh, self.tokens_file)

    def caller(self, token: str, more: Metadata = ()) -> Caller:
        """Return a caller with a token, on a connection of its own."""
        # A pool of its own: otherwise equal addresses share one connection.
        channel = grpc.insecure_channel(self.address, options=[("grpc.use_local_subchannel_pool", 1)])
        self._channels.append(channel)
        return Caller(channel, [*([("authorization", f"Bearer {token}")] if token else []), *more])

    def user(self, name: str) -> Caller:
        """Return a caller with the token of a user."""
        return self.caller(token_of(name))

    def audit(self) -> list[Entry]:
        """Return all audit records."""
        return [entry_of(record.body) for record in self.run(self._audit())]

    async def _audit(self) -> list[Record]:
        return list(await self.store.audit(0, 1_000_000))


def refused(call: Callable[..., object], *given: Any, **more: Any) -> Refusal:
    """Return how a call was refused."""
    try:
        answer = call(*given, **more)
    except grpc.RpcError as error:
        return read(error)
    raise AssertionError(f"it was not refused: {answer!r}"[:300])


def outcome(call: Callable[..., object], *given: Any, **more: Any) -> str:
    """Return the gRPC status of a call, OK when it was answered."""
    try:
        call(*given, **more)
    except grpc.RpcError as error:
        return str(error.code().name)  # type: ignore[attr-defined,unused-ignore]
    return "OK"


def eventually(look: Callable[[], object], *, timeout_s: float = PATIENCE_S) -> None:
    """Return as soon as `look` holds."""
    deadline = time.monotonic() + timeout_s
    while not look():
        assert time.monotonic() < deadline
        time.sleep(0.02)
