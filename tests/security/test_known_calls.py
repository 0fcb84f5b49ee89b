"""A caller whose token was accepted before is known by it, in gRPC as by HTTP: with the rights that it has by now."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from api.auth.base import LONGEST_ACCEPTED, MOST_ACCEPTED, Accepted, Bearer
from api.auth.entrance import Entrance
from api.calls import Principal
from tests.security.secured import OWNER, Caller, Secured, eventually, known, outcome, token_of
from tests.security.test_known_requests import family

TIMES = 3


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[Principal | None]:
    """Who was known at once, None where the ordinary way was gone; nothing for a call that was not asked for."""
    seen: list[Principal | None] = []
    knows = Entrance.known

    def noted(self: Entrance, authorization: str | None) -> Principal | None:
        seen.append(knows(self, authorization))
        return seen[-1]

    monkeypatch.setattr(Entrance, "known", noted)
    return seen


def code_of(caller: Caller, project: str, *more: tuple[str, str]) -> str:
    """Get the one object, and return how that ended."""
    return outcome(caller.call, "ModelFamily", "Get", namespace=project, name="trees", more=more)


@pytest.fixture
def project(secured: Secured) -> str:
    made = secured.owner.project()
    family(secured, made)
    return made


def test_who_was_let_in_before_is_known(secured: Secured, project: str, told: list[Principal | None]) -> None:
    secured.owner.bind(project, "VIEWER", "user:alice")
    alice = secured.caller(token_of("alice"))
    told.clear()
    assert [code_of(alice, project) for _ in range(TIMES)] == ["OK"] * TIMES
    assert [who.subject if who else None for who in told] == [None, "alice", "alice"]
    assert [code_of(secured.caller(OWNER + "x"), project) for _ in range(TIMES)] == ["UNAUTHENTICATED"] * TIMES
    assert told[TIMES:] == [None] * TIMES


def test_who_has_lost_its_role_is_refused(secured: Secured, project: str) -> None:
    secured.owner.bind(project, "VIEWER", "user:alice", name="viewers")
    alice, bob = secured.caller(token_of("alice")), secured.caller(token_of("bob"))
    assert [code_of(alice, project) for _ in range(TIMES)] == ["OK"] * TIMES
    assert [code_of(bob, project) for _ in range(TIMES)] == ["NOT_FOUND"] * TIMES
    secured.owner.call("RoleBinding", "Delete", name="viewers", namespace=project)
    assert [code_of(alice, project) for _ in range(TIMES)] == ["NOT_FOUND"] * TIMES


def test_a_token_that_was_taken_away_or_has_expired_is_refused_and_recorded(tmp_path: Path) -> None:
    server = Secured(tmp_path, [known("alice"), known("bob", expires=int(time.time()) + 4)])
    project = server.owner.project()
    family(server, project)
    server.owner.bind(project, "VIEWER", "user:alice", "user:bob")
    alice, bob = server.caller(token_of("alice")), server.caller(token_of("bob"))
    for caller in (alice, bob):
        assert [code_of(caller, project) for _ in range(TIMES)] == ["OK"] * TIMES
    eventually(lambda: code_of(bob, project) == "UNAUTHENTICATED")
    assert code_of(alice, project) == "OK"
    server.write_tokens([known("bob")])
    eventually(lambda: code_of(alice, project) == "UNAUTHENTICATED")
    assert code_of(bob, project) == "OK"
    last = server.audit()[-1]
    assert (last.verb, last.kind, last.outcome) == ("Get", "ModelFamily", "UNAUTHENTICATED")
    server.close()


@pytest.mark.parametrize(
    ("more", "ended"),
    [
        (("authorization", f"Bearer {OWNER}"), "INVALID_ARGUMENT"),
        (("x-ma-impersonate-user", "alice"), "NOT_FOUND"),
        (("x-force", "true"), "OK"),
    ],
)
def test_a_call_that_says_more_goes_the_ordinary_way(
    secured: Secured, project: str, told: list[Principal | None], more: tuple[str, str], ended: str
) -> None:
    assert [code_of(secured.owner, project) for _ in range(TIMES)] == ["OK"] * TIMES
    told.clear()
    assert [code_of(secured.owner, project, more) for _ in range(TIMES)] == [ended] * TIMES
    assert told == []


@pytest.mark.parametrize("named", ["0b0f2f9e-0000-4000-a000-000000000000", "a name", "", "x" * 200])
def test_a_call_that_names_itself_is_answered_at_once_too(
    secured: Secured, project: str, told: list[Principal | None], named: str
) -> None:
    code_of(secured.owner, project)
    told.clear()
    assert code_of(secured.owner, project, ("x-request-id", named)) == "OK"
    assert None not in told


class AnyToken:
    """Accepts every token, for as long as it is told to."""

    def __init__(self) -> None:
        self.holds, self.checked = True, 0

    async def check(self, token: str) -> Accepted | None:
        self.checked += 1
        return Accepted(Principal(token), lambda: self.holds)


async def test_what_is_remembered_of_tokens_is_bounded_and_asked_each_time() -> None:
    check = AnyToken()
    bearer = Bearer([check])

    async def enter(token: str) -> str:
        sent: Any = [("authorization", f"Bearer {token}")]
        return (await bearer.authenticate(sent, "")).subject

    def known_as(token: str) -> Principal | None:
        return bearer.known(f"Bearer {token}")

    assert known_as("a") is None
    assert await enter("a") == "a"
    assert known_as("a") == Principal("a")
    assert known_as("A") is bearer.known("bearer a") is bearer.known(None) is None
    check.holds = False
    assert known_as("a") is None
    check.holds = True
    for number in range(MOST_ACCEPTED):
        await enter(f"t-{number}")
    assert known_as("a") is None
    assert known_as(f"t-{MOST_ACCEPTED - 1}") == Principal(f"t-{MOST_ACCEPTED - 1}")
    await enter("x" * LONGEST_ACCEPTED)
    assert known_as("x" * LONGEST_ACCEPTED) is None
