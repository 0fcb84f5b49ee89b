"""The same isolation over HTTP, where other words lead to the same methods: paths, watches, tables, namespaces."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from api.kinds import Kind, kinds
from tests.security.matrix import MEMBERS, OUTSIDERS, verdict
from tests.security.objects import NAME, OF_THE_SYSTEM
from tests.security.test_ids import collection, document
from tests.security.test_isolation_matrix import IN_PROJECTS, MINE, THEIRS, World, world

__all__ = ["world"]
TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io"
CODES = {"OK": {200, 201}, "NOT_FOUND": {404}, "PERMISSION_DENIED": {403}, "UNAUTHENTICATED": {401}}
EVERYBODY = (*OUTSIDERS, *MEMBERS)


def ask(world: World, who: str, method: str, path: str, value: Any = None, **headers: str) -> httpx.Response:
    sent = {**dict(world.callers[who].metadata), **{name.replace("_", "-"): text for name, text in headers.items()}}
    return world.secured.http.request(method, path, json=value, headers=sent)


def place(kind: Kind, project: str) -> str:
    """Return the path of the object of a kind in a project."""
    return f"{collection(kind, project)}/{project if kind.name == 'Project' else NAME}"


@pytest.mark.parametrize("name", IN_PROJECTS)
def test_a_path_means_what_its_method_means(world: World, name: str) -> None:
    """By the table of the matrix: read, delete and delete all, each a dry run where it would write."""
    kind = kinds()[name]
    for who in ("nobody", "late", *EVERYBODY):
        for project in (MINE, THEIRS):
            for verb, method, path in (
                ("Get", "GET", place(kind, project)),
                ("List", "GET", collection(kind, project)),
                ("Delete", "DELETE", f"{place(kind, project)}?dryRun=All"),
                ("DeleteCollection", "DELETE", f"{collection(kind, project)}?dryRun=All"),
            ):
                told = ask(world, who, method, path)
                wanted = CODES[verdict(who, verb, name, own=project == MINE)]
                assert told.status_code in wanted, (who, method, path, told.text)


@pytest.mark.parametrize("name", IN_PROJECTS)
def test_nothing_of_others_is_in_any_list_or_table(world: World, name: str) -> None:
    kind = kinds()[name]
    everywhere = f"/apis/{kind.group_version}/{kind.plural.replace('_', '')}"
    for who in EVERYBODY:
        for accept in ("application/json", TABLE):
            for query in ("", "?limit=1", f"?fieldSelector=metadata.namespace%3D{THEIRS}", "?labelSelector=%21x"):
                told = ask(world, who, "GET", everywhere + query, accept=accept)
                assert told.status_code == 200, told.text
                assert THEIRS not in told.text, (who, query)


@pytest.mark.parametrize("who", EVERYBODY)
def test_nothing_of_others_is_among_namespaces_or_hits(world: World, who: str) -> None:
    own = "third" if who in OUTSIDERS else MINE
    told = ask(world, who, "GET", "/api/v1/namespaces")
    assert {item["metadata"]["name"] for item in told.json()["items"]} == {own}
    hidden, absent = (ask(world, who, "GET", f"/api/v1/namespaces/{name}") for name in (THEIRS, "absent"))
    assert hidden.status_code == absent.status_code == 404
    assert hidden.json()["message"].replace(THEIRS, "X") == absent.json()["message"].replace("absent", "X")
    told = ask(world, who, "POST", "/apis/michelangelo.platform/v1/search", {"text": THEIRS})
    assert told.status_code == 200, told.text
    assert told.json().get("hits", []) == []
    told = ask(world, who, "POST", "/apis/michelangelo.platform/v1/search", {"kinds": ["RoleBinding", "Project"]})
    assert {hit["namespace"] for hit in told.json()["hits"]} == {own}


@pytest.mark.parametrize("who", ["stranger", "admin"])
def test_a_watch_of_anothers_project_is_none(world: World, who: str) -> None:
    kind = kinds()["RoleBinding"]
    query = "?watch=true&resourceVersion=0&timeoutSeconds=1"
    told = ask(world, who, "GET", collection(kind, THEIRS) + query)
    assert told.status_code == 404, told.text
    told = ask(world, who, "GET", f"/apis/{kind.group_version}/rolebindings{query}")
    assert told.status_code == 200, told.text
    assert THEIRS not in told.text
    assert ("third" if who in OUTSIDERS else MINE) in told.text


@pytest.mark.parametrize("name", sorted(OF_THE_SYSTEM))
def test_what_belongs_to_the_system_is_not_there_for_others(world: World, name: str) -> None:
    for who in EVERYBODY:
        assert ask(world, who, "GET", f"{collection(kinds()[name], 'ma-system')}/{NAME}").status_code == 404


def test_what_was_hidden_is_there_for_whoever_may_see_it(world: World) -> None:
    """The positive control: the words that never showed above do show to the owner."""
    owner = dict(world.secured.owner.metadata)
    for path in ("/api/v1/namespaces", "/apis/michelangelo.api/v2/models", "/apis/michelangelo.api/v2/projects"):
        assert THEIRS in world.secured.http.get(path, headers=owner).text
    sent = document(world.stored("ModelFamily", THEIRS))
    assert sent["metadata"]["namespace"] == THEIRS
