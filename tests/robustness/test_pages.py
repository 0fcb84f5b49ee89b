"""All pages of one list show one revision, or the list says that it is too old (guarantee G6)."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable

import pytest

from api.errors import Expired, InvalidArgument
from api.store.base import Key, Preconditions, Query, Store, Write
from api.store.open import open_store
from tests.patience import PATIENCE_S
from tests.robustness.model.store_model import Held, Past
from tests.robustness.results import told
from tests.robustness.stores import KIND, PROJECT, Place, family, log, token_of

OBJECTS = 2_000
PAGE = 7
LISTS = 12
CHURN_S = 0.05
# Their pauses when no list was whole by then: on a machine with other work one takes longer.
SLOW_CHURN_S = 2.0


async def churn(store: Store, stop: asyncio.Event, pause_s: Callable[[], float]) -> None:
    """Create, change and delete.  pause_s: the longest between two."""
    pick, count = random.Random(6), 0
    while not stop.is_set():
        count += 1
        name = f"n{pick.randrange(OBJECTS):04}"
        stored = (await store.list(KIND, Query(limit=1))).items[0] if count % 50 == 0 else None
        if stored is not None:
            await store.delete(Key(KIND, PROJECT, stored.metadata.name), Preconditions())
        else:
            found = await store.get(Key(KIND, PROJECT, name)) if count % 2 else None
            if found is not None:
                found.spec.name = f"churn-{count}"
                await store.update(Write(found, found.metadata.resourceVersion))
            else:
                await store.create(Write(family(f"more-{count}", f"t{count}")))
        await asyncio.sleep(pick.uniform(0, pause_s()))


async def pages(store: Store, size: int) -> tuple[dict[str, Held], int]:
    """Return the union of all pages and the revision that the first one told."""
    seen: dict[str, Held] = {}
    page = await store.list(KIND, Query(limit=size))
    first = page.revision
    while True:
        for item in page.items:
            assert item.metadata.name not in seen, "no object is on two pages"
            seen[item.metadata.name] = Held(token_of(item), int(item.metadata.resourceVersion))
        if not page.next:
            return seen, first
        page = await store.list(KIND, Query(limit=size, start=page.next))
        assert page.revision == first, "every page tells the same revision"


@pytest.mark.both
async def test_pages_show_one_revision_while_writers_churn(any_place: Place) -> None:
    began, whole, expired = time.monotonic(), 0, 0
    store, stop = await open_store(any_place.url), asyncio.Event()
    try:
        await asyncio.gather(*(store.create(Write(family(f"n{number:04}", "first"))) for number in range(OBJECTS)))
        lists = []
        lists_due = LISTS if any_place.name != "etcd" else LISTS // 3
        churning = asyncio.create_task(
            churn(store, stop, lambda: CHURN_S if whole + expired < lists_due else SLOW_CHURN_S)
        )
        while whole + expired < lists_due or (not whole and time.monotonic() - began < PATIENCE_S):
            try:
                # Small pages take long; larger ones have a chance to end before the next change.
                lists.append(await pages(store, PAGE if (whole + expired) % 2 else 100 * PAGE))
                whole += 1
            except Expired:
                expired += 1
        stop.set()
        await churning
        past = Past(await log(store))
    finally:
        await store.close()
    wrong = [revision for seen, revision in lists if seen != past.at(revision)]
    told(
        "G6",
        "all pages of a list show one revision",
        store=any_place.name,
        trials=whole + expired,
        failed=len(wrong),
        figures=f"{OBJECTS} objects, {whole} lists read to their end, {expired} told to list again, "
        f"{time.monotonic() - began:.0f} s",
    )
    assert wrong == []
    assert whole


async def test_a_token_with_any_character_changed_is_refused(any_place: Place) -> None:
    store = await open_store(any_place.url)
    try:
        for number in range(3):
            await store.create(Write(family(f"n{number}", "x")))
        token = (await store.list(KIND, Query(limit=1))).next
        for position in range(len(token)):
            other = "A" if token[position] != "A" else "B"
            with pytest.raises((InvalidArgument, Expired)) as refused:
                await store.list(KIND, Query(limit=1, start=token[:position] + other + token[position + 1 :]))
            assert refused.value.reason == "BAD_TOKEN", position
        with pytest.raises(InvalidArgument):
            await store.list(KIND, Query(limit=1, start=token, namespace=PROJECT))
    finally:
        await store.close()
