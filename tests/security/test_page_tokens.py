"""T14: a page token that was changed anywhere is refused, and one of another reader or another list too."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from dataclasses import replace

import pytest

from api.errors import InvalidArgument
from api.store import tokens
from api.store.base import Query
from tests.security.objects import smallest
from tests.security.secured import Secured, known, refused

MUTATIONS = 10_000
ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_="


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    """A project with three families, and two readers of it."""
    made = Secured(tmp_path_factory.mktemp("pages"), [known("alice"), known("bob")])
    made.owner.create(smallest("Project", "shop"))
    made.owner.bind("shop", "VIEWER", "user:alice", "user:bob")
    for name in ("a", "b", "c"):
        made.owner.create(smallest("ModelFamily", "shop", name))
    yield made
    made.close()


def token(secured: Secured, reader: str) -> str:
    page = secured.user(reader).list("ModelFamily", "shop", list_options={"limit": 1})
    return str(getattr(page.metadata, "continue"))


def mutated(good: str, chance: random.Random) -> str:
    """Return a token that differs: a character changed, added, taken away or moved, or the end of another."""
    at = chance.randrange(len(good))
    match chance.randrange(5):
        case 0:
            return good[:at] + chance.choice(ALPHABET) + good[at + 1 :]
        case 1:
            return good[:at] + chance.choice(ALPHABET) + good[at:]
        case 2:
            return good[:at] + good[at + 1 :]
        case 3:
            return good[at:] + good[:at]
        case _:
            return good[:at] + "".join(chance.choices(ALPHABET, k=len(good) - at))


def test_ten_thousand_changed_tokens_are_refused(secured: Secured) -> None:
    chance = random.Random(14)
    query = Query(namespace="shop", limit=1, principal="alice")
    good = secured.run(secured.store.list("ModelFamily", query)).next
    assert good

    async def reasons() -> set[str]:
        found = set()
        for _ in range(MUTATIONS):
            changed = mutated(good, chance)
            try:
                await secured.store.list("ModelFamily", replace(query, start=changed))
                found.add(f"accepted {changed}" if changed != good else "")
            except InvalidArgument as error:
                found.add(error.reason)
        return found

    assert secured.run(reasons()) - {""} == {"BAD_TOKEN"}


def test_a_token_of_another_reader_is_refused_and_ones_own_is_taken(secured: Secured) -> None:
    mine, other = token(secured, "alice"), token(secured, "bob")
    assert mine != other
    for reader, given, taken in (("alice", mine, True), ("alice", other, False), ("bob", mine, False)):
        options = {"limit": 1, "continue": given}
        if taken:
            page = secured.user(reader).list("ModelFamily", "shop", list_options=options)
            assert [item.metadata.name for item in page.items] == ["b"]
        else:
            told = refused(secured.user(reader).list, "ModelFamily", "shop", list_options=options)
            assert (told.code, told.reason) == ("INVALID_ARGUMENT", "BAD_TOKEN")


@pytest.mark.parametrize(
    ("kind", "namespace", "more"),
    [
        ("ModelFamily", "", {}),
        ("Model", "shop", {}),
        ("ModelFamily", "shop", {"labelSelector": "a=b"}),
        ("ModelFamily", "shop", {"fieldSelector": "metadata.name!=b"}),
    ],
)
def test_a_token_of_another_list_is_refused(secured: Secured, kind: str, namespace: str, more: dict[str, str]) -> None:
    options = {"limit": 1, "continue": token(secured, "alice"), **more}
    told = refused(secured.user("alice").list, kind, namespace, list_options=options)
    assert (told.code, told.reason) == ("INVALID_ARGUMENT", "BAD_TOKEN")


def test_a_token_is_of_use_for_an_hour(secured: Secured, monkeypatch: pytest.MonkeyPatch) -> None:
    options = {"limit": 1, "continue": token(secured, "alice")}
    assert secured.user("alice").list("ModelFamily", "shop", list_options=options).items
    monkeypatch.setattr(tokens, "clock", lambda: time.time() + 3601)
    told = refused(secured.user("alice").list, "ModelFamily", "shop", list_options=options)
    assert (told.code, told.reason) == ("OUT_OF_RANGE", "EXPIRED")
    options["continue"] = token(secured, "alice")
    assert secured.user("alice").list("ModelFamily", "shop", list_options=options).items


def test_a_token_shows_no_more_after_the_right_is_gone(secured: Secured) -> None:
    mine = token(secured, "bob")
    bound = secured.owner.list("RoleBinding", "shop").items[0]
    del bound.spec.subjects[1]
    secured.owner.update(bound)
    told = refused(secured.user("bob").list, "ModelFamily", "shop", list_options={"limit": 1, "continue": mine})
    assert told.code == "NOT_FOUND"
