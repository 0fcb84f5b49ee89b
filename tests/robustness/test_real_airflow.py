"""A server that dies around its call to a real Airflow begins one DAG run for each PipelineRun; statuses converge.

Guarantees G7 and G8, with Airflow's books in SQLite and in PostgreSQL.
"""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from api.controllers.adoption import RESYNC_S
from api.gen.michelangelo.api.v2 import pipeline_run_pb2 as wire
from tests.patience import soon
from tests.robustness.killed_server import Connection, KilledServer
from tests.robustness.mortal import Mortal
from tests.robustness.platforms import LEASE_S, PROJECT, create_pipeline
from tests.robustness.real_airflow import airflow_beside, dag_runs, owners, steps
from tests.robustness.results import told

START_S = 600.0
END_S = 1800.0
CRASHES = 50
POINTS = (
    "store.before_commit",
    "store.after_commit",
    "trigger.before_post",
    "trigger.after_post",
    "status.before_write",
)
ENDED = {wire.PIPELINE_RUN_STATE_SUCCEEDED, wire.PIPELINE_RUN_STATE_FAILED}
RUNS = 20
# Nothing listens there: what Airflow reports is lost, and looking alone finds out.
NOWHERE = {"MA_API_HTTP_PORT": "9"}
OUTAGE_S = 10.0
PROMISED_S = 2 * RESYNC_S


@pytest.fixture(params=["SQLite", "PostgreSQL"])
def books(request: pytest.FixtureRequest) -> tuple[str, str]:
    """What Airflow keeps its books in, and where: nothing for the file of its own."""
    if request.param == "SQLite":
        return "SQLite", ""
    postgres = request.getfixturevalue("postgres")
    return "PostgreSQL", postgres.url(postgres.database(), tcp=True)


def status_of(connection: Connection, name: str) -> wire.PipelineRunStatus:
    found: wire.PipelineRunStatus = connection.call(
        "PipelineRun", "Get", namespace=PROJECT, name=name
    ).pipeline_run.status
    return found


@pytest.mark.robustness
@pytest.mark.alone
def test_a_server_that_dies_begins_each_run_of_a_real_airflow_once(tmp_path: Path, books: tuple[str, str]) -> None:
    kind, url = books
    began = time.monotonic()
    with KilledServer(tmp_path, environ={"MA_LEASE_TTL_S": str(LEASE_S)}) as server, airflow_beside(server.config, url):
        connection = server.connect()
        create_pipeline(connection, steps(), ready_s=START_S)
        connection.close()
        mortal, uids = Mortal(server), dict[str, str]()
        for life in range(CRASHES):
            mortal.begin(POINTS[life % len(POINTS)])
            uids[f"run-{life}"] = mortal.submit(f"run-{life}")
            mortal.die()
        connection = server.connect()
        deadline = time.monotonic() + END_S
        while waiting := [name for name in uids if status_of(connection, name).state not in ENDED]:
            assert time.monotonic() < deadline, [(name, status_of(connection, name)) for name in waiting[:2]]
            time.sleep(0.5)
        states = Counter(wire.PipelineRunState.Name(status_of(connection, name).state) for name in uids)
        connection.close()
        counted = owners(dag_runs(server.config))
    told(
        "G7",
        "a server that dies around the call begins each run of a real Airflow once",
        store=f"Airflow on {kind}",
        trials=CRASHES,
        failed=sum(counted[uid] != 1 for uid in uids.values()),
        figures=f"{len(POINTS)} places, {sum(counted.values())} DAG runs, {time.monotonic() - began:.0f} s",
    )
    assert counted == dict.fromkeys(uids.values(), 1)
    assert states == {"PIPELINE_RUN_STATE_SUCCEEDED": CRASHES}


@dataclass
class Seen:
    """What was seen of the runs: the states of each in order, and when it was first seen at its end (Unix time)."""

    states: dict[str, list[int]] = field(default_factory=dict)
    ended: dict[str, float] = field(default_factory=dict)

    def look(self, connection: Connection, names: list[str]) -> None:
        """Look at those that have not ended, and once more at those that have."""
        for name in names:
            state = status_of(connection, name).state
            known = self.states.setdefault(name, [])
            if not known or known[-1] != state:
                known.append(state)
            if state in ENDED:
                self.ended.setdefault(name, time.time())


@pytest.mark.robustness
@pytest.mark.alone
def test_without_a_report_each_run_comes_to_its_end_within_two_looks(tmp_path: Path, books: tuple[str, str]) -> None:
    """Airflow's API server dies while they run, and is back after a while; its reports are lost all the time."""
    kind, url = books
    with KilledServer(tmp_path) as server, airflow_beside(server.config, url, NOWHERE) as airflow:
        connection = server.connect()
        create_pipeline(connection, steps(), ready_s=START_S)
        names, uids, seen = [f"run-{number}" for number in range(RUNS)], dict[str, str](), Seen()
        mortal = Mortal(server)
        for name in names[: RUNS // 2]:
            uids[name] = mortal.submit(name)
        while not seen.ended:
            seen.look(connection, list(uids))
            time.sleep(0.1)
        airflow.kill("airflow-api")
        for name in names[RUNS // 2 :]:
            uids[name] = mortal.submit(name)
        until = time.monotonic() + OUTAGE_S
        while time.monotonic() < until:
            seen.look(connection, names)
            time.sleep(0.1)
        airflow.start("airflow-api")
        airflow.wait(START_S)
        reachable = time.time()
        deadline = time.monotonic() + END_S
        while len(seen.ended) < RUNS:
            assert time.monotonic() < deadline, seen
            seen.look(connection, names)
            time.sleep(0.1)
        connection.close()
        found = {str(run.conf["ma"]["owner_uid"]): run for run in dag_runs(server.config)}
    late = []
    for name, uid in uids.items():
        end = found[uid].end
        assert end is not None
        # One that ended before the outage was either seen before it, or could not be looked at until it was over.
        since = end.timestamp() if seen.ended[name] < reachable else max(end.timestamp(), reachable)
        late.append(seen.ended[name] - since)
    back = [states for states in seen.states.values() if states != sorted(states, key=_rank)]
    told(
        "G8",
        "without a report a status comes to the end of its DAG run within two looks, and never goes back",
        store=f"Airflow on {kind}",
        trials=RUNS,
        failed=len(back) + sum(lag > PROMISED_S for lag in late),
        figures=f"latest {max(late):.1f} s after the end, {PROMISED_S:.0f} s promised",
    )
    assert back == []
    assert max(late) < soon(PROMISED_S)


def _rank(state: int) -> int:
    return 3 if state in ENDED else state
