"""A loop with a bound: a root is approached until the step is small; rounds after that are skipped.

ma pipeline test examples/authored/converge/converge_flow.py -p target=10
"""

from __future__ import annotations

from typing import Any

from operators import loop, pipeline, task


@task
def guess(target: float) -> dict[str, float]:
    """Return where to begin."""
    return {"target": target, "root": target / 2, "change": target}


@task
def improve(state: dict[str, float]) -> dict[str, float]:
    """Return a better root: Newton's step."""
    root = (state["root"] + state["target"] / state["root"]) / 2
    return {**state, "root": root, "change": abs(root - state["root"])}


@task
def rounded(state: dict[str, float], digits: int) -> float:
    """Return the root as people write it."""
    return round(state["root"], digits)


@pipeline(name="converge")
def converge(target: float = 2.0, digits: int = 6) -> Any:
    """Find the square root of a number."""
    found = loop(improve, guess(target), most=8, until=lambda state: state["change"] < 1e-6)
    return rounded(found, digits)
