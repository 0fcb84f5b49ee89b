"""Watches over HTTP: lines of JSON, in order, from a version or from all that there is, until told why they end."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from api.events import Limits
from api.http import watch
from tests.api.http_running import ROOT, HttpServed
from tests.patience import PATIENCE_S

SPEC = {"manifest": {"filePath": "train_and_deploy"}}
TABLE = {"accept": "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HttpServed]:
    made = HttpServed(tmp_path_factory.mktemp("watch") / "store.db", Limits(bookmark_s=0.2, queue_events=50))
    yield made
    made.close()


@pytest.fixture
def pipelines(server: HttpServed) -> str:
    """The path of the pipelines of a project of its own."""
    return f"{ROOT}/namespaces/{server.project()}/pipelines"


class Lines:
    """The events of one watch."""

    def __init__(self, response: httpx.Response) -> None:
        self.response = response
        self._lines = response.iter_lines()

    def next(self) -> Any:
        """Return the next event that is no bookmark."""
        while True:
            event = json.loads(next(self._lines))
            if event["type"] != "BOOKMARK":
                return event

    def told(self) -> tuple[str, str]:
        """Return type and name of the next event."""
        event = self.next()
        return event["type"], event["object"]["metadata"]["name"]


@contextlib.contextmanager
def watching(server: HttpServed, path: str, query: str = "", **sent: Any) -> Iterator[Lines]:
    url = f"{server.url}{path}?watch=true{query}"
    with httpx.stream("GET", url, timeout=10, **sent) as response:
        yield Lines(response)


def create(server: HttpServed, path: str, name: str, **labels: str) -> Any:
    return server.done("POST", path, {"metadata": {"name": name, "labels": labels}, "spec": SPEC})


def test_a_watch_goes_on_from_a_list_without_a_gap(server: HttpServed, pipelines: str) -> None:
    create(server, pipelines, "before")
    version = server.done("GET", pipelines)["metadata"]["resourceVersion"]
    made = create(server, pipelines, "between")
    with watching(server, pipelines, f"&resourceVersion={version}") as lines:
        assert lines.response.headers["content-type"] == "application/json"
        assert lines.response.headers["transfer-encoding"] == "chunked"
        assert lines.next() == {"type": "ADDED", "object": made}
        patch = {"metadata": {"labels": {"a": "b"}}}
        merge = {"content-type": "application/merge-patch+json"}
        patched = server.done("PATCH", f"{pipelines}/between", patch, headers=merge)
        assert lines.next() == {"type": "MODIFIED", "object": patched}
        server.done("DELETE", f"{pipelines}/between")
        gone = lines.next()
        assert (gone["type"], gone["object"]["metadata"]["name"]) == ("DELETED", "between")
        version = gone["object"]["metadata"]["resourceVersion"]
    create(server, pipelines, "after")
    with watching(server, pipelines, f"&resourceVersion={version}") as lines:
        assert lines.told() == ("ADDED", "after")


@pytest.mark.parametrize("version", ["", "&resourceVersion=0"])
def test_a_watch_without_a_version_begins_with_all(server: HttpServed, pipelines: str, version: str) -> None:
    create(server, pipelines, "one")
    create(server, pipelines, "two")
    with watching(server, pipelines, version) as lines:
        assert [lines.told(), lines.told()] == [("ADDED", "one"), ("ADDED", "two")]
        create(server, pipelines, "three")
        assert lines.told() == ("ADDED", "three")


def test_all_that_is_there_is_told_page_by_page(
    server: HttpServed, pipelines: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "PAGE", 3)
    for number in range(8):
        create(server, pipelines, f"p{number}")
    with watching(server, pipelines) as lines:
        assert [lines.told() for _ in range(8)] == [("ADDED", f"p{number}") for number in range(8)]
        create(server, pipelines, "last")
        assert lines.told() == ("ADDED", "last")


def test_a_selector_tells_what_comes_and_goes(server: HttpServed, pipelines: str) -> None:
    merge = {"content-type": "application/merge-patch+json"}
    with watching(server, pipelines, "&labelSelector=team%3Da") as lines:
        create(server, pipelines, "other", team="b")
        create(server, pipelines, "mine", team="a")
        assert lines.told() == ("ADDED", "mine")
        server.done("PATCH", f"{pipelines}/mine", {"metadata": {"labels": {"team": "b"}}}, headers=merge)
        assert lines.told() == ("DELETED", "mine")
        server.done("PATCH", f"{pipelines}/other", {"metadata": {"labels": {"team": "a"}}}, headers=merge)
        assert lines.told() == ("ADDED", "other")
    with watching(server, pipelines, "&fieldSelector=metadata.name%3Dmine") as lines:
        assert lines.told() == ("ADDED", "mine")
        create(server, pipelines, "third")
        server.done("DELETE", f"{pipelines}/mine")
        assert lines.told() == ("DELETED", "mine")


def test_all_projects_are_watched_together(server: HttpServed, pipelines: str) -> None:
    version = server.done("GET", f"{ROOT}/pipelines")["metadata"]["resourceVersion"]
    with watching(server, f"{ROOT}/pipelines", f"&resourceVersion={version}") as lines:
        create(server, pipelines, "one")
        create(server, f"{ROOT}/namespaces/{server.project()}/pipelines", "two")
        assert [lines.told(), lines.told()] == [("ADDED", "one"), ("ADDED", "two")]


def test_bookmarks_tell_how_far_it_is(server: HttpServed, pipelines: str) -> None:
    with watching(server, pipelines, "&allowWatchBookmarks=true") as lines:
        create(server, f"{ROOT}/namespaces/{server.project()}/pipelines", "elsewhere")
        version = server.done("GET", pipelines)["metadata"]["resourceVersion"]
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            event = json.loads(next(lines._lines))
            assert (event["type"], event["object"]["kind"]) == ("BOOKMARK", "Pipeline")
            if event["object"]["metadata"]["resourceVersion"] == version:
                return
    raise AssertionError("no bookmark of the last version")


def test_a_table_is_told_row_by_row(server: HttpServed, pipelines: str) -> None:
    with watching(server, pipelines, headers=TABLE) as lines:
        create(server, pipelines, "one")
        event = lines.next()
        assert (event["type"], event["object"]["kind"]) == ("ADDED", "Table")
        (row,) = event["object"]["rows"]
        assert row["cells"][0] == "one"
        assert row["object"]["metadata"]["name"] == "one"


def test_a_watch_ends_when_it_was_to_last_no_longer(server: HttpServed, pipelines: str) -> None:
    began = time.monotonic()
    with watching(server, pipelines, "&timeoutSeconds=1") as lines:
        assert list(lines._lines) == []
    assert 0.9 < time.monotonic() - began < 5


def test_a_watch_that_can_not_begin_is_refused_at_once(server: HttpServed, pipelines: str) -> None:
    told = server.told("GET", f"{pipelines}?watch=true&resourceVersion=99999999")
    assert told[:2] == (400, "RV_IN_FUTURE")
    told = server.told("GET", f"{pipelines}?watch=true&resourceVersion=-1")
    assert told[:2] == (400, "BAD_RESOURCE_VERSION")
    told = server.told("GET", f"{pipelines}?watch=true&fieldSelector=spec.nothing%3D1")
    assert told[:2] == (400, "BAD_FILTER")


def test_a_watch_that_nobody_listens_to_is_closed(server: HttpServed, pipelines: str) -> None:
    for _ in range(60):
        with watching(server, pipelines):
            pass
    deadline = time.monotonic() + PATIENCE_S
    while server.hub._watches and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not server.hub._watches


def test_the_end_of_a_watch_is_told_in_its_last_line(tmp_path: Any) -> None:
    made = HttpServed(tmp_path / "store.db")
    try:
        project = made.project()
        with watching(made, f"{ROOT}/namespaces/{project}/pipelines") as lines:
            create(made, f"{ROOT}/namespaces/{project}/pipelines", "one")
            assert lines.told() == ("ADDED", "one")
            made.run(made.hub.close())
            last = lines.next()
            assert last["type"] == "ERROR"
            assert (last["object"]["code"], last["object"]["reason"]) == (503, "SERVER_STOPPING")
            assert list(lines._lines) == []
    finally:
        made.close()


def test_a_server_stops_while_it_is_watched(tmp_path: Any) -> None:
    made = HttpServed(tmp_path / "store.db")
    with watching(made, f"{ROOT}/projects") as lines:
        name = made.project()
        assert lines.told() == ("ADDED", name)
        began = time.monotonic()
        made.close()
        assert time.monotonic() - began < 8
