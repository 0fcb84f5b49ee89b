"""Small tasks, and the states that a run of them ended in."""

from typing import Any

from operators import task
from operators.authoring.local_run import Report


@task
def numbers(n: int) -> list[int]:
    return list(range(n))


@task
def double(x: Any) -> Any:
    return x * 2


@task
def add(xs: list[int]) -> int:
    return sum(xs)


def states(report: Report) -> dict[str, str]:
    return {"".join([step, *(f"[{at}]" for at in index)]): state for (step, index), state in report.states().items()}
