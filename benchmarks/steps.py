"""What a step costs on Airflow: ten steps one after the other, and 32 of them side by side.

Ours: a pipeline written in Python, applied with `ma pipeline apply` and started by creating a PipelineRun.
Peer: the same steps as a DAG written by hand with Airflow's own `@task`, in an Airflow at its default settings.  Beside
it the same DAG in the Airflow that our platform starts: what the settings alone are worth.
Command: `python -m benchmarks steps`

Each step adds one to what the step before it returned.  Both ends are read from Airflow's record of the run.
"""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Callable, Sequence
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

from api.client import Client
from api.config import Config
from api.messages import enums
from benchmarks.measuring.figures import Figure, Goal
from benchmarks.measuring.results import Measured
from benchmarks.measuring.rounds import interleaved
from benchmarks.systems import declared, platform, stock_airflow
from benchmarks.systems.rest import STATE_LOOK_S, PlainAirflow, until
from benchmarks.workbench import Workbench

TITLE = "Ten steps in a chain, and 32 side by side, on Airflow"
PEER = "the same steps in Airflow at its defaults"
ROUNDS = 5
NOTES = (
    "Airflow's scheduler sleeps for a second when it has nothing to do; ours is woken when there is work, and its "
    "workers have imported what tasks need.",
    "Ours runs a step in the process of its task, as Airflow does, and stores what it returns by its content.",
)
WITH_OUR_SETTINGS = "  beside Airflow with our settings"
PROJECT = "bench"
NAMES = ("chain", "fan")
OURS = """
from operators import foreach, pipeline, task


@task
def add(x: int) -> int:
    return x + 1


@task
def total(found: list[int]) -> int:
    return sum(found)


@pipeline
def chain(x: int = 0):
    for _ in range(10):
        x = add(x)
    return x


@pipeline
def fan(x: int = 0):
    return total(foreach(add, list(range(32))))
"""
MANIFEST = """
apiVersion: michelangelo.api/v2
kind: Pipeline
metadata: {{name: {name}, namespace: {project}}}
spec:
  type: TRAIN
  manifest: {{type: PIPELINE_MANIFEST_TYPE_UNIFLOW, filePath: flow, uniflowFunction: {name}}}
"""
THEIRS = """
from airflow.sdk import dag, task


@task
def add(x):
    return x + 1


@task
def total(found):
    return sum(found)


@dag(schedule=None, dag_id="plain_chain", is_paused_upon_creation=False)
def chain():
    x = 0
    for _ in range(10):
        x = add(x)


@dag(schedule=None, dag_id="plain_fan", is_paused_upon_creation=False)
def fan():
    total(add.expand(x=list(range(32))))


chain()
fan()
"""


class Runs:
    """Both platforms, running."""

    def __init__(self, config: Config, api: Client, embedded: PlainAirflow, stock: PlainAirflow) -> None:
        self._config, self._api, self._embedded, self._stock = config, api, embedded, stock
        self._number = itertools.count()

    def begin(self, folder: Path) -> None:
        """Make the pipelines and wait for every DAG."""
        (folder / "flow.py").write_text(OURS)
        (self._config.dags_path / "plain.py").write_text(THEIRS)
        self._api.apply(declared.project(PROJECT))
        for name in NAMES:
            (folder / f"{name}.yaml").write_text(MANIFEST.format(name=name, project=PROJECT))
            platform.ma(self._config, "pipeline", "apply", "-f", str(folder / f"{name}.yaml"))
            until(lambda: self._state("Pipeline", name) == "READY")  # noqa: B023  # asked before the next name
            for airflow in (self._embedded, self._stock):
                until(lambda: airflow.dag(f"plain_{name}"))  # noqa: B023

    def ours(self, name: str) -> float:
        """Return the seconds of one run of ours."""
        begun = time.time()
        run = self._api.create(declared.run(PROJECT, name, f"{name}-{next(self._number)}"))
        until(lambda: self._state("PipelineRun", run.metadata.name) in ("SUCCEEDED", "FAILED"), look_s=STATE_LOOK_S)
        return _seconds(self._embedded, f"{PROJECT}.{name}", f"ma__{run.metadata.uid}__1", begun)

    def stock(self, name: str) -> float:
        """Return the seconds of one run of an Airflow at its defaults."""
        return self._plain(self._stock, name)

    def tuned(self, name: str) -> float:
        """Return the seconds of one run of the DAG written by hand, with our settings."""
        return self._plain(self._embedded, name)

    def _plain(self, airflow: PlainAirflow, name: str) -> float:
        dag_id, run_id, begun = f"plain_{name}", f"run-{next(self._number)}", time.time()
        airflow.trigger(dag_id, run_id, {})
        airflow.ended(dag_id, run_id)
        return _seconds(airflow, dag_id, run_id, begun)

    def _state(self, kind: str, name: str) -> str:
        return str(enums.of(self._api.get(kind, PROJECT, name).status, "state"))


def _seconds(airflow: PlainAirflow, dag_id: str, run_id: str, begun: float) -> float:
    found: Any = airflow.run(dag_id, run_id)
    if found["state"] != "success":
        raise ValueError(f"run {run_id} of {dag_id} is {found['state']}")
    return datetime.fromisoformat(found["end_date"]).timestamp() - begun


def measure(bench: Workbench) -> Measured:
    """Return the figures."""
    with contextlib.ExitStack() as stack:
        home = bench.new_folder("airflow") / "home"
        environ = stock_airflow.environment(home) | {"AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "True"}
        stack.enter_context(stock_airflow.running(home, environ=environ, dags={"plain.py": THEIRS}))
        config = stack.enter_context(platform.running(bench.new_home()))
        api = stack.enter_context(Client.of(config))
        embedded = stack.enter_context(contextlib.closing(PlainAirflow(config.airflow_port)))
        stock = stack.enter_context(contextlib.closing(PlainAirflow(int(environ["AIRFLOW__API__PORT"]))))
        runs = Runs(config, api, embedded, stock)
        runs.begin(bench.new_folder("flows"))
        rounds = bench.rounds_or(ROUNDS)
        ours, (peer, tuned) = _beside(runs, "chain", [runs.stock, runs.tuned], rounds)
        figures = [
            Figure("ten steps, one after the other", "s", ours, peer, goal=Goal("times", 4)),
            Figure(WITH_OUR_SETTINGS, "s", ours, tuned),
        ]
        notes = list(NOTES)
        try:
            ours, (tuned, peer) = _beside(runs, "fan", [runs.tuned, runs.stock], rounds)
        except TimeoutError as error:
            ours, (tuned,) = _beside(runs, "fan", [runs.tuned], rounds)
            figures.append(Figure("32 side by side, beside Airflow with our settings", "s", ours, tuned))
            notes.append(f"32 side by side in Airflow at its defaults: {error}{stock_airflow.why(home)}.")
        else:
            figures.append(Figure("32 side by side", "s", ours, peer))
            figures.append(Figure(WITH_OUR_SETTINGS, "s", ours, tuned))
    return Measured(figures, notes)


def _beside(
    runs: Runs, name: str, peers: Sequence[Callable[[str], float]], rounds: int
) -> tuple[tuple[float, ...], list[tuple[float, ...]]]:
    """Return the seconds of our runs and of each peer's, once warm.  Raises TimeoutError if a run does not end."""

    def all_peers() -> list[float]:
        return [peer(name) for peer in peers]

    runs.ours(name), all_peers()
    ours, others = interleaved(rounds, partial(runs.ours, name), all_peers)
    return tuple(ours), list(zip(*others, strict=True))
