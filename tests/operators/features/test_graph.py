"""The transformation graph: the same answer for one row and many, before and after it was stored."""

from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from operators.features.graph import MISSING, Graph, Input, by_frequency, zone_table

ZONE = "America/New_York"
INPUTS = (
    Input("carrier", "string", "request"),
    Input("leaves", "timestamp", "request", ZONE),
    Input("distance", "long", "request"),
    Input("delay", "double", "feature"),
)


def micros(text: str) -> int:
    return int(datetime.fromisoformat(text).timestamp()) * 1_000_000


def columns(count: int, *, seed: int = 0) -> dict[str, npt.NDArray[Any]]:
    random = np.random.default_rng(seed)
    return {
        "carrier": random.choice(np.array(["AA", "UA", "", "B6"], object), count),
        "leaves": random.integers(micros("2013-01-01T00:00:00Z"), micros("2013-12-31T00:00:00Z"), count),
        "distance": random.integers(80, 3000, count).astype(float),
        "delay": np.where(random.random(count) < 0.2, np.nan, random.normal(size=count)),
    }


def test_one_row_at_a_time_gives_what_all_rows_together_give() -> None:
    given_columns = columns(200)
    graph = Graph.fit(INPUTS, given_columns)
    together = graph.transform(given_columns)
    for row in range(200):
        alone = graph.transform({name: values[row : row + 1] for name, values in given_columns.items()})
        np.testing.assert_array_equal(alone[0], together[row])


def test_a_stored_graph_is_the_same_graph() -> None:
    graph = Graph.fit(INPUTS, columns(200))
    again = Graph.from_json(graph.to_json())
    assert again.names == graph.names == ("distance", "delay", "carrier", "leaves_minute", "leaves_weekday")
    np.testing.assert_array_equal(again.transform(columns(50, seed=1)), graph.transform(columns(50, seed=1)))
    assert again.to_json() == graph.to_json()


def test_an_unseen_or_missing_text_is_nan_and_the_most_frequent_is_zero() -> None:
    given_columns = columns(4) | {"carrier": np.array(["UA", "UA", "AA", ""], object)}
    graph = Graph.fit(INPUTS, given_columns)
    asked = columns(4) | {"carrier": np.array(["UA", "AA", "XX", ""], object)}
    np.testing.assert_array_equal(graph.transform(asked)[:, 2], np.array([0, 1, np.nan, np.nan], np.float32))
    assert by_frequency(np.array(["b", "a", "c", "c"], object)) == ["c", "a", "b"]


@given(st.datetimes(datetime(1991, 1, 1), datetime(2059, 12, 1)))
def test_the_calendar_is_that_of_the_zone_at_every_instant(moment: datetime) -> None:
    instant = moment.replace(tzinfo=UTC, microsecond=0)
    local = instant.astimezone(ZoneInfo(ZONE))
    graph = Graph.fit((Input("leaves", "timestamp", "request", ZONE),), {})
    (row,) = graph.transform({"leaves": np.array([int(instant.timestamp()) * 1_000_000])})
    assert tuple(row) == (local.hour * 60 + local.minute, local.weekday())


def test_a_missing_instant_is_nan() -> None:
    graph = Graph.fit((Input("leaves", "timestamp", "request"),), {})
    assert np.isnan(graph.transform({"leaves": np.array([MISSING])})).all()


def test_the_zone_table_changes_exactly_when_the_zone_does() -> None:
    transitions, offsets = zone_table(ZONE, first=2013, last=2014)
    assert transitions[1:] == [micros("2013-03-10T07:00:00Z"), micros("2013-11-03T06:00:00Z")]
    assert offsets == [-5 * 3_600_000_000, -4 * 3_600_000_000, -5 * 3_600_000_000]


def test_an_unknown_zone_is_refused() -> None:
    with pytest.raises(ValueError, match="Mars/Olympus"):
        zone_table("Mars/Olympus")


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", '{"format": 2, "inputs": [], "nodes": []}', '{"format": 1, "inputs": [{"x": 1}], "nodes": []}'],
)
def test_what_is_no_graph_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        Graph.from_json(text)
