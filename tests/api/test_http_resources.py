"""Kubernetes' verbs over HTTP: what is stored, what is answered, and that gRPC sees the same."""

from __future__ import annotations

import json
import threading
import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from tests.api.http_running import ROOT, HttpServed

MERGE = {"content-type": "application/merge-patch+json"}
APPLY = {"content-type": "application/apply-patch+yaml"}
TABLE = {"accept": "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"}
SPEC = {"manifest": {"filePath": "train_and_deploy"}}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HttpServed]:
    made = HttpServed(tmp_path_factory.mktemp("http") / "store.db")
    yield made
    made.close()


@pytest.fixture
def pipelines(server: HttpServed) -> str:
    """The path of the pipelines of a project of its own, with one pipeline."""
    path = f"{ROOT}/namespaces/{server.project()}/pipelines"
    server.done("POST", path, {"metadata": {"name": "train", "labels": {"team": "growth"}}, "spec": SPEC})
    return path


def test_both_transports_show_the_same_object(server: HttpServed, pipelines: str) -> None:
    shown = server.done("GET", f"{pipelines}/train")
    stored = server.get("Pipeline", pipelines.split("/")[5], "train")
    assert shown["metadata"]["uid"] == stored.metadata.uid
    assert shown["metadata"]["resourceVersion"] == stored.metadata.resourceVersion
    assert (shown["apiVersion"], shown["kind"]) == ("michelangelo.api/v2", "Pipeline")
    assert shown["spec"] == SPEC


def test_what_is_created_is_answered_with_201(server: HttpServed, pipelines: str) -> None:
    answer = server.send("POST", pipelines, {"metadata": {"generateName": "p-"}, "spec": SPEC})
    assert answer.status_code == 201
    assert answer.json()["metadata"]["name"].startswith("p-")
    taken = server.told("POST", pipelines, {"metadata": {"name": "train"}, "spec": SPEC})
    assert taken[:2] == (409, "ALREADY_EXISTS")


def test_yaml_is_read_where_json_is(server: HttpServed, pipelines: str) -> None:
    text = b"metadata:\n  name: from-yaml\n  labels: {a: no}\nspec:\n  manifest: {filePath: train_and_deploy}\n"
    made = server.send("POST", pipelines, content=text, headers={"content-type": "application/yaml"})
    assert made.json()["metadata"]["labels"]["a"] == "no"
    wrong = server.send("POST", pipelines, content=b"a: &x 1", headers={"content-type": "application/yaml"})
    assert (wrong.status_code, wrong.json()["reason"]) == (400, "YAML_FEATURE")


def test_put_replaces_what_was_read(server: HttpServed, pipelines: str) -> None:
    read = server.done("GET", f"{pipelines}/train")
    read["spec"]["description"] = "other"
    written = server.done("PUT", f"{pipelines}/train", read)
    assert written["metadata"]["generation"] == 2
    assert server.told("PUT", f"{pipelines}/train", read)[:2] == (409, "CONFLICT")
    read["metadata"].pop("resourceVersion")
    assert server.told("PUT", f"{pipelines}/train", read)[:2] == (400, "ETAG_REQUIRED")
    server.done("PUT", f"{pipelines}/train", read | {"spec": SPEC}, headers={"x-force": "true"})
    assert server.told("PUT", f"{pipelines}/other", read)[:2] == (400, "ID_MISMATCH")


def test_the_time_of_creation_may_be_sent_back_and_not_changed(server: HttpServed, pipelines: str) -> None:
    read = server.done("GET", f"{pipelines}/train")
    assert server.done("PUT", f"{pipelines}/train", read)["metadata"] == read["metadata"]
    read["metadata"]["creationTimestamp"] = "2020-01-01T00:00:00Z"
    assert server.told("PUT", f"{pipelines}/train", read)[:2] == (400, "IMMUTABLE_FIELD")


def test_a_patch_changes_what_it_names(server: HttpServed, pipelines: str) -> None:
    read = server.done("GET", f"{pipelines}/train")["metadata"]["resourceVersion"]
    patch = {"metadata": {"labels": {"team": None, "a": "b"}}, "spec": {"description": "d"}}
    patched = server.done("PATCH", f"{pipelines}/train", patch, headers=MERGE)
    assert patched["spec"] == SPEC | {"description": "d"}
    assert "team" not in patched["metadata"]["labels"]
    assert patched["metadata"]["labels"]["a"] == "b"
    nothing = server.done("PATCH", f"{pipelines}/train", patch, headers=MERGE)
    assert nothing["metadata"]["resourceVersion"] == patched["metadata"]["resourceVersion"]
    stale = {"metadata": {"resourceVersion": read}, "spec": {"description": "e"}}
    assert server.told("PATCH", f"{pipelines}/train", stale, headers=MERGE)[:2] == (409, "CONFLICT")
    wrong = {"spec": {"descripton": "e"}}
    assert server.told("PATCH", f"{pipelines}/train", wrong, headers=MERGE)[1:] == (
        "UNKNOWN_FIELD",
        ["spec.descripton"],
    )
    renamed = {"metadata": {"name": "x"}}
    assert server.told("PATCH", f"{pipelines}/train", renamed, headers=MERGE)[:2] == (400, "ID_MISMATCH")


def test_patches_at_a_time_are_all_kept(server: HttpServed, pipelines: str) -> None:
    codes: list[int] = []

    def patch(number: int) -> None:
        labels = {"metadata": {"labels": {f"n{number}": "x"}}}
        codes.append(server.send("PATCH", f"{pipelines}/train", labels, headers=MERGE).status_code)

    threads = [threading.Thread(target=patch, args=(number,)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert codes == [200] * 12
    labels = server.done("GET", f"{pipelines}/train")["metadata"]["labels"]
    assert {f"n{number}" for number in range(12)} <= set(labels)


@pytest.mark.parametrize("method", ["POST", "PATCH", "DELETE"])
def test_a_repeated_request_has_one_effect(server: HttpServed, pipelines: str, method: str) -> None:
    name = {"x-request-id": str(uuid.uuid4())}
    path, headers = f"{pipelines}/train", name
    sent: Any = None
    if method == "PATCH":
        sent, headers = {"spec": {"description": "once"}}, MERGE | name
    if method == "POST":
        path, sent = pipelines, {"metadata": {"generateName": "p-"}, "spec": SPEC}
    first = server.done(method, path, sent, headers=headers)
    if method == "PATCH":
        server.done("PATCH", path, {"spec": {"description": "twice"}}, headers=MERGE)
    before = server.log()
    assert server.done(method, path, sent, headers=headers) == first
    assert server.log() == before
    if method != "DELETE":
        other = server.send(method, path, {"metadata": {"name": "train"}, "spec": {}}, headers=headers)
        assert (other.status_code, other.json()["reason"]) == (409, "REQUEST_ID_REUSED")


def test_a_status_is_ignored_with_a_warning(server: HttpServed, pipelines: str) -> None:
    sent = {"status": {"state": "PIPELINE_STATE_READY"}, "spec": {"description": "x"}}
    answer = server.send("PATCH", f"{pipelines}/train", sent, headers=MERGE)
    assert answer.json()["status"] == {}
    assert answer.headers["warning"].startswith('299 - "status was ignored')


def test_a_delete_keeps_its_preconditions(server: HttpServed, pipelines: str) -> None:
    read = server.done("GET", f"{pipelines}/train")
    wrong = {"preconditions": {"uid": str(uuid.uuid4())}}
    assert server.told("DELETE", f"{pipelines}/train", wrong)[0] == 409
    stale = {"preconditions": {"resourceVersion": "1"}}
    assert server.told("DELETE", f"{pipelines}/train", stale)[0] == 409
    assert server.told("DELETE", f"{pipelines}/train?propagationPolicy=Later")[:2] == (400, "INVALID_ARGUMENT")
    right = {"preconditions": {"uid": read["metadata"]["uid"]}, "kind": "DeleteOptions", "apiVersion": "v1"}
    assert server.done("DELETE", f"{pipelines}/train", right)["status"] == "Success"
    assert server.told("GET", f"{pipelines}/train")[:2] == (404, "NOT_FOUND")


def test_a_collection_is_deleted_by_its_selector(server: HttpServed, pipelines: str) -> None:
    server.done("POST", pipelines, {"metadata": {"name": "other"}, "spec": SPEC})
    server.done("DELETE", f"{pipelines}?labelSelector=team%3Dgrowth")
    assert [item["metadata"]["name"] for item in server.done("GET", pipelines)["items"]] == ["other"]
    server.done("DELETE", f"{pipelines}?dryRun=All")
    server.done("DELETE", pipelines, {"dryRun": ["All"]})
    assert len(server.done("GET", pipelines)["items"]) == 1
    server.done("DELETE", pipelines)
    assert server.done("GET", pipelines)["items"] == []


def test_lists_have_pages_and_an_order(server: HttpServed, pipelines: str) -> None:
    for number in range(5):
        server.done("POST", pipelines, {"metadata": {"name": f"p{number}"}, "spec": SPEC})
    first = server.done("GET", f"{pipelines}?limit=4")
    assert first["metadata"]["remainingItemCount"] == 2
    rest = server.done("GET", f"{pipelines}?limit=4&continue={first['metadata']['continue']}")
    names = [item["metadata"]["name"] for item in [*first["items"], *rest["items"]]]
    assert names == ["p0", "p1", "p2", "p3", "p4", "train"]
    extension = {
        "orderBy": [{"field": "metadata.name", "dir": "SORT_ORDER_DESC"}],
        "operation": {
            "criterion": [
                {
                    "fieldName": "metadata.name",
                    "operator": "CRITERION_OPERATOR_LIKE",
                    "matchValue": {"@type": "type.googleapis.com/google.protobuf.StringValue", "value": "p%"},
                }
            ]
        },
        "returnedFieldSkipList": ["spec"],
    }
    listed = server.http.get(pipelines, params={"listOptionsExt": json.dumps(extension)}).json()["items"]
    assert [item["metadata"]["name"] for item in listed] == ["p4", "p3", "p2", "p1", "p0"]
    assert "spec" not in listed[0]


def test_a_table_has_a_row_of_cells_and_the_metadata(server: HttpServed, pipelines: str) -> None:
    table = server.done("GET", pipelines, headers=TABLE)
    (row,) = table["rows"]
    assert len(row["cells"]) == len(table["columnDefinitions"])
    assert row["object"]["kind"] == "PartialObjectMetadata"
    assert row["object"]["metadata"]["name"] == "train"
    one = server.done("GET", f"{pipelines}/train?includeObject=Object", headers=TABLE)
    assert one["rows"][0]["object"]["spec"] == SPEC
    assert "object" not in server.done("GET", f"{pipelines}?includeObject=None", headers=TABLE)["rows"][0]


def test_a_project_is_its_own_namespace(server: HttpServed) -> None:
    name = f"p-{uuid.uuid4().hex[:8]}"
    made = server.done("POST", f"{ROOT}/projects", {"metadata": {"name": name}})
    assert made["metadata"]["namespace"] == name
    assert server.done("GET", f"{ROOT}/namespaces/{name}/projects/{name}") == made
    assert server.done("GET", f"{ROOT}/projects/{name}") == made
    assert server.done("GET", f"/api/v1/namespaces/{name}")["status"] == {"phase": "Active"}
    server.done("DELETE", f"{ROOT}/projects/{name}")
    assert server.told("GET", f"/api/v1/namespaces/{name}")[0] == 404


def test_both_plurals_lead_to_a_kind(server: HttpServed, pipelines: str) -> None:
    runs = pipelines.replace("pipelines", "pipelineruns")
    server.done("POST", runs, {"metadata": {"name": "one"}, "spec": {"pipeline": {"name": "train"}}})
    path = pipelines.replace("pipelines", "pipeline_runs")
    assert server.done("GET", path) == server.done("GET", runs)


def test_a_platform_kind_is_served_by_the_same_code(server: HttpServed, pipelines: str) -> None:
    project = pipelines.split("/")[5]
    path = f"/apis/michelangelo.platform/v1/namespaces/{project}/rolebindings"
    spec = {"role": "ROLE_VIEWER", "subjects": [{"kind": "SUBJECT_KIND_USER", "name": "eve"}]}
    made = server.done("POST", path, {"metadata": {"name": "eve"}, "spec": spec})
    assert (made["apiVersion"], made["spec"]) == ("michelangelo.platform/v1", spec)
    assert server.done("GET", "/apis/michelangelo.platform/v1/rolebindings")["items"] != []


def test_search_finds_across_kinds(server: HttpServed, pipelines: str) -> None:
    path = "/apis/michelangelo.platform/v1/search"
    found = server.done("POST", path, {"text": "train", "namespaces": [pipelines.split("/")[5]]})
    assert ("Pipeline", "train") in [(hit["kind"], hit["name"]) for hit in found["hits"]]
    assert server.told("POST", path, {"txt": "a"})[:2] == (400, "UNKNOWN_FIELD")
    assert server.told("POST", path, {"kinds": ["Pipelin"]})[:2] == (400, "UNKNOWN_KIND")


def test_a_plan_tells_what_an_apply_would_change(server: HttpServed, pipelines: str) -> None:
    path, project = "/apis/michelangelo.platform/v1/plan", pipelines.split("/")[5]
    type_url = "type.googleapis.com/michelangelo.api.v2.ModelFamily"
    family = {"@type": type_url, "metadata": {"namespace": project, "name": "planned"}, "spec": {"name": "planned"}}
    told = server.done("POST", path, {"objects": [family]})
    assert [(each["action"], each["name"]) for each in told["changes"]] == [("CREATED", "planned")]
    assert server.told("POST", path, {"objects": []})[:2] == (400, "MISSING_FIELD")
    assert server.told("POST", path, {"objects": [{"@type": type_url}]})[0] == 400
    assert server.send("GET", path).status_code == 405
    assert (
        server.send("GET", f"/apis/michelangelo.api/v2/namespaces/{project}/modelfamilies/planned").status_code == 404
    )


def test_managers_of_fields_apply_their_own(server: HttpServed, pipelines: str) -> None:
    path = f"{pipelines}/applied"
    text = b"metadata: {name: applied, labels: {a: x}}\nspec: {manifest: {filePath: train_and_deploy}}\n"
    made = server.send("PATCH", f"{path}?fieldManager=one", content=text, headers=APPLY)
    assert made.status_code == 201, made.text
    again = server.send("PATCH", f"{path}?fieldManager=two", content=b"spec: {description: d}\n", headers=APPLY)
    assert (again.status_code, again.json()["spec"]["description"]) == (200, "d")
    assert again.json()["metadata"]["labels"]["a"] == "x"
    clash = text[:-2] + b", description: e}\n"
    refused = server.send("PATCH", f"{path}?fieldManager=one", content=clash, headers=APPLY)
    assert refused.status_code == 409
    assert "two" in refused.text
    forced = server.send("PATCH", f"{path}?fieldManager=one&force=true", content=clash, headers=APPLY)
    assert forced.json()["spec"]["description"] == "e"
    assert server.told("PATCH", path, content=text, headers=APPLY)[0] == 400


def test_a_call_that_takes_longer_than_its_caller_waits_is_told(server: HttpServed, pipelines: str) -> None:
    answer = server.send("GET", f"{pipelines}?timeout=0.000001s")
    assert (answer.status_code, answer.json()["reason"]) == (504, "DEADLINE_EXCEEDED")


def test_head_is_get_without_a_body(server: HttpServed, pipelines: str) -> None:
    answer = server.send("HEAD", f"{pipelines}/train")
    assert (answer.status_code, answer.content) == (200, b"")
    assert int(answer.headers["content-length"]) == len(server.send("GET", f"{pipelines}/train").content)


def test_every_answer_names_its_request(server: HttpServed, pipelines: str) -> None:
    assert server.send("GET", pipelines, headers={"x-request-id": "mine-1"}).headers["x-request-id"] == "mine-1"
    made = uuid.UUID(server.send("GET", pipelines).headers["x-request-id"])
    assert made.version == 4
