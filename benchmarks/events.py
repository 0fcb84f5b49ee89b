"""From an event to the DAG run that it begins: how long after `publish` Airflow has it queued.

Peer: Airflow's own events in the same Airflow: POST of an asset event, and a DAG of one empty task that the asset
schedules; its scheduler makes the run.
Command: `python -m benchmarks events`

Both ends are instants of one machine's clock: when the call began, and `queued_at` in Airflow's record of the run.  Our
pipeline is paused in Airflow, so that its runs are made and wait: what is measured is how they come to be.
"""

from __future__ import annotations

import contextlib
import itertools
import random
import time
from typing import Any

from google.protobuf import json_format

from api.client import Client
from api.config import Config
from api.kinds import kinds
from api.messages import enums
from benchmarks.measuring.figures import Figure
from benchmarks.measuring.results import Measured
from benchmarks.measuring.rounds import interleaved
from benchmarks.systems import declared, platform
from benchmarks.systems.rest import PlainAirflow, epoch, until
from benchmarks.workbench import Workbench

TITLE = "From an event to its DAG run"
PEER = "an asset event by REST, and the DAG that the asset schedules, in the same Airflow"
ROUNDS = 200
WARM_UP = 5
LONGEST_REST_S = 0.2
PROJECT, PIPELINE, PLAIN = "bench", "on-event", "plain_on_asset"
NAME = "orders.loaded"
DAG = '''"""A DAG of Airflow's own that an asset schedules."""

from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG, Asset

with DAG("{dag_id}", schedule=[Asset("{dag_id}")], is_paused_upon_creation=False) as dag:
    EmptyOperator(task_id="nothing")
'''


class Side:
    """A running platform; `ours` and `peer` tell one event each and return milliseconds until its run is queued."""

    def __init__(self, config: Config, api: Client, airflow: PlainAirflow) -> None:
        self._config = config
        self._api = api
        self._airflow = airflow
        self._number = itertools.count()
        self._chance = random.Random(7)
        self._asset = 0

    def begin(self) -> None:
        """Make both sides, and let each run until nothing is run for the first time."""
        (self._config.dags_path / f"{PLAIN}.py").write_text(DAG.format(dag_id=PLAIN))
        self._api.apply(declared.project(PROJECT))
        self._api.apply(declared.two_tasks(PROJECT, PIPELINE))
        until(lambda: enums.of(self._api.get("Pipeline", PROJECT, PIPELINE).status, "state") == "READY")
        self._airflow.pause(f"{PROJECT}.{PIPELINE}")
        subscription = kinds()["Subscription"].new(PROJECT, "on-load")
        json_format.ParseDict({"events": [{"name": NAME}], "pipeline": {"name": PIPELINE}}, subscription.spec)
        self._api.apply(subscription)
        until(lambda: self._airflow.dag(PLAIN))
        assets = self._airflow.get("/assets?limit=100")["assets"]
        self._asset = next(asset["id"] for asset in assets if PLAIN in (asset["uri"], asset["name"]))
        interleaved(WARM_UP, self.ours, self.peer)

    def ours(self) -> float:
        """Publish an event and find the run that names it."""
        self._rest()
        begun = time.time()
        event = self._api.publish(NAME, {"n": 1}, namespace=PROJECT, key=str(next(self._number))).event
        run = until(lambda: self._run_of(event))
        dag_run: Any = until(lambda: self._queued(f"{PROJECT}.{PIPELINE}", f"ma__{run.metadata.uid}__1"))
        return (epoch(dag_run) - begun) * 1000

    def _run_of(self, event: str) -> Any | None:
        status = self._api.get("Subscription", PROJECT, "on-load").status
        if status.last_event != event or not status.last_run.name:
            return None
        return self._api.get("PipelineRun", PROJECT, status.last_run.name)

    def peer(self) -> float:
        """Tell an asset's event and find the run that came after it."""
        self._rest()
        before = self._newest()
        begun = time.time()
        self._airflow.asset_event(self._asset, {"n": 1})
        run_id = until(lambda: found if (found := self._newest()) != before else "")
        return (epoch(until(lambda: self._queued(PLAIN, run_id))) - begun) * 1000

    def _newest(self) -> str:
        found = self._airflow.get(f"/dags/{PLAIN}/dagRuns?limit=1&order_by=-id")["dag_runs"]
        return str(found[0]["dag_run_id"]) if found else ""

    def _queued(self, dag_id: str, run_id: str) -> str:
        found = self._airflow.run_if_there(dag_id, run_id)
        return str(found["queued_at"]) if found else ""

    def _rest(self) -> None:
        """Meet the loops of both anywhere."""
        time.sleep(self._chance.random() * LONGEST_REST_S)


def measure(bench: Workbench) -> Measured:
    """Return the figures."""
    with contextlib.ExitStack() as stack:
        config = stack.enter_context(platform.running(bench.new_home()))
        api = stack.enter_context(Client.of(config))
        airflow = stack.enter_context(contextlib.closing(PlainAirflow(config.airflow_port)))
        side = Side(config, api, airflow)
        side.begin()
        ours, peer = interleaved(bench.rounds_or(ROUNDS), side.ours, side.peer)
    return Measured(
        [
            Figure("DAG run queued", "ms", tuple(ours), tuple(peer)),
            Figure("  99th percentile", "ms", (_late(ours),), (_late(peer),)),
            Figure("  the slowest", "ms", (max(ours),), (max(peer),)),
        ],
        [
            f"An event at a time, {LONGEST_REST_S:g} s at most after the one before; goal: 99 of 100 within a second.",
            "Ours is stored durably, matched, made a PipelineRun and then a DAG run; the peer's run is made by the "
            "scheduler's loop, which looks every 0.1 s here and every second by default.",
        ],
    )


def _late(values: Any) -> float:
    """Return the 99th percentile: no more than one of a hundred is above it."""
    return float(sorted(values)[max(0, -(-99 * len(values) // 100) - 1)])
