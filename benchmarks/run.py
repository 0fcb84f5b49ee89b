"""What the platform adds to a run: from creating a PipelineRun to its first task running, and to its end.

Peer: the same two tasks as a DAG written by hand, triggered by Airflow's REST API, in the same Airflow, in turns with
ours.  Both ends are read from Airflow's own record: when the first task started, when the run ended.
Command: `python -m benchmarks run`

The tasks do nothing, so that all that is left is what it costs to run one.
"""

from __future__ import annotations

import contextlib
import itertools
import random
import time
from dataclasses import dataclass, replace

from api.client import Client
from api.config import Config
from api.messages import enums
from benchmarks.measuring.figures import Figure, Goal, percentile
from benchmarks.measuring.results import Measured
from benchmarks.measuring.rounds import interleaved
from benchmarks.systems import declared, platform
from benchmarks.systems.follower import Follower
from benchmarks.systems.rest import STATE_LOOK_S, PlainAirflow, epoch, until
from benchmarks.workbench import Workbench

TITLE = "A run of two empty tasks, through the platform and without it"
PEER = "the same DAG triggered by REST in the same Airflow"
ROUNDS = 20
WARM_UP = 2
REST_S = 1.0
PROJECT, PIPELINE, PLAIN = "bench", "two-tasks", "plain_two_tasks"


@dataclass(frozen=True)
class Timed:
    """One run, milliseconds since it was asked for.  seen: our status said it had ended; 0 for the peer.

    told: how long after Airflow's own instants a watcher was told that each task and the run had ended.
    """

    accepted: float
    first_task: float
    end: float
    seen: float = 0.0
    told: tuple[float, ...] = ()


class Side:
    """A running platform; `ours` and `peer` make one run each."""

    def __init__(self, config: Config, api: Client, airflow: PlainAirflow, follower: Follower) -> None:
        self._config = config
        self._follower = follower
        self._api = api
        self._airflow = airflow
        self._number = itertools.count()
        self._chance = random.Random(7)

    def begin(self) -> None:
        """Make both DAGs and run each until nothing is run for the first time."""
        (self._config.dags_path / f"{PLAIN}.py").write_text(declared.DAG_OF_TWO_TASKS.format(dag_id=PLAIN))
        self._api.apply(declared.project(PROJECT))
        self._api.apply(declared.two_tasks(PROJECT, PIPELINE))
        until(lambda: enums.of(self._api.get("Pipeline", PROJECT, PIPELINE).status, "state") == "READY")
        until(lambda: self._airflow.dag(PLAIN))
        interleaved(WARM_UP, self.ours, self.peer)

    def ours(self) -> Timed:
        """Create a PipelineRun and follow it by its status alone."""
        self._rest()
        begun = time.time()
        run = self._api.create(declared.run(PROJECT, PIPELINE, f"run-{next(self._number)}"))
        accepted = time.time()
        until(lambda: self._has_ended(run.metadata.name), look_s=STATE_LOOK_S)
        seen = time.time()
        dag_id, run_id = f"{PROJECT}.{PIPELINE}", f"ma__{run.metadata.uid}__1"
        told = tuple(
            (self._follower.told(run.metadata.name, step) - ended) * 1000
            for step, ended in self._airflow.ends(dag_id, run_id).items()
        )
        return replace(self._timed(begun, accepted, dag_id, run_id, seen), told=told)

    def peer(self) -> Timed:
        """Trigger the DAG that was written by hand."""
        self._rest()
        run_id = f"plain-{next(self._number)}"
        begun = time.time()
        self._airflow.trigger(PLAIN, run_id, {})
        accepted = time.time()
        self._airflow.ended(PLAIN, run_id)
        return self._timed(begun, accepted, PLAIN, run_id)

    def _rest(self) -> None:
        """Let the run before come to rest, and meet the scheduler's loop anywhere."""
        time.sleep(REST_S + self._chance.random())

    def _has_ended(self, name: str) -> bool:
        state = enums.of(self._api.get("PipelineRun", PROJECT, name).status, "state")
        if state in ("FAILED", "KILLED", "SKIPPED"):
            raise ValueError(f"run {name} is {state}")
        return state == "SUCCEEDED"

    def _timed(self, begun: float, accepted: float, dag_id: str, run_id: str, seen: float = 0.0) -> Timed:
        first = self._airflow.first_start(dag_id, run_id)
        end = self._airflow.run(dag_id, run_id)
        if end["state"] != "success":
            raise ValueError(f"run {run_id} of {dag_id} is {end['state']}")
        instants = (accepted, epoch(first), epoch(end["end_date"]), seen or begun)
        accepted_ms, first_ms, end_ms, seen_ms = ((instant - begun) * 1000 for instant in instants)
        return Timed(accepted_ms, first_ms, end_ms, seen_ms)


def measure(bench: Workbench) -> Measured:
    """Return the figures."""
    with contextlib.ExitStack() as stack:
        config = stack.enter_context(platform.running(bench.new_home()))
        api = stack.enter_context(Client.of(config))
        airflow = stack.enter_context(contextlib.closing(PlainAirflow(config.airflow_port)))
        api.apply(declared.project(PROJECT))
        side = Side(config, api, airflow, stack.enter_context(Follower(config, PROJECT)))
        side.begin()
        ours, peer = interleaved(bench.rounds_or(ROUNDS), side.ours, side.peer)

    def both(name: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
        return tuple(getattr(one, name) for one in ours), tuple(getattr(one, name) for one in peer)

    def extra(name: str) -> tuple[float, ...]:
        return tuple(mine - other for mine, other in zip(*both(name), strict=True))

    told = tuple(one.seen - one.end for one in ours)
    changes = [after for one in ours for after in one.told]
    return Measured(
        [
            Figure("request accepted", "ms", *both("accepted")),
            Figure("first task running", "ms", *both("first_task")),
            Figure("  more than the peer", "ms", extra("first_task")),
            Figure("run ended", "ms", *both("end")),
            Figure("  more than the peer", "ms", extra("end")),
            Figure("ended to status says so", "ms", told),
            Figure("  the slowest of them", "ms", (max(told),)),
            Figure("a status in Airflow to a watcher, p50", "ms", tuple(percentile(one.told, 0.5) for one in ours)),
            Figure("  p99 of all", "ms", (percentile(changes, 0.99),), goal=Goal("most", 500)),
        ],
        [
            "Our request is accepted when it is stored durably; Airflow hears of it after that.",
            "Each run begins at a random moment of the scheduler's loop.",
            f"The watcher's {len(changes)} changes are the ends of the two tasks and of the run.",
        ],
    )
