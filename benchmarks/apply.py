"""How long after an apply a pipeline can be run: `Client.apply` of a new Pipeline until it is READY, a DAG in Airflow.

Measured in a project that exists, first alone, then beside 1,000 pipelines in 20 other projects; with it what Airflow
needs to parse a project's file, and what it costs to stand by with so many pipelines and with the first ten or so.
Peer: a DAG file with the same tasks, dropped into the same Airflow's folder, until Airflow shows it.  That folder is
looked at every 5 seconds here; with Airflow's own setting it is every 300.
Command: `python -m benchmarks apply [--pipelines 1000 --projects 20 --window-s 60]`
"""

from __future__ import annotations

import contextlib
import itertools
import operator
import random
import time
from collections.abc import Iterator, Sequence

from api.client import Client
from api.config import Config
from api.messages import enums
from benchmarks.measuring.figures import Figure, Goal
from benchmarks.measuring.results import Measured
from benchmarks.measuring.rounds import interleaved
from benchmarks.systems import declared, platform
from benchmarks.systems.rest import PlainAirflow, until
from benchmarks.systems.standing import window
from benchmarks.workbench import Workbench

TITLE = "From apply to a pipeline that can be run"
PEER = "a DAG file dropped into the same Airflow's folder (looked at every 5 s)"
ROUNDS = 10
ALONE, CROWDED = "alone", "crowded"
"""The projects that are applied to, before and after the others were filled: both begin with one pipeline."""
GOAL = Goal("most", 1.0)
MORE = Goal("most", 1.5)
"""How much more CPU time it may cost to stand by with many pipelines."""
WINDOWS = 3
SETTLE_S = 120.0
"""Until what the last apply began has come to rest, and the scheduler looks by itself as seldom as it does."""
FILL_S = 1800.0
LOOK_AT_FOLDER_S = 5.0
"""How often the platform's Airflow looks for new files."""


class Side:
    """A running platform, and what is asked of it."""

    def __init__(self, config: Config, api: Client, airflow: PlainAirflow) -> None:
        self._config = config
        self._api = api
        self._airflow = airflow
        self._number = itertools.count()
        self._chance = random.Random(7)
        self._project = ""
        self.parses_ms: list[float] = []

    def begin(self, project: str) -> None:
        """Make the project that is applied to from now on, with a first pipeline."""
        self._project, self.parses_ms = project, []
        self._api.apply(declared.project(project))
        self._ready(project, "first")

    def ours(self) -> float:
        """Apply a new pipeline; return the seconds until it is ready."""
        self._rest()
        name = f"new-{next(self._number)}"
        taken_s = self._ready(self._project, name)
        self.parses_ms.append(self.parse_ms(f"{self._project}.{name}"))
        return taken_s

    def _rest(self) -> None:
        """Begin anywhere between two looks at the folder, not always right after one."""
        time.sleep(self._chance.random() * LOOK_AT_FOLDER_S)

    def _ready(self, project: str, name: str) -> float:
        begun = time.perf_counter()
        self._api.apply(declared.pipeline(project, name))
        until(lambda: self.state(project, name) == "READY")
        return time.perf_counter() - begun

    def state(self, project: str, name: str) -> str:
        """Return a pipeline's state.  Raises ValueError if it cannot be built."""
        status = self._api.get("Pipeline", project, name).status
        if (state := enums.of(status, "state")) == "ERROR":
            raise ValueError(f"{project}.{name}: {status.error_message}")
        return state

    def dropped(self) -> float:
        """Write a DAG file as a user of plain Airflow does; return the seconds until Airflow shows the DAG."""
        self._rest()
        name = f"plain_{next(self._number)}"
        begun = time.perf_counter()
        (self._config.dags_path / f"{name}.py").write_text(declared.DAG_OF_THE_EXAMPLE.format(dag_id=name))
        until(lambda: self._airflow.dag(name))
        return time.perf_counter() - begun

    def parse_ms(self, dag_id: str) -> float:
        """Return what Airflow says that the last parse of a DAG's file took."""
        found = until(lambda: self._airflow.dag(dag_id))
        return float(found["last_parse_duration"]) * 1000

    def fill(self, pipelines: int, projects: int) -> list[float]:
        """Apply pipelines in other projects and wait for all; return the parse time of each project in ms."""
        for number in range(projects):
            self._api.apply(declared.project(f"other-{number}"))
        for number in range(pipelines):
            self._api.apply(declared.pipeline(f"other-{number % projects}", f"p-{number}"))
        for number in range(pipelines):
            name = (f"other-{number % projects}", f"p-{number}")
            until(lambda name=name: self.state(*name) == "READY", timeout_s=FILL_S, look_s=0.2)
        return [self.parse_ms(f"other-{number}.p-{number}") for number in range(projects)]

    def prove_runnable(self) -> None:
        """A run of a new pipeline's DAG is accepted.  It is paused: the run does not begin."""
        dag_id = f"{self._project}.first"
        self._airflow.pause(dag_id)
        self._airflow.trigger(dag_id, "proof", {})


@contextlib.contextmanager
def _side(config: Config) -> Iterator[Side]:
    with Client.of(config) as api, contextlib.closing(PlainAirflow(config.airflow_port)) as airflow:
        yield Side(config, api, airflow)


def measure(bench: Workbench) -> Measured:
    """Return the figures."""
    rounds = bench.rounds_or(ROUNDS)
    with platform.running(bench.new_home()) as config, _side(config) as side:
        side.begin(ALONE)
        side.prove_runnable()
        alone, dropped = interleaved(rounds, side.ours, side.dropped)
        own_parses = side.parses_ms
        few = _standing_by(config, bench)
        bench.say(f"applying {bench.pipelines} pipelines in {bench.projects} projects")
        begun = time.monotonic()
        other_parses = side.fill(bench.pipelines, bench.projects)
        filled_s = time.monotonic() - begun
        side.begin(CROWDED)
        crowded, dropped_crowded = interleaved(rounds, side.ours, side.dropped)
        many = _standing_by(config, bench)
    each = bench.pipelines // bench.projects
    notes = [
        f"{bench.pipelines:,} pipelines in {bench.projects} projects were applied and READY after {filled_s:.0f} s.",
        f"The project that is applied to has 1 pipeline at first, {rounds + 1} at the end.",
        "A project's first pipeline waits for Airflow's look at the folder; that is not measured here.",
    ]
    return Measured(
        [
            _seconds("apply to READY", alone, dropped),
            _seconds(f"  beside {bench.pipelines:,} pipelines", crowded, dropped_crowded),
            Figure("parse of its file", "ms", tuple(own_parses)),
            Figure(f"parse of a project of {each}", "ms", tuple(other_parses)),
            Figure(f"CPU standing by, {rounds + 1} pipelines", "%", few),
            Figure(f"  {bench.pipelines + 2 * rounds + 2:,} pipelines", "%", many),
            Figure("  times as much", "times", tuple(map(operator.truediv, many, few)), goal=MORE),
        ],
        notes,
    )


def _standing_by(config: Config, bench: Workbench) -> tuple[float, ...]:
    """Return the percent of one core that the platform uses in each of some windows."""
    time.sleep(min(SETTLE_S, 2 * bench.window_s))
    return tuple(window(lambda: platform.processes(config), bench.window_s).cpu_percent for _ in range(WINDOWS))


def _seconds(name: str, ours: Sequence[float], peer: Sequence[float]) -> Figure:
    return Figure(name, "s", tuple(ours), tuple(peer), goal=GOAL)
