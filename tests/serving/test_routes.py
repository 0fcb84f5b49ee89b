"""Every route answers, and says what is wrong with a request for it."""

import pytest

from tests.serving.conftest import Stage
from tests.serving.running import ID, TOKEN, Server, request


def test_the_server_says_who_it_is(server: Server) -> None:
    found = server.call("GET", "/v2")
    assert found.status == 200
    assert found.document["name"] == "michelangelo-airflow"


@pytest.mark.parametrize(("path", "document"), [("live", {"live": True}), ("ready", {"ready": True})])
def test_health_is_told(server: Server, path: str, document: object) -> None:
    found = server.call("GET", f"/v2/health/{path}")
    assert (found.status, found.document) == (200, document)


def test_a_model_tells_what_it_reads(server: Server) -> None:
    found = server.call("GET", f"/v2/models/{ID}").document
    assert (found["name"], found["versions"], found["platform"]) == (ID, ["one"], "onnx")
    assert found["inputs"][0] == {
        "name": "carrier",
        "datatype": "BYTES",
        "shape": [-1],
        "parameters": {"dtype": "string", "required": True},
    }
    assert found["outputs"] == [{"name": "probability", "datatype": "FP64", "shape": [-1]}]


def test_a_model_tells_whether_it_is_ready(server: Server) -> None:
    found = server.call("GET", f"/v2/models/{ID}/ready")
    assert (found.status, found.document) == (200, {"name": ID, "ready": True})


def test_a_name_may_be_quoted_and_a_query_is_ignored(server: Server) -> None:
    assert server.call("POST", "/v2/models/flights%2Elate/infer?x=1", request()).status == 200


@pytest.mark.parametrize("path", ["", "/ready", "/infer"])
def test_an_unknown_model_is_not_found(server: Server, path: str) -> None:
    found = server.call("POST" if path == "/infer" else "GET", f"/v2/models/flights.other{path}", None)
    assert (found.status, found.document["reason"]) == (404, "MODEL_NOT_FOUND")


def test_a_model_that_never_loaded_is_not_ready(own_server: Server) -> None:
    own_server.deploy("file:///nowhere", "one", 1)
    assert own_server.call("GET", f"/v2/models/{ID}").status == 503
    assert own_server.call("GET", f"/v2/models/{ID}/ready").status == 503
    found = own_server.infer(request())
    assert (found.status, found.document["reason"]) == (503, "NOT_READY")


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("POST", "/v2", "GET"),
        ("DELETE", "/v2/health/live", "GET"),
        ("HEAD", "/v2/health/ready", "GET"),
        ("GET", f"/v2/models/{ID}/infer", "POST"),
        ("POST", f"/v2/models/{ID}", "GET"),
        ("PUT", f"/v2/models/{ID}/ready", "GET"),
        ("POST", "/metrics", "GET"),
        ("POST", "/admin/deployments", "GET"),
        ("PATCH", f"/admin/deployments/{ID}", "GET, PUT, DELETE"),
    ],
)
def test_a_wrong_method_is_told_the_right_one(server: Server, method: str, path: str, allowed: str) -> None:
    found = server.call(method, path, token=TOKEN)
    assert (found.status, found.headers["allow"]) == (405, allowed)


@pytest.mark.parametrize(
    "path", ["/", "/v1/models", f"/v2/models/{ID}/explain", "/v2/models", "/admin", "/../etc/passwd"]
)
def test_a_path_that_is_none_is_not_found(server: Server, path: str) -> None:
    found = server.call("GET", path, token=TOKEN)
    assert (found.status, found.document["reason"]) in {(404, "NOT_FOUND"), (404, "MODEL_NOT_FOUND")}


@pytest.mark.parametrize("token", ["", "wrong", TOKEN + "x", TOKEN[:-1], "é"])
@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
def test_admin_is_closed_without_the_token(server: Server, method: str, token: str) -> None:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    for path in ("/admin/deployments", f"/admin/deployments/{ID}"):
        found = server.call(method, path, headers=headers)
        assert (found.status, found.document["reason"]) == (401, "UNAUTHENTICATED")
    assert server.infer(request()).status == 200


def test_admin_lists_and_shows_deployments(server: Server, stage: Stage) -> None:
    shown = {
        "id": ID,
        "state": "READY",
        "current": {"revision": "one", "artifact_uri": stage.first},
        "candidate": None,
        "generation": 1,
        "reason": "",
        "message": "",
    }
    assert server.state() == shown
    assert server.call("GET", "/admin/deployments", token=TOKEN).document == {"deployments": [shown]}
    assert server.call("GET", "/admin/deployments/flights.other", token=TOKEN).status == 404


@pytest.mark.parametrize(
    ("name", "body", "field"),
    [
        (ID, {}, "revision"),
        (ID, [], ""),
        (ID, {"revision": "a", "artifact_uri": "file:///x", "generation": "7"}, "generation"),
        (ID, {"revision": "a", "artifact_uri": "file:///x", "generation": -1}, "generation"),
        (ID, {"revision": "", "artifact_uri": "file:///x", "generation": 7}, "revision"),
        (ID, {"revision": "a", "artifact_uri": "", "generation": 7}, "artifact_uri"),
        ("noproject", {"revision": "a", "artifact_uri": "file:///x", "generation": 7}, "id"),
        ("..%2F..%2Fetc.x", {"revision": "a", "artifact_uri": "file:///x", "generation": 7}, "id"),
        ("x." + "y" * 300, {"revision": "a", "artifact_uri": "file:///x", "generation": 7}, "id"),
    ],
)
def test_a_wrong_rollout_is_refused(server: Server, name: str, body: object, field: str) -> None:
    found = server.call("PUT", f"/admin/deployments/{name}", body, token=TOKEN)
    assert found.status == 400
    assert field in {item["field"] for item in found.document["violations"]} or not field
    assert [item["id"] for item in server.call("GET", "/admin/deployments", token=TOKEN).document["deployments"]] == [
        ID
    ]


def test_metrics_count_what_was_answered(own_server: Server, stage: Stage) -> None:
    own_server.deploy(stage.first, "one", 1)
    for _ in range(3):
        own_server.infer(request())
    own_server.infer(request(carrier="UA"))
    own_server.infer(b"{")
    own_server.infer(request(), name="flights.other")
    lines = own_server.call("GET", "/metrics").body.decode().splitlines()
    assert f'ma_serving_requests_total{{deployment="{ID}",code="200"}} 4' in lines
    assert f'ma_serving_requests_total{{deployment="{ID}",code="400"}} 1' in lines
    assert 'ma_serving_requests_total{deployment="",code="404"} 1' in lines
    assert f'ma_serving_request_seconds_count{{deployment="{ID}"}} 5' in lines
    assert f'ma_serving_request_seconds_bucket{{deployment="{ID}",le="+Inf"}} 5' in lines
    assert f'ma_serving_features_total{{deployment="{ID}",status="PRESENT"}} 72' in lines
    assert f'ma_serving_features_total{{deployment="{ID}",status="OUTSIDE_MAX_AGE"}} 2' in lines
    assert f'ma_serving_features_total{{deployment="{ID}",status="NOT_FOUND"}} 2' in lines
    assert f'ma_serving_unknown_categories_total{{deployment="{ID}",input="dest"}} 4' in lines
    assert f'ma_serving_current_revision{{deployment="{ID}",revision="one"}} 1' in lines
    assert "ma_serving_log_dropped_rows_total 0" in lines
    assert "ma_serving_online_store_errors_total 0" in lines
