"""Every method and every route asks who calls, but for a list of those that are open: the list is here and is short.

Methods are asked of the server itself, by its reflection; routes are asked of the application and of its own document.
A method that is served beside them would have to be made by hand: the source is read for that.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import grpc
import pytest
from google.protobuf import descriptor_pb2
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from starlette.applications import Starlette
from starlette.routing import Route

from api.http import app, openapi
from tests.security.secured import OWNER, Secured, token_of

ROOT = Path(__file__).resolve().parents[2]
# Health must be seen by those who watch over the server, reflection by tools that then ask with a token.
OPEN_SERVICES = {
    "grpc.health.v1.Health",
    "grpc.reflection.v1alpha.ServerReflection",
    "grpc.reflection.v1.ServerReflection",
}
OPEN_ROUTES = {"/healthz", "/readyz", "/metrics"}
# Asked for the platform's token by themselves.
REPORT_ROUTES = {"/internal/airflow/events", "/internal/serving/started"}
METHODS = ("get", "post", "put", "patch", "delete")


def reflected(channel: grpc.Channel) -> Iterator[tuple[str, descriptor_pb2.MethodDescriptorProto]]:
    """Yield each service that the server speaks of, with each of its methods."""
    stub: Any = cast("Any", reflection_pb2_grpc).ServerReflectionStub(channel)

    def ask(**fields: Any) -> Any:
        (answer,) = stub.ServerReflectionInfo(iter([reflection_pb2.ServerReflectionRequest(**fields)]))
        return answer

    for listed in ask(list_services="").list_services_response.service:
        found = ask(file_containing_symbol=listed.name).file_descriptor_response.file_descriptor_proto
        for raw in found:
            file = descriptor_pb2.FileDescriptorProto.FromString(raw)
            for service in file.service:
                if f"{file.package}.{service.name}" == listed.name:
                    for method in service.method:
                        yield listed.name, method


def ask(channel: grpc.Channel, path: str, method: Any, token: str) -> grpc.StatusCode:
    """Return how an empty message is answered."""
    metadata = [("authorization", f"Bearer {token}")] if token else []
    try:
        if method.server_streaming:
            streaming: Any = channel.unary_stream(path)
            list(streaming(b"", metadata=metadata, timeout=5))
        else:
            call: Any = channel.unary_unary(path)
            call(b"", metadata=metadata, timeout=5)
    except grpc.RpcError as error:
        code: grpc.StatusCode = error.code()  # type: ignore[attr-defined,unused-ignore]
        return code
    return grpc.StatusCode.OK


def test_every_method_of_grpc_asks_who_calls(secured: Secured) -> None:
    channel = secured.nobody.channel
    asked = 0
    for service, method in reflected(channel):
        if service in OPEN_SERVICES:
            continue
        path = f"/{service}/{method.name}"
        for token in ("", "no-such-token", token_of("late")):
            assert ask(channel, path, method, token) is grpc.StatusCode.UNAUTHENTICATED, path
        # An answer that is none of these shows that it is the token that was missing.
        if not method.server_streaming:
            assert ask(channel, path, method, OWNER) is not grpc.StatusCode.UNAUTHENTICATED, path
        asked += 1
    assert asked >= 6 * 16 + 3 + 2


def test_no_other_service_is_open(secured: Secured) -> None:
    services = {service for service, _ in reflected(secured.nobody.channel)}
    assert services & OPEN_SERVICES <= OPEN_SERVICES
    assert {service.rsplit(".", 1)[0] for service in services - OPEN_SERVICES} == {
        "michelangelo.api.v2",
        "michelangelo.platform.v1",
    }


def test_a_method_is_made_by_the_one_function_that_lets_callers_in() -> None:
    """Reflection's second version is the one that is made by hand, and it is open."""
    found: dict[str, set[str]] = {}
    for path in sorted((ROOT / "api").rglob("*.py")):
        if "gen" in path.parts:
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and getattr(node.func, "attr", "").endswith("_rpc_method_handler"):
                made = node.args[0]
                how = ast.unparse(made.func) if isinstance(made, ast.Call) else ast.unparse(made)
                found.setdefault(str(path.relative_to(ROOT)), set()).add(how)
    assert found == {
        "api/services/methods.py": {"made"},
        "api/services/resources.py": {"_endpoint"},
        "api/services/reflection.py": {"servicer.ServerReflectionInfo"},
    }
    for module in ("methods", "resources"):
        assert "endpoint(" in (ROOT / "api" / "services" / f"{module}.py").read_text()
        assert "entering(entrance" in (ROOT / "api" / "services" / f"{module}.py").read_text()


def test_every_route_of_http_asks_who_calls(secured: Secured) -> None:
    asked = 0
    for path, operations in openapi.document()["paths"].items():
        url = path.format(**dict.fromkeys(("namespace", "name", "path"), "x"))
        for method in METHODS:
            for headers in ({}, {"authorization": "Bearer no-such-token"}, {"authorization": "Basic eDp5"}):
                told = secured.http.request(method, url, headers=headers)
                assert told.status_code == 401, (method, path, told.text)
                assert told.headers["www-authenticate"].startswith("Bearer"), path
                assert told.json()["reason"] == "UNAUTHENTICATED"
        asked += len(operations)
    assert asked > 100


@pytest.mark.parametrize(
    "path",
    [
        "/api",
        "/apis",
        "/api/v1",
        "/version",
        "/openapi.json",
        "/openapi/v3",
        "/apis/no/such",
        "/apis/../apis",
        "/api//x",
    ],
)
def test_what_describes_the_api_and_what_does_not_exist_ask_too(secured: Secured, path: str) -> None:
    assert secured.http.get(path).status_code == 401
    told = secured.http.get(path, headers={"authorization": f"Bearer {OWNER}"})
    assert told.status_code in (200, 404), told.text


def test_two_tokens_over_http_are_no_token(secured: Secured) -> None:
    twice = [("authorization", f"Bearer {OWNER}")] * 2
    told = secured.http.get("/apis", headers=twice)
    assert (told.status_code, told.json()["reason"]) == (400, "TWO_AUTHORIZATIONS")


def test_every_other_route_is_open_or_asks_for_the_platforms_token(
    secured: Secured, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Starlette] = []

    class Noted(Starlette):
        def __init__(self, **given: Any) -> None:
            super().__init__(**given)
            made.append(self)

    monkeypatch.setattr(app, "Starlette", Noted)
    app.build(secured._ready, secured.routes(), None)
    (application,) = made
    routes = {route.path for route in application.routes if isinstance(route, Route)}
    assert len(routes) == len(application.routes)
    assert routes == OPEN_ROUTES | REPORT_ROUTES
    for path in REPORT_ROUTES:
        for token in ("", "Bearer", f"Bearer {token_of('alice')}", f"Basic {OWNER}"):
            told = secured.http.post(path, headers={"authorization": token} if token else {}, content=b"{}")
            assert told.status_code == 401, path
    for path in OPEN_ROUTES:
        assert secured.http.get(path).status_code == 200


def test_what_is_open_names_nobody_and_nothing(secured: Secured) -> None:
    """T40: no project, user or object shows in health and metrics; there are few series."""
    from api.kinds import kinds

    project = secured.owner.project()
    secured.owner.bind(project, "EDITOR", "user:alice")
    secured.user("alice").create(kinds()["ModelFamily"].new(project, "hidden-family"))
    assert secured.http.get("/apis", headers={"authorization": f"Bearer {token_of('alice')}"}).status_code == 200
    for path in OPEN_ROUTES:
        text = secured.http.get(path).text
        assert [word for word in (project, "alice", "hidden-family", "root", OWNER) if word in text.split('"')] == []
        assert project not in text
        assert text.count("\n") < 10_000
