"""Real servers with small limits: who is refused is told until when, and neither others nor the platform notice."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from google.rpc import error_details_pb2  # type: ignore[import-untyped,unused-ignore]
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_status import rpc_status

from api.calls import Principal
from api.client import Client
from api.gate import REFUSED, Caller
from api.kinds import kinds
from api.limits import LimitsConfig
from tests.api.running import read
from tests.security.secured import Secured, known, outcome, token_of

SMALL = LimitsConfig(
    calls=2,
    calls_per_caller=1,
    waiting_per_caller=2,
    wait_s=20,
    header_s=0.4,
    body_s=0.6,
    connections=20,
    bad_tokens=1,
    idle_s=1,
)
COMES_AGAIN_S = 0.7
FLOOD = 24
EACH = 3
PATH = "/apis/michelangelo.api/v2/namespaces/{}/modelfamilies"
POST = "POST {} HTTP/1.1\r\nhost: 127.0.0.1\r\nauthorization: Bearer {}\r\ncontent-type: application/json\r\n"


@pytest.fixture(scope="module")
def busy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    """A server that does two calls at once, one of each caller."""
    made = Secured(tmp_path_factory.mktemp("busy"), [known("alice"), known("bob")], limits=SMALL)
    yield made
    made.close()


@pytest.fixture(scope="module")
def project(busy: Secured) -> str:
    made = busy.owner.project()
    busy.owner.bind(made, "EDITOR", "user:alice", "user:bob")
    return made


def retry_s(error: Any) -> float:
    """Return the seconds after which a refusal says to come again."""
    found = error_details_pb2.RetryInfo()
    assert any(packed.Unpack(found) for packed in rpc_status.from_call(error).details)
    return float(found.retry_delay.ToNanoseconds() / 1e9)


def test_a_flood_of_one_caller_is_refused_and_nobody_else_notices(busy: Secured, project: str) -> None:
    alice, bob, seen, delays = busy.user("alice"), busy.user("bob"), Counter[str](), list[float]()
    watched = busy.owner.get("Project", project, project)
    ended = threading.Event()

    def flood(number: int) -> None:
        for count in range(EACH):
            try:
                alice.create(kinds()["ModelFamily"].new(project, f"n-{number}-{count}"))
                seen["OK"] += 1
            except grpc.RpcError as error:
                told = read(error)
                seen[f"{told.code} {told.reason}"] += 1
                delays.append(retry_s(error))

    def watch_others() -> int:
        health: Any = health_pb2_grpc.HealthStub(busy.user("").channel)
        count = 0
        while not ended.is_set() or not count:
            assert bob.get("Project", project, project).metadata.name == project
            assert health.Check(health_pb2.HealthCheckRequest(), timeout=20).status == 1
            assert busy.http.get("/healthz").status_code == 200
            count += 1
            watched.status.error_message = f"seen {count} times"
            busy.run(busy.resources.update_status(watched))
        return count

    with ThreadPoolExecutor(FLOOD + 1) as threads:
        others = threads.submit(watch_others)
        callers = [threads.submit(flood, number) for number in range(FLOOD)]
        for caller in callers:
            caller.result(60)
        ended.set()
        assert others.result(60) > 0
    assert set(seen) == {"OK", "RESOURCE_EXHAUSTED TOO_MANY_CALLS"}
    assert sum(seen.values()) == FLOOD * EACH
    assert 0.1 <= min(delays) <= max(delays) <= 30
    listed = busy.owner.list("ModelFamily", project, list_options={"limit": 1000})
    assert len(listed.items) == seen["OK"], "what was refused had an effect"


@contextlib.contextmanager
def all_places_taken(server: Secured, who: str) -> Iterator[None]:
    """Take every place of a caller, as calls that go on would."""
    gate, taken = server.entrance.gate, list[Caller]()

    async def take() -> None:
        while (passed := gate.enter(Principal(who))) is not None:
            taken.append(passed)

    async def give() -> None:
        for passed in taken:
            gate.leave(passed)

    server.run(take())
    try:
        yield
    finally:
        server.run(give())


@pytest.fixture
def full(tmp_path: Path) -> Iterator[Secured]:
    """A server where nobody waits in a queue."""
    limits = LimitsConfig(calls=1, calls_per_caller=1, waiting=0, waiting_per_caller=0, wait_s=COMES_AGAIN_S)
    made = Secured(tmp_path, [known("alice")], limits=limits)
    yield made
    made.close()


def test_our_client_comes_again_when_it_was_told_to_and_not_before(full: Secured) -> None:
    project = full.owner.project()
    full.owner.bind(project, "EDITOR", "user:alice")
    refused = REFUSED.labels("TOO_MANY_CALLS")._value
    before = refused.get()
    with Client(full.address, token=token_of("alice")) as client, ThreadPoolExecutor(1) as thread:
        with all_places_taken(full, "alice"):
            asked = thread.submit(client.create, kinds()["ModelFamily"].new(project, "late"))
            while refused.get() == before:
                time.sleep(0.005)
            told = time.monotonic()
        assert asked.result(60).metadata.name == "late"
    assert time.monotonic() - told > 0.9 * COMES_AGAIN_S
    assert refused.get() == before + 1


def test_http_says_429_and_when_to_come_again(full: Secured) -> None:
    owner = {"authorization": "Bearer token-of-the-owner-of-this-platform"}
    with all_places_taken(full, "alice"):
        told = full.http.get("/apis", headers=owner)
        assert (told.status_code, told.json()["reason"]) == (429, "TOO_MANY_CALLS")
        assert told.headers["retry-after"] == "1"
        assert told.json()["details"]["retryAfterSeconds"] == 1
        assert full.http.get("/readyz").status_code == 200
        assert full.http.get("/metrics").text.count("ma_api_running 1.0") == 1
    assert full.http.get("/apis", headers=owner).status_code == 200


def connected(server: Secured) -> socket.socket:
    url = httpx.URL(str(server.http.base_url))
    assert url.port
    return socket.create_connection((url.host, url.port), timeout=20)


def rest(connection: socket.socket) -> bytes:
    """Return everything up to the end of a connection that the server ends."""
    parts = []
    with contextlib.suppress(ConnectionResetError):
        while part := connection.recv(65536):
            parts.append(part)
    return b"".join(parts)


@pytest.mark.parametrize("body", [b"", b"content-length: 100\r\n\r\n{"], ids=["head", "body"])
def test_a_request_that_never_ends_is_ended(busy: Secured, project: str, body: bytes) -> None:
    with connected(busy) as slow:
        slow.sendall(POST.format(PATH.format(project), token_of("alice")).encode() + body)
        # Meanwhile the place of this caller is free.
        assert busy.user("alice").list("ModelFamily", project).items is not None
        answer = rest(slow)
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["reason"] == "SLOW_REQUEST"


def test_a_connection_that_says_nothing_is_ended(busy: Secured) -> None:
    host, _, port = busy.address.rpartition(":")
    with connected(busy) as http, socket.create_connection((host, int(port)), timeout=20) as grpc_one:
        assert rest(http) == b""
        # gRPC says its settings first.
        rest(grpc_one)


def test_connections_that_do_nothing_make_way(tmp_path: Path) -> None:
    server = Secured(tmp_path, limits=LimitsConfig(connections=10, header_s=60))
    with contextlib.ExitStack() as stack:
        stack.callback(server.close)
        idle = [stack.enter_context(connected(server)) for _ in range(15)]
        with httpx.Client(base_url=server.http.base_url, timeout=20) as fresh:
            assert fresh.get("/healthz").status_code == 200
            assert rest(idle[0]) == b""
            idle[-1].sendall(b"GET /healthz HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n")
            assert idle[-1].recv(100).startswith(b"HTTP/1.1 200 ")


def test_a_grpc_request_that_never_comes_is_ended(busy: Secured, project: str) -> None:
    described = kinds()["ModelFamily"]
    path = f"/{described.service.full_name}/{described.method('List').name}"
    silent: Any = busy.owner.channel.stream_unary(path, request_serializer=None, response_deserializer=None)
    ended = threading.Event()

    def nothing() -> Iterator[bytes]:
        ended.wait(30)
        yield from ()

    try:
        with pytest.raises(grpc.RpcError) as error:
            silent(nothing(), timeout=20, metadata=[("authorization", f"Bearer {token_of('alice')}")])
    finally:
        ended.set()
    assert (read(error.value).code, read(error.value).reason) == ("DEADLINE_EXCEEDED", "SLOW_REQUEST")


def test_a_flood_of_bad_tokens_is_refused_and_a_good_one_is_let_in(busy: Secured, project: str) -> None:
    stranger, alice, seen = busy.caller("no such token"), busy.user("alice"), Counter[str]()
    before = sum(entry.outcome == "UNAUTHENTICATED" for entry in busy.audit())
    with ThreadPoolExecutor(20) as threads:
        for code in threads.map(lambda _: outcome(stranger.list, "ModelFamily", project), range(30)):
            seen[code] += 1
        assert alice.list("ModelFamily", project).items is not None
    assert set(seen) == {"UNAUTHENTICATED", "RESOURCE_EXHAUSTED"}
    recorded = sum(entry.outcome == "UNAUTHENTICATED" for entry in busy.audit())
    assert recorded - before == seen["UNAUTHENTICATED"]
