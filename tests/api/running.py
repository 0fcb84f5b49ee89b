"""A real gRPC server over a real store, and calls on it as bytes or messages.  Fakes nothing."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
import time
import uuid
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import grpc
from google.rpc import error_details_pb2  # type: ignore[import-untyped,unused-ignore]
from grpc_status import rpc_status

from api.admitters import ADMITTERS
from api.calls import Access
from api.events import Limits
from api.hub import Hub
from api.kinds import kinds
from api.platform import Platform
from api.resources import Resources
from api.server import grpc_server
from api.store.sqlite import SqliteStore
from tests.patience import soon

T = TypeVar("T")

ANSWER_S = soon(1.0)
LONGEST_MESSAGE = 2048
# What would show that a message tells of the inside of the server.
INSIDE = ("Traceback", "/work", "/tmp", "site-packages", ".py", "SELECT ", "INSERT ", "sqlite")


@dataclass(frozen=True)
class Refusal:
    """How a call was refused.  `fields`: (path, description) of every violation, in order."""

    code: str
    reason: str
    message: str
    fields: Sequence[tuple[str, str]]
    request_id: str

    @property
    def paths(self) -> list[str]:
        """Return the refused fields, each once, in order."""
        return list(dict.fromkeys(path for path, _ in self.fields))


class Served:
    """One server with its own store, in a thread of its own; every method may be called from a test."""

    def __init__(self, path: Path, limits: Limits | None = None, access: Access | None = None) -> None:
        self.path = path
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self.store = self.run(_opened(path))
        self.resources = Resources(self.store, ADMITTERS)
        self.hub = Hub(self.resources, limits)
        self._server = grpc_server(self.resources, 0, Platform(self.resources, self.hub, access))
        self.address = f"127.0.0.1:{self.run(_entered(self._server))}"
        self.channel = grpc.insecure_channel(self.address)

    def close(self) -> None:
        """Stop the server and its thread."""
        self.channel.close()
        self.run(self._server.__aexit__(None, None, None))
        self.run(self.store.close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine in the server's loop."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(30)

    def raw(self, kind: str, verb: str, body: bytes, *, timeout_s: float = 20.0, **call: Any) -> bytes:
        """Send bytes to one method and return the bytes of the answer."""
        described = kinds()[kind]
        path = f"/{described.service.full_name}/{described.method(verb).name}"
        sent: Any = self.channel.unary_unary(path, request_serializer=None, response_deserializer=None)
        answer: bytes = sent(body, timeout=timeout_s, **call)
        return answer

    def call(self, kind: str, verb: str, request: Any = None, **fields: Any) -> Any:
        """Call one method with a request message, or with one made from `fields`."""
        method: Any = kinds()[kind].method(verb)
        message = request if request is not None else request_of(kind, verb, **fields)
        answer: Any = method.output_type._concrete_class
        return answer.FromString(self.raw(kind, verb, message.SerializeToString()))

    def create(self, resource: Any, **options: Any) -> Any:
        """Create an object and return it as the server stored it."""
        return self._write("Create", resource, "create_options", options)

    def update(self, resource: Any, **options: Any) -> Any:
        """Update an object and return it as the server stored it."""
        return self._write("Update", resource, "update_options", options)

    def _write(self, verb: str, resource: Any, field: str, options: Mapping[str, Any]) -> Any:
        kind = resource.DESCRIPTOR.name
        single = kinds()[kind].singular
        return getattr(self.call(kind, verb, **{single: resource, field: options}), single)

    def get(self, kind: str, namespace: str, name: str) -> Any:
        """Return one object."""
        return getattr(self.call(kind, "Get", namespace=namespace, name=name), kinds()[kind].singular)

    def delete(self, kind: str, namespace: str, name: str, **options: Any) -> None:
        """Delete one object."""
        self.call(kind, "Delete", namespace=namespace, name=name, delete_options=options)

    def list(self, kind: str, namespace: str = "", **fields: Any) -> Any:
        """Return one page: a list message of the kind."""
        return getattr(self.call(kind, "List", namespace=namespace, **fields), f"{kinds()[kind].singular}_list")

    def project(self) -> str:
        """Create a project of a new name and return the name."""
        name = f"p-{uuid.uuid4().hex[:8]}"
        self.create(kinds()["Project"].new(name, name))
        return name

    def log(self) -> tuple[int, int, int]:
        """Return revision, newest change and number of changes, read beside the server."""
        with closing(sqlite3.connect(f"file:{self.path}?mode=ro", uri=True)) as db:
            (revision,) = db.execute("SELECT revision FROM counter").fetchone()
            newest, count = db.execute("SELECT coalesce(max(revision), 0), count(*) FROM change").fetchone()
        return int(revision), int(newest), int(count)

    def refused(self, call: Callable[[], object]) -> Refusal:
        """Return the refusal of a call that must write nothing, answer soon and tell nothing of the inside."""
        before, began = self.log(), time.monotonic()
        try:
            answer = call()
        except grpc.RpcError as error:
            took_s = time.monotonic() - began
            refusal = read(error)
        else:
            raise AssertionError(f"it was not refused: {answer!r}"[:500])
        assert took_s < ANSWER_S, f"answered after {took_s:.2f} s"
        assert self.log() == before, "something was written"
        assert refusal.code not in ("INTERNAL", "UNKNOWN"), refusal
        assert len(refusal.message) <= LONGEST_MESSAGE
        told = [refusal.message, *(text for field in refusal.fields for text in field)]
        assert not [inside for inside in INSIDE for text in told if inside in text], told
        return refusal


def request_of(kind: str, verb: str, **fields: Any) -> Any:
    """Return a request of one method."""
    method: Any = kinds()[kind].method(verb)
    return method.input_type._concrete_class(**fields)


def read(error: Any) -> Refusal:
    """Return what a failed call tells, in details and in text."""
    reason, request_id = "", ""
    fields: list[tuple[str, str]] = []
    status = rpc_status.from_call(error)
    for packed in status.details if status is not None else ():
        info, bad = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
        request = error_details_pb2.RequestInfo()
        if packed.Unpack(info):
            reason = info.reason
        elif packed.Unpack(bad):
            fields = [(violation.field, violation.description) for violation in bad.field_violations]
        elif packed.Unpack(request):
            request_id = request.request_id
    return Refusal(error.code().name, reason, error.details() or "", fields, request_id)


async def _opened(path: Path) -> SqliteStore:
    return SqliteStore(path)


async def _entered(server: Any) -> int:
    port: int = await server.__aenter__()
    return port
