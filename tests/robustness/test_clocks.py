"""A wall clock that jumps or runs wrong changes nothing about who leads (guarantee G9)."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from api.store.sqlite import SqliteStore
from tests.robustness.faults.clock import skewed

TERM_S = 0.4
NAME = "controllers"


@pytest.mark.parametrize("offset_s", [3600.0, -3600.0, 400 * 86_400.0, -1.0])
async def test_a_jump_of_the_clock_takes_no_lease_and_holds_none(tmp_path: Path, offset_s: float) -> None:
    store = SqliteStore(tmp_path / "store.db")
    try:
        held = await store.acquire(NAME, "one", TERM_S)
        assert held is not None
        with skewed(offset_s):
            assert await store.acquire(NAME, "two", TERM_S) is None, "the term is not over"
            renewed = await store.acquire(NAME, "one", TERM_S)
            assert renewed is not None
            assert renewed.epoch == held.epoch
            await asyncio.sleep(TERM_S * 1.2)
            taken = await store.acquire(NAME, "two", TERM_S)
            assert taken is not None, "the term is over"
            assert taken.epoch == held.epoch + 1
    finally:
        await store.close()


async def test_a_clock_that_runs_half_as_fast_again_shortens_no_term(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "store.db")
    try:
        with skewed(rate=1000.0):
            assert await store.acquire(NAME, "one", TERM_S) is not None
            await asyncio.sleep(TERM_S / 4)
            assert await store.acquire(NAME, "two", TERM_S) is None
    finally:
        await store.close()
