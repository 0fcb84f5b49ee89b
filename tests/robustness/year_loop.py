"""Airflow's own scheduling of one trigger under a false time of day, in a process that is killed and begun anew.

python -m tests.robustness.year_loop '{"manifest": {...}, "clock": "/…/clock", "end": 1798761600, ...}', below
libfaketime.  The clock stands still but for what is written into its file: by this program alone, which moves it on.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from airflow.jobs.job import Job
from airflow.jobs.scheduler_job_runner import SchedulerJobRunner
from airflow.models.dag import DagModel
from airflow.models.dagbundle import DagBundleModel
from airflow.models.dagrun import DagRun
from airflow.models.serialized_dag import SerializedDagModel
from airflow.sdk.exceptions import AirflowSkipException
from airflow.serialization.definitions.dag import SerializedDAG
from airflow.serialization.serialized_objects import LazyDeserializedDAG
from airflow.utils.session import create_session
from airflow.utils.sqlalchemy import prohibit_commit
from airflow.utils.state import DagRunState

from api.errors import ApiError
from operators.start_runs import Tick
from operators.templates.project import build
from operators.templates.trigger import create

BUNDLE = "year"
RETRIES = 3
"""Those of a trigger's task."""


class Clock:
    """The time of day of this process, in a file that libfaketime reads at each look."""

    def __init__(self, path: str) -> None:
        self._path = Path(path)

    def set(self, second: float) -> None:
        """Let it be `second` from now on."""
        text = f"{datetime.fromtimestamp(second, UTC):%Y-%m-%d %H:%M:%S}\n"
        temporary = self._path.with_suffix(".new")
        temporary.write_text(text)
        temporary.replace(self._path)


class Scheduling:
    """What Airflow's scheduler does for one DAG, with its database; tasks are carried out at once, here.

    at: called with the name of each place of a tick that is passed.
    """

    def __init__(self, manifest: dict[str, Any], at: Callable[[str], None] = lambda place: None) -> None:
        self.manifest = manifest
        self._at = at
        self._runner = SchedulerJobRunner(Job(), num_runs=1, executors=[])  # type: ignore[no-untyped-call]

    def parse(self) -> None:
        """Read the DAG, as the DAG processor does."""
        dag = build(self.manifest)
        lazy = LazyDeserializedDAG.from_dag(dag)
        with create_session() as session:
            if session.get(DagBundleModel, BUNDLE) is None:
                session.add(DagBundleModel(name=BUNDLE))
                session.flush()
            SerializedDAG.bulk_write_to_db(BUNDLE, None, [dag], session=session)
            SerializedDagModel.write_dag(lazy, bundle_name=BUNDLE, session=session)
            session.query(DagModel).update({"is_paused": False, "exceeds_max_non_backfill": False})

    def loop(self) -> int:
        """Make the DAG runs that are due and carry out those that wait, also what a killed process left.

        Returns how many were carried out.
        """
        self._at("before")
        with create_session() as session, prohibit_commit(session) as guard:  # type: ignore[no-untyped-call]
            self._runner._create_dagruns_for_dags(guard, session)
            self._runner._start_queued_dagruns(session)
            self._at("made, not committed")
            guard.commit()
        carried = 0
        with create_session() as session:
            for run in session.query(DagRun).filter(DagRun.state == DagRunState.RUNNING):
                assert run.logical_date is not None
                self._at("to be carried out")
                self._carry_out(Tick(self.manifest, run.logical_date, run.start_date))
                self._at("carried out, not committed")
                run.state, run.end_date = DagRunState.SUCCESS, datetime.now(UTC)
                carried += 1
            session.query(DagModel).update({"exceeds_max_non_backfill": False})
        return carried

    def _carry_out(self, tick: Tick) -> None:
        """Do a tick's task, again where it fails: below a false clock a call runs out of time now and then."""
        for left in reversed(range(1 + RETRIES)):
            try:
                create(tick, "default")
            except AirflowSkipException:
                return
            except ApiError:
                if not left:
                    raise
            else:
                return


def live(asked: dict[str, Any], scheduling: Scheduling, rng: random.Random) -> None:
    """Let time pass until the end, in steps; first as long as nothing ran."""
    clock = Clock(asked["clock"])
    clock.set(time.time() + rng.uniform(0, asked["longest_down_s"]))
    for jump in [0.0, *asked["jumps"]]:
        clock.set(time.time() + jump)
        end = min(asked["end"], time.time() + asked["between_s"]) if asked["jumps"] else asked["end"]
        while True:
            scheduling.loop()
            if time.time() >= end:
                break
            clock.set(min(time.time() + rng.uniform(asked["step_s"] / 4, asked["step_s"]), asked["end"]))


def child(begin: Callable[[], None]) -> int:
    """Return the id of a new process that has begun."""
    pid = os.fork()
    if pid == 0:
        begin()
        os._exit(0)
    return pid


def main(asked: dict[str, Any]) -> None:
    """Live through the time, with as many deaths as are asked for; print how often it was killed."""
    scheduling, rng = Scheduling(asked["manifest"]), random.Random(asked["seed"])
    os.waitpid(child(scheduling.parse), 0)
    kills = 0
    while True:
        one = random.Random(rng.random())
        pid = child(lambda one=one: live(asked, scheduling, one))  # type: ignore[misc]
        # Of the false time: the deaths are spread over all of it, however fast this machine lets it pass.
        left = asked["kills"] - kills
        deadline = time.time() + rng.uniform(0, 2 * (asked["end"] - time.time()) / (left + 1)) if left else float("inf")
        while True:
            done, status = os.waitpid(pid, os.WNOHANG)
            if done:
                assert status == 0, f"it ended with {status}"
                print(f"\nKILLS {kills}", flush=True)
                return
            if time.time() > deadline:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
                kills += 1
                break
            time.sleep(0.02)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
