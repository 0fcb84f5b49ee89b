"""Medians, percentiles, ratios with their intervals, and the verdict on a goal."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.measuring.figures import Figure, Goal, Ratio, interval, percentile
from benchmarks.measuring.rounds import interleaved

TIMES = st.lists(st.floats(0.001, 1e6), min_size=1, max_size=30)


def test_a_percentile_is_a_value_that_was_measured() -> None:
    values = [float(value) for value in range(1, 101)]
    assert percentile(values, 0.5) == 50
    assert percentile(values, 0.99) == 99
    assert percentile(values, 1) == 100
    assert percentile([7.0], 0.5) == 7
    with pytest.raises(ValueError, match="no values"):
        percentile([], 0.5)


@given(TIMES, st.floats(0.01, 1))
def test_at_least_the_part_does_not_exceed_its_percentile(values: list[float], part: float) -> None:
    found = percentile(values, part)
    assert sum(value <= found for value in values) >= part * len(values) - 1e-9
    assert found in values


@settings(max_examples=20)
@given(TIMES)
def test_the_interval_lies_in_what_was_measured_and_is_the_same_again(values: list[float]) -> None:
    low, high = interval(values)
    assert min(values) <= low <= high <= max(values)
    assert interval(values) == (low, high)


def test_more_than_one_is_in_our_favour_whichever_way_is_better() -> None:
    faster = Figure("p50", "ms", (1.0, 2.0, 4.0), (10.0, 20.0, 40.0)).ratio()
    more = Figure("answers", "/s", (100.0, 300.0), (10.0, 30.0), better="higher").ratio()
    slower = Figure("p50", "ms", (10.0,), (5.0,)).ratio()
    assert faster is not None
    assert more is not None
    assert slower is not None
    assert (faster.median, more.median, slower.median) == (10, 10, 0.5)


def test_the_ratio_is_of_rounds_and_not_of_medians() -> None:
    """A disturbance that slows both sides of a round leaves its ratio as it is."""
    found = Figure("p50", "ms", (1.0, 1.0, 50.0, 1.0, 2.0), (20.0, 20.0, 1000.0, 20.0, 40.0)).ratio()
    assert found is not None
    assert (found.low, found.median, found.high) == (20, 20, 20)


def test_few_rounds_have_no_interval_and_prove_no_ratio() -> None:
    few = Figure("p50", "ms", (1.0,) * 4, (25.0,) * 4, goal=Goal("times", 20))
    assert few.ratio() == Ratio(25.0)
    assert few.met() is None


def test_a_goal_of_times_is_judged_by_the_lower_bound() -> None:
    steady = Figure("p50", "ms", (1.0,) * 5, (25.0,) * 5, goal=Goal("times", 20))
    lucky = Figure("p50", "ms", (1.0,) * 5, (5.0, 5.0, 25.0, 25.0, 25.0), goal=Goal("times", 20))
    assert steady.met() is True
    assert lucky.met() is False


def test_a_goal_of_least_is_judged_by_our_median() -> None:
    assert Figure("deliveries", "/s", (60.0, 50.0, 1.0), better="higher", goal=Goal("least", 50)).met() is True
    assert Figure("deliveries", "/s", (60.0, 49.0, 1.0), better="higher", goal=Goal("least", 50)).met() is False


def test_a_goal_of_most_is_judged_by_our_median() -> None:
    assert Figure("apply", "s", (0.5, 0.9, 5.0), goal=Goal("most", 1)).met() is True
    assert Figure("apply", "s", (0.5, 1.1, 5.0), goal=Goal("most", 1)).met() is False
    assert Figure("apply", "s", (0.5,)).met() is None


def test_without_a_peer_or_with_a_zero_there_is_no_ratio() -> None:
    assert Figure("extra", "ms", (3.0,)).ratio() is None
    assert Figure("extra", "ms", (0.0,), (1.0,)).ratio() is None
    assert Figure("extra", "ms", (1.0,), (0.0,), goal=Goal("times", 2)).met() is None


def test_rounds_that_do_not_match_are_refused() -> None:
    with pytest.raises(ValueError, match="no round"):
        Figure("p50", "ms", ())
    with pytest.raises(ValueError, match="2 rounds of ours, 1 of the peer"):
        Figure("p50", "ms", (1.0, 2.0), (1.0,))


def test_rounds_are_taken_in_turns() -> None:
    order: list[str] = []

    def side(name: str) -> int:
        order.append(name)
        return len(order)

    ours, peer = interleaved(4, lambda: side("A"), lambda: side("B"))
    assert "".join(order) == "ABBAABBA"
    assert (ours, peer) == ([1, 4, 5, 8], [2, 3, 6, 7])
