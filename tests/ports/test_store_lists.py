"""What every store promises of lists: conditions, order, pages of one revision, tokens of one list and principal."""

from __future__ import annotations

import functools
import itertools
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest

from api.errors import Expired, InvalidArgument
from api.store import conditions, tokens
from api.store.base import (
    LARGEST_PAGE,
    Criterion,
    Group,
    LabelRequirement,
    Operator,
    Page,
    Preconditions,
    Query,
    Store,
    Write,
)
from api.store.values import UPDATED_LABEL
from tests.api.listing_model import matches
from tests.ports.stores import PROJECT, create, key, names, resource

KIND = "Model"
TEXTS = ("", "a", "ab", "A", "größe", "线性", "a%b", "a_b", "a\\b", "x" * 255, "x" * 256, "x" * 300, "x" * 300 + "y")
OPERATORS = tuple(Operator)
Test = Callable[[Any], bool]
FIELDS: Mapping[str, tuple[Callable[[Any], Any], Sequence[Any]]] = {
    "description": (lambda item: item.spec.description, TEXTS),
    "owner": (
        lambda item: item.spec.owner.name if item.spec.HasField("owner") else None,
        ("", "ada", "bob", "x" * 256),
    ),
    "revision_id": (lambda item: item.spec.revision_id, (-3, 0, 1, 2, 2.5, 2**31 - 1, 2**53 + 1, True)),
    "model_family.name": (
        lambda i: i.spec.model_family.name if i.spec.HasField("model_family") else None,
        ("one", "é"),
    ),
    "metadata.name": (lambda item: item.metadata.name, ("m-1", "m-2", "n-9", "zz")),
    "metadata.namespace": (lambda item: item.metadata.namespace, ("a", "b", "c", "none")),
    "metadata.update_timestamp": (lambda item: int(item.metadata.labels[UPDATED_LABEL]), (1, 2, 3)),
    "metadata.creation_timestamp": (lambda item: item.metadata.creationTimestamp.seconds * 1_000_000, (0, 5_000_000)),
}
LABELS = ("team", "tier", "a.b/c")
VALUES = ("", "a", "b", "B")


def model(pick: random.Random, number: int) -> Any:
    made = resource(f"{pick.choice('mn')}-{number}", kind=KIND, namespace=pick.choice("abc"))
    made.spec.description = pick.choice(TEXTS)
    made.spec.revision_id = pick.choice((-3, -1, 0, 1, 2, 3, 2**31 - 1))
    made.metadata.creationTimestamp.seconds = pick.randint(0, 9)
    made.metadata.creationTimestamp.nanos = 0
    made.metadata.labels[UPDATED_LABEL] = str(pick.randint(0, 4))
    if pick.random() < 0.5:
        made.spec.owner.name = pick.choice(("", "ada", "bob", "x" * 256))
    if pick.random() < 0.5:
        made.spec.model_family.name = pick.choice(("one", "two", "é"))
    for label in LABELS:
        if pick.random() < 0.5:
            made.metadata.labels[label] = pick.choice(VALUES)
    return made


@pytest.fixture
async def items(store: Store) -> Sequence[Any]:
    pick = random.Random(3)
    return [await create(store, model(pick, number)) for number in range(120)]


def criterion(pick: random.Random) -> tuple[Criterion, Test]:
    field, (of, near) = pick.choice(list(FIELDS.items()))
    operator = pick.choice([one for one in OPERATORS if one is not Operator.LIKE or isinstance(near[0], str)])
    values: tuple[Any, ...] = (pick.choice(near),)
    if operator in (Operator.IN, Operator.NOT_IN):
        values = tuple(pick.choice(near) for _ in range(pick.choice((0, 1, 2, 3, 150))))
    elif operator in (Operator.IS_NULL, Operator.IS_NOT_NULL):
        values = ()
    elif operator is Operator.LIKE:
        text = str(values[0])[:20]
        values = (pick.choice(("", "%", "_")) + text[: pick.randint(0, len(text))] + pick.choice(("", "%", "_", "%a")),)
    return Criterion(field, operator, values), lambda item: matches(operator.name, of(item), values)


def condition(pick: random.Random, depth: int = 0) -> tuple[Criterion | Group, Test]:
    if depth == 3 or pick.random() < 0.5:
        return criterion(pick)
    parts = [condition(pick, depth + 1) for _ in range(pick.randint(1, 3))]
    any_of = pick.random() < 0.5
    join = any if any_of else all
    return Group(tuple(part for part, _ in parts), any=any_of), lambda item: join(test(item) for _, test in parts)


def label(pick: random.Random) -> tuple[LabelRequirement, Test]:
    name, operator = pick.choice((*LABELS, "none")), pick.choice(("in", "notin", "exists", "absent"))
    values = tuple(pick.choice(VALUES) for _ in range(pick.randint(1, 2))) if operator in ("in", "notin") else ()
    tests: dict[str, Callable[[Mapping[str, str]], bool]] = {
        "in": lambda labels: name in labels and labels[name] in values,
        "notin": lambda labels: name not in labels or labels[name] not in values,
        "exists": lambda labels: name in labels,
        "absent": lambda labels: name not in labels,
    }
    return LabelRequirement(name, operator, values), lambda item: tests[operator](item.metadata.labels)


def ordered(found: Sequence[Any], order: Sequence[tuple[str, bool]]) -> list[Any]:
    """Sort as a list is sorted: absent values first, and last when descending."""
    arranged = sorted(found, key=lambda item: (item.metadata.namespace, item.metadata.name))
    for field, descending in reversed(order):
        of = FIELDS[field][0]
        arranged.sort(key=functools.partial(rank, of), reverse=descending)
    return arranged


def rank(of: Callable[[Any], Any], item: Any) -> tuple[bool, Any]:
    value = of(item)
    return value is not None, 0 if value is None else value


async def walk(store: Store, query: Query, limit: int) -> tuple[list[Any], set[int]]:
    """Return objects and revisions of all pages."""
    found: list[Any] = []
    revisions: set[int] = set()
    start = ""
    for _ in itertools.count():
        page = await store.list(KIND, other(query, limit=limit, start=start))
        assert len(page.items) <= limit
        found += page.items
        revisions.add(page.revision)
        start = page.next
        if not start:
            return found, revisions
        assert page.items
    raise AssertionError


@pytest.mark.parametrize("few", [1000, 5])
async def test_a_list_is_what_a_person_would_pick(
    store: Store, items: Sequence[Any], monkeypatch: pytest.MonkeyPatch, few: int
) -> None:
    # What is few decides where a list begins, never what is in it.
    monkeypatch.setattr(conditions, "FEW", few)
    pick, seen, hits = random.Random(5), set(), 0
    for number in range(150):
        labels = [label(pick) for _ in range(pick.choice((0, 0, 1, 2)))]
        where, test = condition(pick) if pick.random() < 0.8 else (None, lambda _: True)
        order = tuple((pick.choice(list(FIELDS)), pick.random() < 0.5) for _ in range(pick.choice((0, 0, 1, 2))))
        namespace = pick.choice(("", "", "a"))
        namespaces = pick.choice((None, None, frozenset("ab"), frozenset("bc"), frozenset()))
        query = Query(namespace, tuple(part for part, _ in labels), where, order, namespaces=namespaces)
        right = [
            item
            for item in items
            if test(item)
            and all(met(item) for _, met in labels)
            and namespace in ("", item.metadata.namespace)
            and (namespaces is None or item.metadata.namespace in namespaces)
        ]
        right = ordered(right, order)
        page = await store.list(KIND, query)
        assert page.items == right, f"{number}: {query}"
        limit = pick.choice((1, 3, 7, 200))
        assert (await walk(store, query, limit))[0] == right, f"{number}: pages of {limit}: {query}"
        offset = pick.randint(0, 20)
        part = await store.list(KIND, other(query, offset=offset, limit=limit, count=True))
        assert part.items == right[offset : offset + limit], f"{number}: from {offset}: {query}"
        assert part.remaining == max(0, len(right) - offset - limit)
        seen |= {where.operator} if isinstance(where, Criterion) else set()
        hits += len(right)
    assert seen == set(Operator)
    assert hits > 1000, "a store that finds nothing would pass"


async def test_pages_show_one_revision_or_have_expired(store: Store, items: Sequence[Any]) -> None:
    query = Query(order=(("revision_id", True),), limit=50)
    first = await store.list(KIND, query)
    await create(store, resource("family", kind="ModelFamily"))
    second = await store.list(KIND, other(query, start=first.next))
    assert second.revision == first.revision
    await store.delete(key(items[0].metadata.name, KIND, items[0].metadata.namespace), Preconditions())
    try:
        third = await store.list(KIND, other(query, start=second.next))
    except Expired:
        # A store that keeps no past says so.
        return
    assert third.revision == first.revision
    assert [*first.items, *second.items, *third.items] == ordered(items, query.order)


def other(query: Query, **changes: Any) -> Query:
    return replace(query, **changes)


async def test_a_token_is_of_use_for_its_list_and_its_principal_alone(store: Store, items: Sequence[Any]) -> None:
    query = Query(labels=(LabelRequirement("team", "exists"),), limit=5, principal="ada", namespaces=frozenset("ab"))
    first = await store.list(KIND, query)
    assert first.next
    changes: list[dict[str, Any]] = [
        {"principal": "bob"},
        {"principal": ""},
        {"namespaces": frozenset("abc")},
        {"namespaces": None},
        {"namespace": "a"},
        {"labels": ()},
        {"order": (("owner", False),)},
        {"where": Criterion("owner", Operator.EQUAL, ("ada",))},
        {"start": first.next[:-4] + "AAA="},
        {"start": "x" + first.next},
        {"start": first.next + "\n"},
        {"start": "größe"},
    ]
    for change in changes:
        with pytest.raises(InvalidArgument) as refused:
            await store.list(KIND, other(query, **{"start": first.next} | change))
        assert refused.value.reason == "BAD_TOKEN"
    with pytest.raises(InvalidArgument):
        await store.list("ModelFamily", other(query, start=first.next))
    assert await store.list(KIND, other(query, start=first.next, limit=7))


async def test_a_token_is_of_use_for_an_hour(
    store: Store, items: Sequence[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    query = Query(limit=5)
    first = await store.list(KIND, query)
    monkeypatch.setattr(tokens, "clock", lambda: time.time() + tokens.KEPT_S - 60)
    second = await store.list(KIND, other(query, start=first.next))
    monkeypatch.setattr(tokens, "clock", lambda: time.time() + tokens.KEPT_S + 60)
    with pytest.raises(Expired, match="60 minutes"):
        await store.list(KIND, other(query, start=first.next))
    assert [*first.items, *second.items] == ordered(items, ())[:10]
    third = await store.list(KIND, other(query, start=second.next))
    assert (third.revision, len(third.items)) == (first.revision, 5)
    with pytest.raises(InvalidArgument):
        await store.list(KIND, other(query, start=first.next, principal="bob"))


async def test_who_may_see_no_namespace_sees_nothing(store: Store, items: Sequence[Any]) -> None:
    assert items
    for namespace in ("", "a"):
        page = await store.list(KIND, Query(namespace=namespace, namespaces=frozenset(), limit=5, count=True))
        assert (page.items, page.next, page.remaining) == ([], "", 0)
    page = await store.list(KIND, Query(namespace="a", namespaces=frozenset("b"), limit=5))
    assert (page.items, page.next) == ([], "")


async def test_a_page_of_large_objects_ends_early_and_goes_on(store: Store) -> None:
    for number in range(9):
        await create(store, resource(f"m-{number}", kind=KIND, text="x" * 600_000))
    page: Page = await store.list(KIND, Query(limit=LARGEST_PAGE))
    assert 2 <= len(page.items) < 9
    short: Page = await store.list(KIND, Query(limit=100))
    assert (len(short.items), bool(short.next)) == (1, True)
    assert [item.metadata.name for item in (await walk(store, Query(), 100))[0]] == [f"m-{n}" for n in range(9)]
    assert len((await store.list(KIND, Query())).items) == 9


async def test_a_list_follows_what_objects_become(store: Store) -> None:
    await create(store, resource("a", kind=KIND, text="x" * 300, team="a", tier="1"))
    made = await store.get(key("a", KIND))
    del made.metadata.labels["tier"]
    made.metadata.labels["team"] = "b"
    made.spec.description = "short"
    made.spec.owner.name = "ada"
    await store.update(Write(made, made.metadata.resourceVersion))
    for requirement, found in (
        (LabelRequirement("team", "in", ("a",)), []),
        (LabelRequirement("team", "in", ("b",)), ["a"]),
        (LabelRequirement("tier", "exists"), []),
    ):
        assert await names(store, KIND, Query(PROJECT, (requirement,))) == found
    for where, found in (
        (Criterion("description", Operator.LIKE, ("x%",)), []),
        (Criterion("description", Operator.EQUAL, ("short",)), ["a"]),
        (Criterion("owner", Operator.IS_NOT_NULL), ["a"]),
    ):
        assert await names(store, KIND, Query(PROJECT, where=where)) == found
