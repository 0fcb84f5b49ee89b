"""A kept output goes when its time is over: not before, and not while a model goes on from it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from api.config import Config
from api.controllers.cached_output import LINE, CachedOutputController
from api.controllers.platform import Platform, utc_now
from api.kinds import kinds
from api.resources import Resources
from api.store.base import Key
from api.store.sqlite import SqliteStore


class Kept:
    """A controller of outputs, and the time that it is told."""

    def __init__(self, folder: Path) -> None:
        self.store = SqliteStore(folder / "store.db")
        self.resources = Resources(self.store)
        self.ahead = timedelta()
        missing: Any = None
        config = Config(folder, folder)
        now = lambda: utc_now() + self.ahead  # noqa: E731
        platform = Platform(config, self.resources, missing, missing, missing, lambda key: None, now)
        self.controller = CachedOutputController(platform)

    async def output(self, name: str, *, days: int = 0, expires: datetime | None = None) -> Key:
        """Create a kept output."""
        new: Any = kinds()["CachedOutput"].new("flights", name)
        new.spec.ttl_in_days = days
        new.spec.variable_spec.id = name
        if expires is not None:
            new.metadata.labels[LINE] = "line"
            new.spec.variable_spec.metadata.update({"expires": expires.isoformat()})
        await self.resources.create(new)
        return Key("CachedOutput", "flights", name)

    async def there(self, key: Key) -> bool:
        return await self.resources.find(key) is not None


@pytest.fixture
async def kept(tmp_path: Path) -> AsyncIterator[Kept]:
    made = Kept(tmp_path)
    await made.resources.create(kinds()["Project"].new("flights", "flights"))
    yield made
    await made.store.close()


async def test_an_output_goes_after_its_days(kept: Kept) -> None:
    key = await kept.output("a", days=2)

    wait_s = await kept.controller.reconcile(key)
    assert wait_s is not None
    assert wait_s <= 24 * 3600
    assert await kept.there(key)
    kept.ahead = timedelta(days=2, seconds=1)
    assert await kept.controller.reconcile(key) is None

    assert not await kept.there(key)


async def test_an_entry_of_the_cache_goes_at_its_second(kept: Kept) -> None:
    key = await kept.output("a", days=1, expires=datetime.now(UTC) + timedelta(seconds=60))

    wait_s = await kept.controller.reconcile(key)
    assert wait_s is not None
    assert 0 < wait_s <= 60
    kept.ahead = timedelta(seconds=61)
    await kept.controller.reconcile(key)

    assert not await kept.there(key)


async def test_what_has_no_end_stays(kept: Kept) -> None:
    key = await kept.output("a")
    kept.ahead = timedelta(days=40_000)

    assert kept.controller.settled(await kept.resources.get(*_parts(key)))
    assert await kept.controller.reconcile(key) is None

    assert await kept.there(key)


async def test_a_checkpoint_that_a_model_goes_on_from_stays(kept: Kept) -> None:
    used, unused = await kept.output("used", days=1), await kept.output("unused", days=1)
    model: Any = kinds()["Model"].new("flights", "churn-2")
    model.spec.incremental_training.training_checkpoint.name = "used"
    await kept.resources.create(model)
    kept.ahead = timedelta(days=2)

    waits = [await kept.controller.reconcile(key) for key in (used, unused)]

    assert waits[0] is not None
    assert [await kept.there(key) for key in (used, unused)] == [True, False]


def _parts(key: Key) -> tuple[str, str, str]:
    return key.kind, key.namespace, key.name
