"""The places in which contract tests of the store run, one for each adapter."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from api.store.base import Store
from tests.ports.stores import ADAPTERS, Place


@pytest.fixture(params=sorted(ADAPTERS))
async def place(request: pytest.FixtureRequest) -> AsyncIterator[Place]:
    """Where stores of one adapter can be opened."""
    made = Place(ADAPTERS[request.param](request))
    yield made
    await made.close()


@pytest.fixture
async def store(place: Place) -> Store:
    """A store with nothing in it."""
    return await place.open()
