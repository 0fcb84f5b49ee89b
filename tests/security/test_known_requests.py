"""A get that was answered before is answered again by its bytes: with the rights and the object as they are now."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from api.http.swift import LARGEST_BODY, Repeated
from api.kinds import kinds
from tests.security.secured import OWNER, Secured, eventually, known, token_of

TIMES = 3


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    made = Secured(tmp_path_factory.mktemp("known"), [known("alice"), known("bob")])
    yield made
    made.close()


@pytest.fixture
def swift(monkeypatch: pytest.MonkeyPatch) -> list[bytes | None]:
    """What was answered again, None where the ordinary way was gone."""
    seen: list[bytes | None] = []
    answers = Repeated.__call__

    def noted(self: Repeated) -> bytes | None:
        seen.append(answers(self))
        return seen[-1]

    monkeypatch.setattr(Repeated, "__call__", noted)
    return seen


class Link:
    """One connection that stays open."""

    def __init__(self, server: Secured) -> None:
        self._socket = socket.create_connection(("127.0.0.1", server.http.base_url.port or 0), 20)
        self._received = b""

    def __enter__(self) -> Link:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def send(self, sent: bytes) -> None:
        self._socket.sendall(sent)

    def answer(self) -> tuple[int, dict[str, str], Any]:
        """Return the status, the headers and the JSON of the next answer."""
        while b"\r\n\r\n" not in self._received:
            self._receive()
        head, _, rest = self._received.partition(b"\r\n\r\n")
        status, *lines = head.decode().split("\r\n")
        headers = dict(line.split(": ", 1) for line in lines)
        self._received = rest
        size = int(headers["content-length"])
        while len(self._received) < size:
            self._receive()
        body, self._received = self._received[:size], self._received[size:]
        return int(status.split()[1]), headers, json.loads(body)

    def ask(self, sent: bytes) -> tuple[int, dict[str, str], Any]:
        self.send(sent)
        return self.answer()

    def _receive(self) -> None:
        part = self._socket.recv(65536)
        assert part, "the server closed the connection"
        self._received += part


def get(project: str, name: str, token: str = OWNER, *more: str) -> bytes:
    path = f"/apis/michelangelo.api/v2/namespaces/{project}/modelfamilies/{name}"
    lines = [f"GET {path} HTTP/1.1", "Host: 127.0.0.1", f"Authorization: Bearer {token}", *more]
    return "\r\n".join(lines).encode() + b"\r\n\r\n"


def family(server: Secured, project: str, name: str = "trees", text: str = "first") -> Any:
    made = kinds()["ModelFamily"].new(project, name)
    made.spec.description = text
    return server.owner.create(made)


def test_the_answer_is_the_same_but_for_its_request_id(server: Secured, swift: list[bytes | None]) -> None:
    project = server.owner.project()
    family(server, project)
    with Link(server) as link:
        answers = [link.ask(get(project, "trees")) for _ in range(TIMES)]
    assert len(swift) == TIMES - 1
    assert None not in swift
    ids = {headers.pop("x-request-id") for _, headers, _ in answers}
    assert len(ids) == TIMES
    for _, headers, _ in answers:
        headers.pop("date")
    assert answers == [answers[0]] * TIMES


def test_what_was_written_since_is_told_at_once(server: Secured, swift: list[bytes | None]) -> None:
    project = server.owner.project()
    stored = family(server, project)
    with Link(server) as link:
        for number in range(TIMES):
            stored.spec.description = f"now {number}"
            stored = server.owner.update(stored)
            _, _, found = link.ask(get(project, "trees"))
            assert found["spec"]["description"] == f"now {number}"
            assert found["metadata"]["resourceVersion"] == stored.metadata.resourceVersion
        server.owner.call("ModelFamily", "Delete", name="trees", namespace=project)
        assert link.ask(get(project, "trees"))[0] == 404
        family(server, project, text="another")
        assert link.ask(get(project, "trees"))[2]["spec"]["description"] == "another"
    assert [told is None for told in swift] == [False] * (TIMES - 1) + [True, False]


def test_who_has_lost_its_role_sees_nothing(server: Secured, swift: list[bytes | None]) -> None:
    project = server.owner.project()
    family(server, project)
    server.owner.bind(project, "VIEWER", "user:alice", name="viewers")
    asked = get(project, "trees", token_of("alice"))
    with Link(server) as link:
        assert [link.ask(asked)[0] for _ in range(TIMES)] == [200] * TIMES
        assert link.ask(get(project, "trees", token_of("bob")))[0] == 404
        server.owner.call("RoleBinding", "Delete", name="viewers", namespace=project)
        assert link.ask(asked)[0] == 404
        assert link.ask(asked)[0] == 404
    assert [told is None for told in swift] == [False] * (TIMES - 1) + [True, True]


def test_a_token_that_was_taken_away_is_refused_and_recorded(tmp_path: Path) -> None:
    server = Secured(tmp_path, [known("alice"), known("bob")])
    project = server.owner.project()
    family(server, project)
    server.owner.bind(project, "VIEWER", "user:alice")
    asked = get(project, "trees", token_of("alice"))
    with Link(server) as link:
        assert [link.ask(asked)[0] for _ in range(TIMES)] == [200] * TIMES
        server.write_tokens([known("bob")])
        eventually(lambda: link.ask(asked)[0] == 401)
    last = server.audit()[-1]
    assert (last.verb, last.kind, last.outcome) == ("Get", "ModelFamily", "UNAUTHENTICATED")
    server.close()


@pytest.mark.parametrize(
    "more",
    [
        ("Accept: application/json;as=Table;g=meta.k8s.io;v=v1",),
        ("X-Request-Id: 0b0f2f9e-0000-4000-a000-000000000000",),
        ("X-Ma-Impersonate-User: alice",),
        ("Authorization: Bearer another",),
        ("Content-Length: 0",),
    ],
)
def test_a_get_that_says_more_goes_the_ordinary_way(
    server: Secured, swift: list[bytes | None], more: tuple[str, ...]
) -> None:
    project = server.owner.project()
    family(server, project)
    with Link(server) as link:
        statuses = {link.ask(get(project, "trees", OWNER, *more))[0] for _ in range(TIMES)}
    assert len(statuses) == 1
    assert swift == []


def test_requests_that_come_together_are_answered_in_their_order(server: Secured) -> None:
    project = server.owner.project()
    names = [f"f-{number}" for number in range(4)]
    for name in names:
        family(server, project, name)
    with Link(server) as link:
        for name in names:
            assert link.ask(get(project, name))[0] == 200
        for _ in range(TIMES):
            link.send(b"".join(get(project, name) for name in names))
            assert [link.answer()[2]["metadata"]["name"] for _ in names] == names
            first = get(project, names[0])
            link.send(first[:20])
            link.send(first[20:] + get(project, names[1])[:-2])
            assert link.answer()[2]["metadata"]["name"] == names[0]
            link.send(b"\r\n" + get(project, names[2]))
            assert [link.answer()[2]["metadata"]["name"] for _ in range(2)] == names[1:3]


def test_what_is_large_is_told_too(server: Secured) -> None:
    project = server.owner.project()
    stored = family(server, project)
    with Link(server) as link:
        for length in (10, LARGEST_BODY + 1, 20):
            stored.spec.description = "x" * length
            stored = server.owner.update(stored)
            for _ in range(TIMES):
                assert len(link.ask(get(project, "trees"))[2]["spec"]["description"]) == length


def test_a_get_by_grpc_is_what_was_stored(server: Secured) -> None:
    project = server.owner.project()
    stored = family(server, project, text="x" * 300)
    assert server.owner.get("ModelFamily", project, "trees") == stored
    assert server.owner.get("Project", project, project).metadata.name == project
