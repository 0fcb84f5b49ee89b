"""The examples of pipelines in Python run in this process: a loop, a branch, a loop within a loop."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from operators.authoring.loading import in_module
from operators.authoring.local_run import Report, run_here

Run = Callable[..., Report]
EXAMPLES = Path(__file__).resolve().parents[2] / "examples" / "authored"


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Run:
    def called(name: str, **params: object) -> Report:
        monkeypatch.syspath_prepend(EXAMPLES / name)
        return run_here(in_module(f"{name}_flow"), params)

    return called


def states(report: Report) -> Counter[str]:
    return Counter(report.states().values())


def test_the_loop_ends_when_it_may(run: Run) -> None:
    report = run("converge", target=16)
    assert report.result == 4.0
    assert states(report)["SKIPPED"] > 0
    assert states(report)["FAILED"] == 0


@pytest.mark.parametrize(("bad", "skipped"), [(8, "drop"), (1, "repair")])
def test_one_branch_is_skipped(run: Run, bad: int, skipped: str) -> None:
    report = run("review", bad=bad)
    assert [step for (step, _), state in report.states().items() if state == "SKIPPED"] == [skipped]
    assert report.result["bad"] == bad / 20


def test_the_loop_within_a_loop_reports_each_city(run: Run) -> None:
    report = run("sweep")
    assert len(report.result) == 3
    assert max(len(index) for _, index in report.states()) == 2
    assert run("sweep").digests() == report.digests()
