"""Bodies, headers and paths that no client should send: each gets its status, reason and field, and writes nothing."""

from __future__ import annotations

import gzip
import json
import time
import zlib
from collections.abc import Iterator
from typing import Any

import pytest

from tests.api.http_running import ROOT, HttpServed
from tests.patience import soon

MIB = 1024 * 1024
JSON = {"content-type": "application/json"}
MERGE = {"content-type": "application/merge-patch+json"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HttpServed]:
    made = HttpServed(tmp_path_factory.mktemp("http") / "store.db")
    made.done("POST", f"{ROOT}/projects", {"metadata": {"name": "shop"}})
    made.done(
        "POST",
        f"{ROOT}/namespaces/shop/pipelines",
        {"metadata": {"name": "train"}, "spec": {"manifest": {"filePath": "train_and_deploy"}}},
    )
    yield made
    made.close()


PIPELINES = f"{ROOT}/namespaces/shop/pipelines"
RUNS = f"{ROOT}/namespaces/shop/pipelineruns"


def run(spec: str) -> bytes:
    """Return the text of a run whose input is given as text."""
    return b'{"metadata": {"name": "r"}, "spec": ' + spec.encode("utf-8", "surrogatepass") + b"}"


@pytest.mark.parametrize(
    ("body", "reason", "field"),
    [
        (run('{"replcas": 1}'), "UNKNOWN_FIELD", "spec.replcas"),
        (run('{"pipelin": {}}'), "UNKNOWN_FIELD", "spec.pipelin"),
        (b'{"metadata": {"name": "r"}, "specs": {}}', "UNKNOWN_FIELD", "specs"),
        (run('{"description": "a", "description": "b"}'), "DUPLICATE_KEY", "spec"),
        (run('{"input": {"a": {"b": 1, "b": 1}}}'), "DUPLICATE_KEY", "spec.input.a"),
        (run('{"localDiff": "a", "local_diff": "a"}'), "DUPLICATE_KEY", "spec.local_diff"),
        (run('{"input": {"a": NaN}}'), "NOT_FINITE", "spec.input.a"),
        (run('{"input": {"a": [1, Infinity]}}'), "NOT_FINITE", "spec.input.a[1]"),
        (run('{"input": {"a": -Infinity}}'), "NOT_FINITE", "spec.input.a"),
        (run('{"input": {"a": -0}}'), "NOT_FINITE", "spec.input.a"),
        (run('{"input": {"a": -0.0}}'), "NOT_FINITE", "spec.input.a"),
        (run('{"input": {"a": 1e400}}'), "NOT_FINITE", "spec.input.a"),
        (run('{"input": {"a": 9007199254740993}}'), "UNSAFE_INTEGER", "spec.input.a"),
        (run('{"input": {"a": -9007199254740993}}'), "UNSAFE_INTEGER", "spec.input.a"),
        (run('{"input": {"a": ' + "9" * 5000 + "}}"), "UNSAFE_INTEGER", "spec.input.a"),
        (run('{"description": "\\ud800"}'), "BAD_TEXT", "spec.description"),
        (run('{"input": {"\\udc00": 1}}'), "BAD_TEXT", "spec.input"),
        (run('{"description": "a\\u0000b"}'), "BAD_TEXT", "spec.description"),
        (run('{"description": "a\x00b"}'), "BAD_TEXT", ""),
        (run('{"description": "\udfff"}'), "BAD_TEXT", ""),
        (b'{"metadata": {"name": "\xff"}}', "BAD_TEXT", ""),
        (b"\xef\xbb\xbf{}", "TRAILING_DATA", ""),
        (run("{}") + b" {}", "TRAILING_DATA", ""),
        (run("{}") + b"\x00", "TRAILING_DATA", ""),
        (b"[" * 100_000, "TOO_DEEP", ""),
        (b'{"spec": {"input": ' + b'{"a": ' * 70 + b"1" + b"}" * 72, "TOO_DEEP", ""),
        (run('{"input": ' + '{"a": ' * 40 + "1" + "}" * 41), "TOO_DEEP", "spec.input"),
        (b"", "BAD_MESSAGE", ""),
        (b"{", "BAD_MESSAGE", ""),
        (b"[]", "BAD_MESSAGE", ""),
        (b"null", "BAD_MESSAGE", ""),
        (b"'a'", "BAD_MESSAGE", ""),
        (run('{"kill": "true"}'), "INVALID_FIELDS", "spec.kill"),
        (run('{"pipeline": []}'), "INVALID_FIELDS", "spec.pipeline"),
        (run('{"notifications": {}}'), "INVALID_FIELDS", "spec.notifications"),
        (run('{"description": 5}'), "INVALID_FIELDS", "spec.description"),
        (b'{"metadata": {"name": "r", "generation": "x"}}', "INVALID_FIELDS", "metadata.generation"),
        (b'{"metadata": {"name": "r", "creationTimestamp": "now"}}', "INVALID_FIELDS", "metadata.creationTimestamp"),
        (b'{"apiVersion": "v1", "metadata": {"name": "r"}}', "ID_MISMATCH", "apiVersion"),
        (b'{"kind": "Pipeline", "metadata": {"name": "r"}}', "ID_MISMATCH", "kind"),
        (b'{"metadata": {"name": "r", "namespace": "other"}}', "ID_MISMATCH", "metadata.namespace"),
        (b'{"metadata": {"name": "R"}, "spec": {"pipeline": {"name": "train"}}}', "BAD_NAME", "metadata.name"),
        (b"{}", "INVALID_FIELDS", "metadata.name"),
    ],
)
def test_a_body_that_is_wrong_is_refused_with_its_field(
    server: HttpServed, body: bytes, reason: str, field: str
) -> None:
    status, told, fields = server.told("POST", RUNS, content=body, headers=JSON)
    assert (status, told) == (400, reason)
    assert field in fields if field else fields == []


def test_all_faults_are_told_at_once(server: HttpServed) -> None:
    body = run('{"replcas": 1, "kill": 5, "description": []}')
    _, _, fields = server.told("POST", RUNS, content=body, headers=JSON)
    assert fields == ["spec.replcas", "spec.kill", "spec.description"]
    numbers = run('{"input": {"a": 1e999, "b": 99999999999999999, "c": {"d": 1, "d": 2}}}')
    status, _, fields = server.told("POST", RUNS, content=numbers, headers=JSON)
    assert (status, fields) == (400, ["spec.input.a", "spec.input.b", "spec.input.c"])


def test_a_number_of_5000_digits_is_refused_in_ten_milliseconds(server: HttpServed) -> None:
    body = run('{"input": {"a": ' + "9" * 5000 + "}}")
    took_s = min(_timed(server, body) for _ in range(5))
    assert took_s < soon(0.01)


def _timed(server: HttpServed, body: bytes) -> float:
    began = time.perf_counter()
    assert server.send("POST", RUNS, content=body, headers=JSON).status_code == 400
    return time.perf_counter() - began


def test_the_nearest_field_is_offered(server: HttpServed) -> None:
    answer = server.send("POST", RUNS, content=run('{"pipelin": {}}'), headers=JSON)
    assert "did you mean pipeline?" in answer.json()["message"]


@pytest.mark.parametrize(
    ("headers", "content"),
    [
        (JSON, b" " * (5 * MIB)),
        (JSON, gzip.compress(b"{}" + b" " * (5 * MIB))),
        (JSON, gzip.compress(b" " * (64 * MIB))),
    ],
    ids=["long", "packed", "bomb"],
)
def test_a_body_that_is_too_large_is_refused(server: HttpServed, headers: dict[str, str], content: bytes) -> None:
    packed = {"content-encoding": "gzip"} if content[:2] == b"\x1f\x8b" else {}
    assert server.told("POST", RUNS, content=content, headers=headers | packed)[:2] == (413, "TOO_LARGE")


def test_a_packed_body_is_read(server: HttpServed) -> None:
    body = json.dumps({"metadata": {"name": "packed"}, "spec": {"pipeline": {"name": "train"}}}).encode()
    server.done("POST", RUNS, content=gzip.compress(body), headers=JSON | {"content-encoding": "gzip"})
    for broken, reason in (
        (gzip.compress(body)[:-4], "BAD_MESSAGE"),
        (gzip.compress(body) + b"x", "TRAILING_DATA"),
        (body, "BAD_MESSAGE"),
        (zlib.compress(body), "BAD_MESSAGE"),
    ):
        told = server.told("POST", RUNS, content=broken, headers=JSON | {"content-encoding": "gzip"})
        assert told[:2] == (400, reason)
    assert server.told("POST", RUNS, content=body, headers=JSON | {"content-encoding": "br"})[0] == 415


@pytest.mark.parametrize(
    "given",
    [
        "text/plain",
        "application/json; charset=utf-16",
        "application/x-www-form-urlencoded",
        "application/merge-patch+json",
        "multipart/form-data; boundary=x",
        "json",
        "",
    ],
)
def test_a_type_that_is_not_read_is_refused_with_those_that_are(server: HttpServed, given: str) -> None:
    answer = server.send("POST", RUNS, content=b"{}", headers={"content-type": given})
    assert (answer.status_code, answer.json()["reason"]) == (415, "UNSUPPORTED_MEDIA_TYPE")
    assert "application/json" in answer.json()["message"]


def test_a_patch_of_another_kind_is_refused_with_those_that_work(server: HttpServed) -> None:
    for media in ("application/strategic-merge-patch+json", "application/json-patch+json", "application/json"):
        answer = server.send("PATCH", f"{PIPELINES}/train", content=b"{}", headers={"content-type": media})
        assert answer.status_code == 415
        assert "application/merge-patch+json or application/apply-patch+yaml" in answer.json()["message"]


@pytest.mark.parametrize("given", ["application/json; charset=UTF-8", 'Application/JSON;charset="utf-8"'])
def test_a_type_with_its_characters_is_read(server: HttpServed, given: str) -> None:
    answer = server.send("POST", f"{PIPELINES}?dryRun=All", content=b"[]", headers={"content-type": given})
    assert answer.json()["reason"] == "BAD_MESSAGE"


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("POST", f"{PIPELINES}/train", "DELETE, GET, HEAD, PATCH, PUT"),
        ("PUT", PIPELINES, "DELETE, GET, HEAD, POST"),
        ("PATCH", PIPELINES, "DELETE, GET, HEAD, POST"),
        ("OPTIONS", PIPELINES, "DELETE, GET, HEAD, POST"),
        ("TRACE", PIPELINES, "DELETE, GET, HEAD, POST"),
        ("POST", f"{ROOT}/pipelines", "GET, HEAD"),
        ("DELETE", f"{ROOT}/projects", "GET, HEAD, POST"),
        ("POST", "/apis", "GET, HEAD"),
        ("DELETE", "/openapi.json", "GET, HEAD"),
        ("POST", "/api/v1/namespaces", "GET, HEAD"),
        ("GET", "/apis/michelangelo.platform/v1/search", "POST"),
    ],
)
def test_a_method_that_is_not_there_is_refused_with_those_that_are(
    server: HttpServed, method: str, path: str, allowed: str
) -> None:
    answer = server.send(method, path)
    assert (answer.status_code, answer.headers["allow"]) == (405, allowed)
    assert answer.json()["reason"] == "METHOD_NOT_ALLOWED"


@pytest.mark.parametrize(
    "path",
    [
        "/apis/michelangelo.api/v3/projects",
        "/apis/nothing/v2/projects",
        "/apis/michelangelo.api/v2/nothing",
        "/apis/michelangelo.api/v2/namespaces",
        "/apis/michelangelo.api/v2/namespaces/shop",
        "/apis/michelangelo.api/v2/namespaces//pipelines",
        "/apis/michelangelo.api/v2/namespaces/shop/pipelines/train/status",
        "/apis/michelangelo.api/v2/pipelines/train",
        "/apis/michelangelo.platform/v1/pipelines",
        "/api/v1/pods",
        "/api/v2",
        "/openapi/v2",
        "/version/x",
        "/apis/michelangelo.api/v2/namespaces/shop/pipelines/a%2Fb",
        "/apis/michelangelo.api/v2/namespaces/shop/pipelines/" + "x" * 9000,
    ],
)
def test_a_path_that_leads_nowhere_is_told_in_json(server: HttpServed, path: str) -> None:
    status, reason, _ = server.told("GET", path)
    assert status == 404
    assert reason in ("NO_ROUTE", "NOT_FOUND")


def test_a_slash_at_the_end_says_nothing(server: HttpServed) -> None:
    for path in (PIPELINES, f"{PIPELINES}/train", "/apis", "/version", f"{ROOT}/projects"):
        one, two = server.send("GET", path), server.send("GET", path + "/")
        assert (one.status_code, one.content) == (two.status_code, two.content)


@pytest.mark.parametrize(
    ("query", "reason", "field"),
    [
        ("labelSelectr=a", "BAD_PARAMETER", "labelSelectr"),
        ("limit=x", "BAD_PARAMETER", "limit"),
        ("limit=1.5", "BAD_PARAMETER", "limit"),
        ("limit=" + "9" * 30, "BAD_PARAMETER", "limit"),
        ("limit=-1", "BAD_FILTER", "list_options.limit"),
        ("limit=1&limit=2", "BAD_PARAMETER", "limit"),
        ("watch=maybe", "BAD_PARAMETER", "watch"),
        ("timeout=soon", "BAD_PARAMETER", "timeout"),
        ("labelSelector=%ff", "BAD_TEXT", "query"),
        ("labelSelector=a%00b", "BAD_TEXT", "list_options.labelSelector"),
        ("labelSelector=((", "BAD_FILTER", "list_options.labelSelector"),
        ("fieldSelector=spec.nothing%3D1", "BAD_FILTER", "list_options.fieldSelector"),
        ("continue=garbage", "BAD_TOKEN", ""),
        ("listOptionsExt={", "BAD_MESSAGE", ""),
        ('listOptionsExt={"pagination":{"limt":1}}', "UNKNOWN_FIELD", "listOptionsExt.pagination.limt"),
        ('listOptionsExt={"orderBy":[{"field":"nothing"}]}', "BAD_FILTER", "list_options_ext.order_by[0].field"),
        ("&".join(f"a{n}=1" for n in range(200)), "BAD_PARAMETER", "query"),
        ("watch=true&listOptionsExt={}", "BAD_PARAMETER", "listOptionsExt"),
        ("watch=true&sendInitialEvents=true", "BAD_PARAMETER", "sendInitialEvents"),
        ("watch=true&resourceVersion=x", "BAD_RESOURCE_VERSION", "resource_version"),
        ("watch=true&resourceVersion=-1", "BAD_RESOURCE_VERSION", "resource_version"),
        ("watch=true&resourceVersion=99999999", "RV_IN_FUTURE", "resource_version"),
    ],
)
def test_a_parameter_that_is_wrong_is_refused(server: HttpServed, query: str, reason: str, field: str) -> None:
    status, told, fields = server.told("GET", f"{PIPELINES}?{query}")
    assert (status, told) == (400, reason)
    assert field in fields if field else True


def test_a_selector_with_a_typing_error_deletes_nothing(server: HttpServed) -> None:
    assert server.told("DELETE", f"{PIPELINES}?labelSelctor=team%3Dx")[:2] == (400, "BAD_PARAMETER")
    assert server.told("DELETE", PIPELINES, {"propagationPolicyy": "Orphan"})[:2] == (400, "UNKNOWN_FIELD")
    assert server.told("DELETE", f"{ROOT}/pipelines")[:2] == (405, "METHOD_NOT_ALLOWED")
    assert server.done("GET", f"{PIPELINES}/train")["metadata"]["name"] == "train"


@pytest.mark.parametrize(
    ("request_id", "status"),
    [("", 201), ("0a0a0a0a-0000-4000-8000-00000000000a", 201), ("x", 400), ("x" * 10_000, 400), ("a\tb", 400)],
)
def test_a_request_id_of_what_writes_is_a_uuid(server: HttpServed, request_id: str, status: int) -> None:
    name = f"named-{status}-{len(request_id)}"
    body: dict[str, Any] = {"metadata": {"name": name}, "spec": {"pipeline": {"name": "train"}}}
    answer = server.send("POST", RUNS, body, headers={"x-request-id": request_id})
    assert answer.status_code == status
    if status == 400:
        assert answer.json()["reason"] == "BAD_REQUEST_ID"


@pytest.mark.parametrize(
    "headers",
    [
        {"host": "evil.example"},
        {"host": "127.0.0.1.evil.example"},
        {"host": "x/abc?"},
        {"host": "127.0.0.1:x"},
        {"host": "user@127.0.0.1"},
        {"host": ""},
        {"origin": "http://evil.example"},
        {"origin": "null"},
        {"origin": "http://127.0.0.1"},
        {"origin": "http://localhost:1"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
    ],
)
def test_a_foreign_name_or_page_gets_nothing(server: HttpServed, headers: dict[str, str]) -> None:
    assert server.told("GET", f"{ROOT}/projects", headers=headers)[:2] == (403, "FOREIGN_ORIGIN")
    body = {"metadata": {"name": "evil"}}
    assert server.told("POST", f"{ROOT}/projects", body, headers=headers)[:2] == (403, "FOREIGN_ORIGIN")


def test_its_own_names_and_pages_are_let_in(server: HttpServed) -> None:
    for host in (f"localhost:{server.port}", f"127.0.0.1:{server.port}", "localhost", "[::1]:1", "LOCALHOST"):
        assert server.send("GET", "/version", headers={"host": host}).status_code == 200
    own = f"http://127.0.0.1:{server.port}"
    answer = server.send("GET", "/version", headers={"origin": own, "sec-fetch-site": "same-origin"})
    assert answer.status_code == 200
    assert "access-control-allow-origin" not in answer.headers
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["content-security-policy"].startswith("default-src 'none'")


def test_forms_that_cannot_be_given_are_refused(server: HttpServed) -> None:
    for accepted in ("text/html", "application/xml", "application/vnd.kubernetes.protobuf", "application/json;q=0"):
        answer = server.send("GET", f"{ROOT}/projects", headers={"accept": accepted})
        assert (answer.status_code, answer.json()["reason"]) == (406, "NOT_ACCEPTABLE")
