"""A figure: what was measured in each round, beside the peer, and the goal it has to meet.  Measures nothing itself."""

from __future__ import annotations

import random
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

RESAMPLES = 2000
SEED = 7
LEAST_ROUNDS = 5
"""With fewer an interval says nothing, and no goal that is stated as a ratio is judged."""
Better = Literal["lower", "higher"]


@dataclass(frozen=True)
class Goal:
    """What a figure must reach.

    kind: `times` wants the lower bound of the ratio to be at least `value`; `most` wants our median at or below it,
    `least` at or above it.
    """

    kind: Literal["times", "most", "least"]
    value: float


@dataclass(frozen=True)
class Ratio:
    """How many times better we are than the peer: median of the rounds, with a 95 % bootstrap interval.

    low, high: None if there are fewer than `LEAST_ROUNDS` rounds.
    """

    median: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Figure:
    """One line of a table.

    ours, peer: one value a round, in `unit`, of the same rounds; an empty `peer` is a figure without one.
    """

    name: str
    unit: str
    ours: tuple[float, ...]
    peer: tuple[float, ...] = ()
    better: Better = "lower"
    goal: Goal | None = None

    def __post_init__(self) -> None:
        """Raise ValueError if there is nothing to show or the rounds do not match."""
        if not self.ours:
            raise ValueError(f"{self.name}: there is no round")
        if self.peer and len(self.peer) != len(self.ours):
            raise ValueError(f"{self.name}: {len(self.ours)} rounds of ours, {len(self.peer)} of the peer")

    def ratio(self) -> Ratio | None:
        """Return how many times better we are; None without a peer, or where a value is 0."""
        if not self.peer or not all((*self.ours, *self.peer)):
            return None
        pairs = zip(self.ours, self.peer, strict=True)
        ratios = [peer / ours if self.better == "lower" else ours / peer for ours, peer in pairs]
        if len(ratios) < LEAST_ROUNDS:
            return Ratio(statistics.median(ratios))
        return Ratio(statistics.median(ratios), *interval(ratios))

    def met(self) -> bool | None:
        """Whether the goal is met; None without a goal, or without a ratio to judge."""
        if self.goal is None:
            return None
        if self.goal.kind == "most":
            return statistics.median(self.ours) <= self.goal.value
        if self.goal.kind == "least":
            return statistics.median(self.ours) >= self.goal.value
        found = self.ratio()
        return None if found is None or found.low is None else found.low >= self.goal.value

    def as_json(self) -> dict[str, Any]:
        """Return the rounds, and what is computed of them for readers of the file."""
        found = self.ratio()
        return {
            **asdict(self),
            "median": statistics.median(self.ours),
            "peer_median": statistics.median(self.peer) if self.peer else None,
            "ratio": asdict(found) if found else None,
            "met": self.met(),
        }

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> Figure:
        """Return the figure of which `as_json` made `found`: the rounds count, not what was computed of them."""
        return cls(
            name=found["name"],
            unit=found["unit"],
            ours=tuple(found["ours"]),
            peer=tuple(found["peer"]),
            better=found["better"],
            goal=Goal(**found["goal"]) if found["goal"] else None,
        )


def interval(values: Sequence[float]) -> tuple[float, float]:
    """Return the 95 % bootstrap interval of the median.  The same values give the same interval."""
    chance = random.Random(SEED)
    medians = sorted(statistics.median(chance.choices(values, k=len(values))) for _ in range(RESAMPLES))
    return medians[int(RESAMPLES * 0.025)], medians[int(RESAMPLES * 0.975) - 1]


def percentile(values: Sequence[float], part: float) -> float:
    """Return the smallest value that at least `part` (0 to 1) of the values do not exceed."""
    if not values:
        raise ValueError("no values")
    ordered = sorted(values)
    return ordered[max(0, -int(-part * len(ordered) // 1) - 1)]
