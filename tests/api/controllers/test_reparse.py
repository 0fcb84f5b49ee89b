"""A file that is asked for is parsed as it is now, though Airflow drops what it is asked for while it parses it."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from api.airflow import Dag
from api.config import Config
from api.controllers.platform import PARSED_S, Platform
from api.manifests import Manifests
from tests.simulation.virtual import VirtualLoop

PROJECT = "shop"
START = datetime(2026, 1, 1, tzinfo=UTC)


class ParsingAirflow:
    """Parses one file at a time, reads it when it begins, and drops requests for the one that it parses."""

    def __init__(self, takes_s: float, *, parses: bool = True) -> None:
        self.takes_s = takes_s
        self.parses = parses
        self.asked = 0
        self.read_at: list[float] = []
        self.parsed = START
        self._parsing: asyncio.Task[None] | None = None

    async def dags(self, tags: Sequence[str] = ()) -> list[Dag]:
        """Return the one DAG of the file."""
        assert list(tags) == [f"project:{PROJECT}"]
        return [Dag("shop.train", False, "token", tuple(tags), parsed=self.parsed, parse_s=self.takes_s)]

    async def reparse(self, token: str) -> None:
        """Begin, unless it goes on."""
        self.asked += 1
        if self.parses and (self._parsing is None or self._parsing.done()):
            self.begin()

    def begin(self) -> None:
        """Begin to parse."""
        self._parsing = asyncio.ensure_future(self._parse())

    async def _parse(self) -> None:
        clock = asyncio.get_running_loop().time
        self.read_at.append(clock())
        await asyncio.sleep(self.takes_s)
        self.parsed = START + timedelta(seconds=clock())


def reparsed(airflow: ParsingAirflow, folder: Path, *, late_s: float | None = None, shows: bool = True) -> float:
    """Change a file and have it parsed, `late_s` after Airflow began to; returns the seconds that it took."""
    manifests = Manifests(Config(home=folder, projects_root=folder))
    if shows:
        manifests.write_pipeline({"project": PROJECT, "name": "train"})
    unused: Any = None
    platform = Platform(unused, unused, airflow, manifests, unused, unused)  # type: ignore[arg-type]
    loop = VirtualLoop(random.Random(1))

    async def change() -> float:
        if late_s is not None:
            airflow.begin()
            await asyncio.sleep(late_s)
        began = loop.time()
        await platform.reparse(PROJECT)
        assert not shows or not airflow.parses or any(at >= began for at in airflow.read_at)
        return loop.time() - began

    try:
        return float(loop.run_until_complete(change()))
    finally:
        loop.close()


@pytest.mark.parametrize("takes_s", [0.01, 0.5, 4.0])
@pytest.mark.parametrize("late", [None, 0.01, 0.5, 0.99])
def test_what_is_written_while_a_file_is_parsed_is_read_by_the_next_parse(
    tmp_path: Path, takes_s: float, late: float | None
) -> None:
    airflow = ParsingAirflow(takes_s)
    took = reparsed(airflow, tmp_path, late_s=None if late is None else late * takes_s)
    assert took < 2 * takes_s + 0.5
    assert len(airflow.read_at) <= 3


def test_a_processor_that_stands_still_is_not_waited_for_for_ever(tmp_path: Path) -> None:
    airflow = ParsingAirflow(0.1, parses=False)
    assert reparsed(airflow, tmp_path) == pytest.approx(PARSED_S, abs=0.1)
    assert 3 < airflow.asked < 8


def test_where_nothing_is_left_to_be_shown_nothing_is_waited_for(tmp_path: Path) -> None:
    airflow = ParsingAirflow(0.1)
    assert reparsed(airflow, tmp_path, shows=False) == 0
    assert airflow.asked == 1
