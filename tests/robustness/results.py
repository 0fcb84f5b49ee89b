"""Figures of a run of the robustness tests, and the page that shows them.

python -m tests.robustness.results results.jsonl > docs/robustness.md
"""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

VARIABLE = "MA_ROBUSTNESS_RESULTS"
PAGE = Path(__file__).with_name("page.md")


@dataclass(frozen=True)
class Result:
    """What one test showed: `failed` of `trials` independent trials broke the promise.  `commit`: of the code."""

    guarantee: str
    promise: str
    store: str
    trials: int
    failed: int
    figures: str
    test: str
    commit: str = ""


def bound(trials: int, failed: int) -> str:
    """Return the failure rate that 95 % of such runs would exceed: 3/n when none of n failed."""
    # Of three trials or fewer nothing can be said.
    if failed or trials <= 3:
        return "-"
    return f"< {100 * 3 / trials:.2g} %"


@functools.cache
def commit() -> str:
    """Return the commit that is looked at, with a + if files differ from it; "" outside of a clone."""
    asked = ["git", "describe", "--always", "--abbrev=7", "--exclude=*", "--dirty=+"]
    found = subprocess.run(asked, cwd=PAGE.parent, capture_output=True, text=True, check=False)
    return found.stdout.strip()


def told(guarantee: str, promise: str, *, trials: int, failed: int = 0, store: str = "", figures: str = "") -> None:
    """Print a result, and append it to the file that MA_ROBUSTNESS_RESULTS names."""
    test = os.environ.get("PYTEST_CURRENT_TEST", "").partition(" ")[0]
    result = Result(guarantee, promise, store, trials, failed, figures, test, commit())
    line = json.dumps(asdict(result))
    print(line)
    if path := os.environ.get(VARIABLE):
        with Path(path).open("a") as file:
            file.write(line + "\n")


def table(results: list[Result]) -> str:
    """Return the rows of the page, one a result, in the order of the guarantees."""
    rows = [
        "| | promise | store | trials | failed | 95 % bound | figures | test | commit |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for one in sorted(results, key=lambda one: (int(one.guarantee[1:]), one.promise, one.store)):
        test = one.test.removeprefix("tests/robustness/")
        rows.append(
            f"| {one.guarantee} | {one.promise} | {one.store} | {one.trials:,} | {one.failed} "
            f"| {bound(one.trials, one.failed)} | {one.figures} | `{test}` | {one.commit} |"
        )
    return "\n".join(rows)


def page(lines: list[str]) -> str:
    """Return the page for lines of results: of tests that ran twice, the larger run."""
    best: dict[tuple[str, str, str], Result] = {}
    for line in lines:
        one = Result(**json.loads(line))
        key = (one.guarantee, one.promise, one.store)
        if key not in best or one.trials >= best[key].trials:
            best[key] = one
    return PAGE.read_text().replace("{{ results }}", table(list(best.values())))


if __name__ == "__main__":
    print(page([line for path in sys.argv[1:] for line in Path(path).read_text().splitlines() if line]), end="")
