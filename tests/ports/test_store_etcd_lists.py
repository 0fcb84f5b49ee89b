"""Lists of the store on etcd, which picks objects in Python, against lists computed by hand and against SQLite's."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from api.gen.michelangelo.api import list_pb2 as wire
from api.kinds import kinds
from api.listing import parse_selector, query_of
from api.resources import Resources
from api.store.base import Criterion, Key, Operator, Query, Write
from api.store.etcd import EtcdStore, open_etcd
from api.store.etcd_query import like
from api.store.sqlite import SqliteStore
from tests.api.listing_model import Asker, matches
from tests.api.test_listing_model import fill, names, requirement
from tests.etcd_servers import EtcdServer

QUERIES = 40
KINDS = ("Project", "Model", "PipelineRun", "TriggerRun")


@pytest.fixture(scope="module")
def url(etcd: EtcdServer) -> str:
    return etcd.url()


@pytest.fixture(scope="module")
def filled(url: str) -> Mapping[str, Sequence[Any]]:
    async def work() -> Mapping[str, Sequence[Any]]:
        store = await open_etcd(url)
        made = await fill(Resources(store))
        await store.close()
        return made

    return asyncio.run(work())


@pytest.fixture
async def store(url: str) -> Any:
    made = await open_etcd(url)
    yield made
    await made.close()


@pytest.mark.parametrize("kind", KINDS)
async def test_a_list_is_what_a_person_would_pick(
    store: EtcdStore, filled: Mapping[str, Sequence[Any]], kind: str
) -> None:
    asker, pick, found = Asker(kind, filled[kind], seed=21), random.Random(21), 0
    for number in range(QUERIES):
        operation, test = asker.operation()
        order, arranged = asker.order()
        namespace = pick.choice(("", "", "p-a"))
        offset, limit = pick.choice(((0, 0), (5, 20), (3, 1), (1_000, 10)))
        extension = wire.ListOptionsExt(
            operation=operation, order_by=order, pagination=wire.PaginationSpec(offset=offset, limit=limit)
        )
        options = kinds()[kind].method("List").input_type._concrete_class().list_options  # type: ignore[attr-defined]
        page = await store.list(kind, query_of(kinds()[kind], namespace, options, extension))
        right = arranged([i for i in filled[kind] if test(i) and namespace in ("", i.metadata.namespace)])
        expected = right[offset : offset + limit] if limit else right[offset:]
        assert names(page.items) == names(expected), f"query {number}: {extension}"
        assert page.remaining == max(0, len(right) - offset - len(expected))
        found += len(expected)
    assert found > QUERIES, "the queries would be satisfied by a store that finds nothing"


@pytest.mark.parametrize("kind", ["Model", "PipelineRun", "Project"])
async def test_a_label_selector_finds_what_it_says(
    store: EtcdStore, filled: Mapping[str, Sequence[Any]], kind: str
) -> None:
    pick, found = random.Random(23), 0
    for _ in range(QUERIES):
        terms = [requirement(pick) for _ in range(pick.randint(1, 3))]
        page = await store.list(kind, Query(labels=parse_selector(",".join(text for text, _ in terms))))
        right = [i for i in filled[kind] if all(test(i.metadata.labels) for _, test in terms)]
        assert sorted(names(page.items)) == sorted(names(right))
        found += len(right)
    assert found > QUERIES


@pytest.mark.parametrize("namespace", ["", "p-a"])
@pytest.mark.parametrize("limit", [7, 299, 1000])
async def test_pages_are_the_whole_list_in_order(store: EtcdStore, filled: Any, namespace: str, limit: int) -> None:
    assert filled
    for order in ((), (("revision_id", True), ("metadata.creation_timestamp", False))):
        query = Query(namespace, order=order)
        whole = names((await store.list("Model", query)).items)
        found: list[str] = []
        query = replace(query, limit=limit)
        while True:
            page = await store.list("Model", query)
            found += names(page.items)
            assert page.remaining == len(whole) - len(found)
            if not page.next:
                break
            query = replace(query, start=page.next)
        assert found == whole


async def test_a_list_for_some_projects_shows_no_other(store: EtcdStore, filled: Any) -> None:
    assert filled
    seen = await store.list("Model", Query(namespaces=frozenset({"p-b", "gone"})))
    assert {item.metadata.namespace for item in seen.items} == {"p-b"}
    assert not (await store.list("Model", Query("p-a", namespaces=frozenset({"p-b"})))).items
    assert not (await store.list("Model", Query("p-a", limit=5, namespaces=frozenset({"p-b"})))).items
    assert not (await store.list("Model", Query(namespaces=frozenset()))).items


async def test_namespaces_are_in_order_of_their_names(etcd_url: str) -> None:
    store = await open_etcd(etcd_url)
    # In etcd `a-b/` comes before `a/`.
    for namespace in ("a-b", "a", "a.c", "b"):
        await store.create(Write(kinds()["ModelFamily"].new(namespace, "one")))
    page = await store.list("ModelFamily", Query(limit=2))
    rest = await store.list("ModelFamily", Query(limit=2, start=page.next))
    assert names([*page.items, *rest.items]) == ["a/one", "a-b/one", "a.c/one", "b/one"]
    await store.close()


def patterns() -> Iterator[tuple[str, str]]:
    pick = random.Random(3)
    for _ in range(3000):
        text = "".join(pick.choice("ab%_.\n") for _ in range(pick.randrange(8)))
        yield "".join(pick.choice("ab%_%.") for _ in range(pick.randrange(6))), text


def test_like_is_what_a_person_would_pick() -> None:
    met = 0
    for pattern, text in patterns():
        expected = matches("LIKE", text, [pattern])
        assert like(pattern, text) == expected, (pattern, text)
        met += expected
    assert 300 < met < 2700


def test_like_takes_no_longer_for_a_pattern_that_almost_matches() -> None:
    assert not like("%a" * 100 + "%b", "a" * 100_000)


async def test_values_of_other_types_compare_as_in_sql(etcd_url: str, tmp_path: Path) -> None:
    etcd, sqlite = await open_etcd(etcd_url), SqliteStore(tmp_path / "store.db")
    for number, kind in enumerate([0, 1, 7, 3]):
        for store in (etcd, sqlite):
            made = kinds()["Model"].new("shop", f"m-{number}")
            made.metadata.uid = f"00000000-0000-4000-8000-{number:012}"
            made.spec.kind = kind
            made.spec.algorithm = ("", "1", "10", "9")[number]
            await store.create(Write(made))
    for field, values in (("model_kind", (0, 1, 1.5, 2.0, 7.0, -1)), ("algorithm", ("", "1", "9", "ü"))):
        for operator in Operator:
            for value in values:
                if operator is Operator.LIKE and not isinstance(value, str):
                    continue
                query = Query(where=Criterion(field, operator, (value,)))
                left = names((await etcd.list("Model", query)).items)
                assert left == names((await sqlite.list("Model", query)).items), query
    for found in (etcd, sqlite):
        assert (await found.get(Key("Model", "shop", "m-0"))).metadata.name == "m-0"
        await found.close()
