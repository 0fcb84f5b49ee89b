"""A loop within a loop: for each city, each degree is fitted; the best of each city is reported.

ma pipeline test examples/authored/sweep/sweep_flow.py
"""

from __future__ import annotations

import math
from operator import itemgetter
from typing import Any

from operators import foreach, pipeline, task


@task
def cities(count: int) -> list[str]:
    """Return the names of the first cities."""
    return ["amsterdam", "berlin", "cairo", "dakar"][:count]


@task
def degrees(city: str, most: int) -> list[int]:
    """Return which degrees are worth a try: more for a longer history."""
    return list(range(1, min(most, len(city) - 4) + 1))


@task.local(retries=1, timeout="1m")
def fit(city: str, degree: int, noise: float) -> dict[str, float]:
    """Return the error of a fit: what is left of a curve after its first waves."""
    error = sum(math.cos(len(city) * k) ** 2 / k for k in range(degree + 1, 9)) + noise * degree
    return {"degree": degree, "error": round(error, 9)}


@task
def best(city: str, fits: list[dict[str, float]]) -> dict[str, object]:
    """Return the fit with the smallest error."""
    return {"city": city, **min(fits, key=itemgetter("error"))}


@task
def report(found: list[dict[str, object]]) -> list[str]:
    """Return a line for each city."""
    return [f"{one['city']}: degree {one['degree']}, error {one['error']}" for one in found]


@pipeline(name="sweep")
def sweep(count: int = 3, most: int = 3, noise: float = 0.05) -> Any:
    """Fit every degree for every city."""

    def of_city(city: str) -> Any:
        fits = foreach(fit, degrees(city, most), city=city, noise=noise)
        return best(city, fits)

    return report(foreach(of_city, cities(count)))
