"""Hours of a platform's life, each decided by a seed: what is promised holds in all of them (guarantees 2.4).

A seed that breaks a promise is printed and added to `seeds.txt`; `pytest -k again` lives through it once more.
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from api.airflow import Airflow
from api.controllers import pipeline_run, run_report, runtime
from api.store import sql
from tests.robustness import results
from tests.simulation.simulation import Outcome, simulate

SEEDS = Path(__file__).with_name("seeds.txt")
EACH_TIME = 80
LONG = 2_000
FOUND_WITHIN = 60


def lived(seeds: Iterable[int]) -> list[Outcome]:
    """Live through the hour of each seed.  Tells what broke, and keeps those seeds."""
    outcomes, broken = [], []
    for seed in seeds:
        outcome, said = simulate(seed)
        outcomes.append(outcome)
        if outcome.broken:
            broken.append(f"seed {seed}: {'; '.join(outcome.broken)}\n" + "\n".join(said[-40:]))
            keep(seed)
    assert not broken, "\n\n".join(broken)
    return outcomes


def keep(seed: int) -> None:
    if seed not in kept():
        with SEEDS.open("a") as file:
            file.write(f"{seed}\n")


def kept() -> list[int]:
    return [int(line) for line in SEEDS.read_text().splitlines() if line.strip() and not line.startswith("#")]


def told(outcomes: list[Outcome]) -> str:
    """Return what was lived through, in one line."""
    sums = {name: sum(getattr(each, name) for each in outcomes) for name in ("runs", "changes", "terms", "refused")}
    return f"{len(outcomes)} simulated hours, 0 broken: " + ", ".join(f"{count} {name}" for name, count in sums.items())


def test_what_is_promised_holds_whatever_goes_wrong(record_property: Any) -> None:
    outcomes = lived(range(EACH_TIME))
    record_property("simulation", told(outcomes))
    # An hour in which nothing happens would show nothing.
    assert sum(each.runs for each in outcomes) > 3 * EACH_TIME
    assert sum(each.terms for each in outcomes) > 2 * EACH_TIME


def test_seeds_that_broke_a_promise_keep_it_when_lived_through_again() -> None:
    lived(kept())


def test_a_seed_is_the_same_hour_each_time() -> None:
    (first, said), (again, said_again) = simulate(7), simulate(7)
    assert said == said_again
    assert first == again
    assert simulate(8)[0].digest != first.digest


@pytest.mark.robustness
def test_two_thousand_hours() -> None:
    outcomes = lived(range(EACH_TIME, EACH_TIME + LONG))
    results.told("G9", "an hour of faults, simulated, breaks no promise", trials=LONG, figures=told(outcomes))


async def _nothing(*_: Any, **__: Any) -> None:
    """Do not do what is asked."""


async def _from_the_start(self: Any, run: Any, observed: Any) -> None:
    run.status.state = 0
    await _DESCRIBE(self, run, observed)


def _any_id(run: Any) -> str:
    return run.metadata.annotations.get(pipeline_run.ADOPTED) or f"ma__{run.metadata.uid}__{random.random()}"


_DESCRIBE = run_report.RunReport.describe

MISTAKES = {
    "a run id of chance": (pipeline_run, "run_id", _any_id, "DAG run"),
    "a store that compares no epoch": (sql, "holds", lambda *_: True, "wrote in epoch"),
    "a cancelled run that goes on": (Airflow, "fail_run", _nothing, "runs although its PipelineRun is gone"),
    "a status that begins anew": (run_report.RunReport, "describe", _from_the_start, "went back"),
    "a leader that reads only what changes": (runtime.Manager, "_sweep", _nothing, "has not ended"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_in_the_platform_breaks_a_promise(mistake: str, monkeypatch: pytest.MonkeyPatch) -> None:
    owner, name, wrong, symptom = MISTAKES[mistake]
    monkeypatch.setattr(owner, name, wrong)
    for seed in range(FOUND_WITHIN):
        if any(symptom in broken for broken in simulate(seed)[0].broken):
            return
    raise AssertionError(f"nobody notices {mistake} in {FOUND_WITHIN} hours")
