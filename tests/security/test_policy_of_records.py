"""Each audit record says by which rights its call was allowed or denied."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace

import pytest

from api.audit import Entry
from api.auth import rights
from api.auth.entrance import IMPERSONATE_USER
from api.auth.roles import RoleAccess
from tests.security.objects import smallest
from tests.security.secured import Secured, known, outcome, token_of

POLICY = re.compile(r"([0-9a-f]{16})\.([0-9a-f]{16})@([0-9]+)")


@pytest.fixture
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    """A project with an editor and a viewer."""
    made = Secured(tmp_path_factory.mktemp("policy"), [known("alice"), known("bob")])
    made.owner.create(smallest("Project", "shop"))
    made.owner.bind("shop", "EDITOR", "user:alice")
    made.owner.bind("shop", "VIEWER", "user:bob")
    yield made
    made.close()


def last(secured: Secured, subject: str = "alice") -> Entry:
    return [entry for entry in secured.audit() if entry.subject == subject][-1]


def parts(entry: Entry) -> tuple[str, str, int]:
    match = POLICY.fullmatch(entry.policy)
    assert match is not None, entry
    return match[1], match[2], int(match[3])


def test_what_is_allowed_and_what_is_denied_names_the_same_rights(secured: Secured) -> None:
    secured.user("alice").create(smallest("ModelFamily", "shop", "a"))
    allowed = last(secured)
    assert outcome(secured.user("bob").create, smallest("ModelFamily", "shop", "b")) == "PERMISSION_DENIED"
    assert outcome(secured.user("alice").create, smallest("Deployment", "shop", "c")) == "PERMISSION_DENIED"
    assert outcome(secured.user("alice").get, "Project", "other", "other") == "NOT_FOUND"
    assert outcome(secured.user("alice").update, smallest("ModelFamily", "shop", "a")) == "INVALID_ARGUMENT"
    entries = secured.audit()[-5:]
    assert [entry.outcome for entry in entries] == [
        "OK",
        "PERMISSION_DENIED",
        "PERMISSION_DENIED",
        "NOT_FOUND",
        "INVALID_ARGUMENT",
    ]
    assert {entry.policy for entry in entries} == {allowed.policy}
    newest = max(int(item.metadata.resourceVersion) for item in secured.owner.list("RoleBinding", "shop").items)
    assert parts(allowed)[2] == newest


def test_a_change_of_rights_is_a_change_of_policy_and_nothing_else_is(secured: Secured) -> None:
    alice = secured.user("alice")
    alice.create(smallest("ModelFamily", "shop", "a"))
    rules, before, _ = parts(last(secured))
    bound = secured.owner.bind("shop", "OPERATOR", "user:alice", name="more")
    alice.create(smallest("ModelFamily", "shop", "b"))
    _, more, revision = parts(last(secured))
    assert more != before
    assert str(revision) == bound.metadata.resourceVersion
    project = secured.owner.get("Project", "shop", "shop")
    project.spec.description = "no right of anybody"
    secured.owner.update(project)
    alice.create(smallest("ModelFamily", "shop", "c"))
    assert parts(last(secured)) == (rules, more, revision)
    secured.owner.call("RoleBinding", "Delete", namespace="shop", name="more")
    alice.create(smallest("ModelFamily", "shop", "d"))
    _, after, later = parts(last(secured))
    assert after == before, "the same rights are the same policy"
    assert later > revision


def test_another_server_of_the_same_store_says_the_same(secured: Secured) -> None:
    secured.user("alice").create(smallest("ModelFamily", "shop", "a"))
    rules, bindings, revision = parts(last(secured))

    async def elsewhere() -> str:
        async with RoleAccess(secured.resources) as access:
            return access.policy

    given = parts(replace(last(secured), policy=secured.run(elsewhere())))
    assert given[:2] == (rules, bindings)
    assert given[2] >= revision


def test_other_rules_are_another_policy(monkeypatch: pytest.MonkeyPatch) -> None:
    before = rights.digest(())
    assert rights.digest(("ml",)) != before
    monkeypatch.setattr(rights, "WRITERS", {**rights.WRITERS, "Deployment": rights.EDITOR})
    assert rights.digest(()) != before


def test_a_denied_impersonation_names_the_rights_and_an_unknown_token_none(secured: Secured) -> None:
    bob = secured.caller(token_of("bob"), [(IMPERSONATE_USER, "alice")])
    assert outcome(bob.list, "ModelFamily", "shop") == "PERMISSION_DENIED"
    assert parts(last(secured, "bob"))
    assert outcome(secured.caller("no such token").list, "ModelFamily", "shop") == "UNAUTHENTICATED"
    assert last(secured, "").policy == ""


def test_without_access_the_policy_says_so(tmp_path_factory: pytest.TempPathFactory) -> None:
    made = Secured(tmp_path_factory.mktemp("off"), on=False)
    try:
        made.owner.create(smallest("Project", "shop"))
        assert made.audit()[-1].policy == "off"
    finally:
        made.close()
