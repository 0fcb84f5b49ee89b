"""CloudEvents over HTTP, by hand and by header: what is stored, and how what is none is refused."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Any

import pytest

from api.kinds import kinds
from api.subscriptions.values import event_name
from tests.api.http_running import HttpServed

STRUCTURED = {"content-type": "application/cloudevents+json; charset=utf-8"}
WHOLE = {
    "specversion": "1.0",
    "type": "orders.loaded",
    "source": "/warehouse/orders",
    "id": "2026-11-21",
    "time": "2026-11-21T06:00:00Z",
    "subject": "day",
    "region": "eu",
    "sequence": 7,
    "urgent": True,
    "datacontenttype": "application/json",
    "data": {"rows": 3, "day": None},
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HttpServed]:
    made = HttpServed(tmp_path_factory.mktemp("events") / "store.db")
    yield made
    made.close()


@pytest.fixture
def project(server: HttpServed) -> str:
    return server.project()


def path_of(project: str) -> str:
    return f"/apis/michelangelo.platform/v1/namespaces/{project}/cloudevents"


def published(server: HttpServed, project: str, answer: Any) -> dict[str, Any]:
    assert answer.status_code == 201, answer.text
    found = server.done("GET", f"/apis/michelangelo.platform/v1/namespaces/{project}/events/{answer.json()['event']}")
    assert isinstance(found, dict)
    return found


def test_null_leaves_an_attribute_out(server: HttpServed, project: str) -> None:
    unset = dict.fromkeys(("subject", "time", "dataschema", "datacontenttype", "region"))
    answer = server.send("POST", path_of(project), WHOLE | unset, headers=STRUCTURED)
    spec = published(server, project, answer)["spec"]
    assert "subject" not in spec
    assert spec["attributes"] == {"sequence": "7", "urgent": "true"}


def test_structured_mode_keeps_every_attribute(server: HttpServed, project: str) -> None:
    answer = server.send("POST", path_of(project), WHOLE, headers=STRUCTURED)
    found = published(server, project, answer)
    assert found["metadata"]["name"] == event_name("orders.loaded", "/warehouse/orders", "2026-11-21")
    spec = dict(found["spec"])
    assert spec.pop("expireTime") > "2026-11-27"
    assert spec == {
        "name": "orders.loaded",
        "source": "/warehouse/orders",
        "key": "2026-11-21",
        "subject": "day",
        "time": "2026-11-21T06:00:00Z",
        "data": {"rows": 3, "day": None},
        "attributes": {
            "region": "eu",
            "sequence": "7",
            "urgent": "true",
            "datacontenttype": "application/json",
        },
    }
    again = server.send("POST", path_of(project), WHOLE, headers=STRUCTURED)
    assert (again.status_code, again.json()) == (200, {"event": found["metadata"]["name"], "duplicate": True})


@pytest.mark.parametrize(
    ("media", "body", "data"),
    [
        ("application/json", b'{"rows": 3}', {"rows": 3}),
        ("application/vnd.acme+json", b"[1, 2]", [1, 2]),
        ("text/plain", "größer".encode(), "größer"),
        ("", b"", None),
    ],
)
def test_binary_mode_takes_attributes_from_headers(
    server: HttpServed, project: str, media: str, body: bytes, data: Any
) -> None:
    headers = {
        "ce-specversion": "1.0",
        "ce-type": "orders.loaded",
        "ce-source": "/warehouse",
        "ce-id": "a%20b",
        "ce-region": "%C3%A9u",
        **({"content-type": media} if media else {}),
    }
    spec = published(server, project, server.send("POST", path_of(project), headers=headers, content=body))["spec"]
    assert (spec["key"], spec.get("data"), spec["attributes"]["region"]) == ("a b", data, "éu")


BINARY = {f"ce-{name}": str(WHOLE[name]) for name in ("specversion", "type", "source", "id")}


@pytest.mark.parametrize(
    ("change", "headers", "told"),
    [
        ({"specversion": "0.3"}, STRUCTURED, (400, "BAD_SPECVERSION", ["specversion"])),
        ({"id": None}, STRUCTURED, (400, "MISSING_FIELD", ["id"])),
        ({"id": "", "type": ""}, STRUCTURED, (400, "MISSING_FIELD", ["id", "type"])),
        ({"type": "ma.run.failed"}, STRUCTURED, (400, "RESERVED_NAME", ["type"])),
        ({"type": "orders loaded"}, STRUCTURED, (400, "INVALID_FIELDS", ["type"])),
        ({"time": "yesterday"}, STRUCTURED, (400, "BAD_TIME", ["time"])),
        ({"Region": "eu"}, STRUCTURED, (400, "BAD_ATTRIBUTE", ["Region"])),
        ({"region": {"a": 1}}, STRUCTURED, (400, "BAD_ATTRIBUTE", ["region"])),
        ({"id": 7, "dataschema": True}, STRUCTURED, (400, "BAD_ATTRIBUTE", ["id", "dataschema"])),
        ({"data": "x" * 50_000}, STRUCTURED, (413, "TOO_LARGE", ["data"])),
        ({"macause": "no-such-run"}, STRUCTURED, (400, "UNKNOWN_REFERENCE", ["cause"])),
        (
            {"data": None, "data_base64": base64.b64encode(b"x").decode()},
            STRUCTURED,
            (400, "NOT_JSON", ["data_base64"]),
        ),
        ({}, {"content-type": "application/cloudevents-batch+json"}, (415, "UNSUPPORTED_MEDIA_TYPE", [])),
        ({}, {"content-type": "application/json"}, (415, "UNSUPPORTED_MEDIA_TYPE", [])),
        ({}, {**BINARY, "content-type": "application/octet-stream"}, (415, "UNSUPPORTED_MEDIA_TYPE", [])),
        ({}, {**BINARY, "ce-id": "%ff", "content-type": "application/json"}, (400, "BAD_TEXT", ["id"])),
    ],
)
def test_what_is_no_cloudevent_is_refused_by_its_own_names(
    server: HttpServed, project: str, change: dict[str, Any], headers: dict[str, str], told: tuple[int, str, list[str]]
) -> None:
    event = {key: value for key, value in {**WHOLE, **change}.items() if value is not None}
    answer = server.send("POST", path_of(project), event, headers=headers)
    body = answer.json()
    fields = [violation["field"] for violation in body["field_violations"]]
    assert (answer.status_code, body["reason"], fields) == told, answer.text
    assert server.done("GET", f"/apis/michelangelo.platform/v1/namespaces/{project}/events")["items"] == []


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b'{"id": 1, "id": 2}', b"\xff"])
def test_bytes_that_are_no_event_are_refused(server: HttpServed, project: str, text: bytes) -> None:
    answer = server.send("POST", path_of(project), headers=STRUCTURED, content=text)
    assert answer.status_code == 400, answer.text


def test_another_method_and_an_unknown_project_are_refused(server: HttpServed, project: str) -> None:
    assert server.send("GET", path_of(project)).status_code == 405
    answer = server.send("POST", path_of("nowhere"), WHOLE, headers=STRUCTURED)
    assert (answer.status_code, answer.json()["reason"]) == (404, "UNKNOWN_PROJECT")


def test_an_event_can_be_declared_like_any_resource_and_its_name_is_its_key(server: HttpServed, project: str) -> None:
    root = f"/apis/michelangelo.platform/v1/namespaces/{project}/events"
    server.done("POST", root, {"metadata": {"name": "by-hand"}, "spec": {"name": "orders.loaded", "data": 1}})
    keyed = {"metadata": {"name": "by-hand-2"}, "spec": {"name": "orders.loaded", "key": "k"}}
    refused = server.send("POST", root, keyed)
    assert (refused.status_code, refused.json()["reason"]) == (400, "BAD_NAME")
    name = event_name("orders.loaded", "", "k")
    assert name in refused.json()["message"]
    server.done("POST", root, {**keyed, "metadata": {"name": name}})
    deep = {"metadata": {"name": "deep"}, "spec": {"name": "orders.loaded", "depth": 3}}
    assert server.send("POST", root, deep).json()["reason"] == "BAD_DEPTH"
    changed = server.done("GET", f"{root}/by-hand")
    changed["spec"]["data"] = 2
    assert server.send("PUT", f"{root}/by-hand", changed).json()["reason"] == "IMMUTABLE_FIELD"
    assert kinds()["Event"].immutable
