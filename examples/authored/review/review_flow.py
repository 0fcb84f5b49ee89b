"""A branch: rows are repaired only when too many are bad; the steps of the other branch are skipped.

ma pipeline test examples/authored/review/review_flow.py -p bad=1
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from operators import pipeline, task, when

if TYPE_CHECKING:
    import pandas as pd


@task
def rows(count: int, bad: int) -> pd.DataFrame:
    """Return a table of which `bad` rows have no amount."""
    import pandas as pd

    amounts = [None if number < bad else float(number) for number in range(count)]
    return pd.DataFrame({"number": range(count), "amount": amounts})


@task
def share_of_bad(table: pd.DataFrame) -> float:
    """Return which part of the rows has no amount."""
    return float(table["amount"].isna().mean())


@task
def repair(table: pd.DataFrame) -> pd.DataFrame:
    """Return the table with the mean where an amount is missing."""
    return table.fillna({"amount": table["amount"].mean()})


@task
def drop(table: pd.DataFrame) -> pd.DataFrame:
    """Return the table without its bad rows."""
    return table.dropna().reset_index(drop=True)


@task
def summary(table: pd.DataFrame, share: float) -> dict[str, Any]:
    """Return what is left."""
    return {"rows": len(table), "sum": float(table["amount"].sum()), "bad": share}


@pipeline(name="review")
def review(count: int = 20, bad: int = 8, tolerated: float = 0.25) -> Any:
    """Repair a table with many bad rows, drop those of one with few."""
    table = rows(count, bad)
    share = share_of_bad(table)
    good = when(share > tolerated, lambda: repair(table), lambda: drop(table))
    return summary(good, share)
