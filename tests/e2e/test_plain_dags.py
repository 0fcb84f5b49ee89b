"""A plain DAG file, tagged, on a real Airflow: nobody applied it, and its runs are as all others."""

import contextlib
import json
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from api.client import Client
from api.controllers.attempts import attempt_of, condition_of
from api.gen.michelangelo.api.v2 import pipeline_pb2
from api.gen.michelangelo.api.v2 import pipeline_run_pb2 as wire
from api.lost_runs import ATTEMPTS
from tests.e2e.conftest import Ma
from tests.e2e.flights_platform import Flights, eventually
from tests.patience import soon

pytestmark = pytest.mark.robustness

PROJECT = "plain"
FILES = Path(__file__).with_name("plain_dags")
TAG = "michelangelo:plain/delays"
READY, ERROR = pipeline_pb2.PIPELINE_STATE_READY, pipeline_pb2.PIPELINE_STATE_ERROR
SEEN_S = 300
RUN_S = 180
DOCUMENT = """
apiVersion: michelangelo.api/v2
kind: Project
metadata: {name: plain}
spec: {tier: 3, owner: {owningTeam: 3f0d8a52-6c1b-4c55-9a42-7b0c6f1d2e90, owners: [flights-team]}}
"""


class Plain:
    """The file in Airflow's folder, and what the platform says of it."""

    def __init__(self, ma: Ma, api: Client) -> None:
        assert ma.config.own_dags is not None
        self.ma, self.api, self.folder = ma, api, ma.config.own_dags

    def put(self, name: str, old: str = "", new: str = "", *, dag: str = "late_flights") -> None:
        """Put the file there, with one edit and as the DAG of a name."""
        text = (FILES / "late_flights.py").read_text()
        assert old in text
        text = (text.replace(old, new) if old else text).replace("late_flights()", f"{dag}()")
        (self.folder / f".{name}").write_text(text)
        (self.folder / f".{name}").rename(self.folder / name)

    def pipeline(self, state: Any, told: str = "") -> Any:
        """Wait for the Pipeline in a state."""

        def look() -> Any:
            found = self.api.find("Pipeline", PROJECT, "delays")
            fits = found is not None and found.status.state == state and told in found.status.error_message
            return found if fits else None

        return eventually(look, f"Pipeline delays in state {state} {told}", timeout_s=SEEN_S)

    def run(self, name: str, *settings: str, wait: bool = True) -> Any:
        """Run it as a user does."""
        given = [part for setting in settings for part in ("--set", setting)]
        ended = self.ma("pipeline", "run", "delays", "-n", PROJECT, "--name", name, *given, *["--wait"][: int(wait)],
                        timeout_s=soon(RUN_S))  # fmt: skip
        assert "Traceback" not in ended.out + ended.err
        return self.get(name)

    def get(self, name: str) -> Any:
        """Return a run."""
        return self.api.get("PipelineRun", PROJECT, name)

    def until(self, name: str, state: Any) -> Any:
        """Wait for a run in a state."""
        return eventually(
            lambda: found if (found := self.get(name)).status.state == state else None, f"{name}", timeout_s=SEEN_S
        )


@pytest.fixture(scope="module")
def plain(ma: Ma, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plain]:
    """The project, and the DAG file in Airflow's folder."""
    document = tmp_path_factory.mktemp("plain") / "project.yaml"
    document.write_text(DOCUMENT)
    applied = ma("apply", "-f", str(document))
    assert applied.code == 0, applied.err
    with Client.of(ma.config) as api:
        made = Plain(ma, api)
        made.put("late_flights.py")
        made.put("nowhere.py", TAG, "michelangelo:nowhere/delays", dag="nowhere")
        yield made
    shutil.rmtree(made.folder)
    made.folder.mkdir()


def test_a_tagged_dag_file_is_a_pipeline_and_runs_as_one(plain: Plain) -> None:
    pipeline = plain.pipeline(READY)
    assert pipeline.spec.manifest.file_path == "late_flights.py"
    assert (pipeline.spec.description, pipeline.spec.owner.name) == ("Counts what was late.", "flights-team")
    run = plain.run("one", "rows=7")
    assert run.status.state == wire.PIPELINE_RUN_STATE_SUCCEEDED, run.status.error_message
    assert run.status.workflow_id == "late_flights"
    assert run.status.workflow_run_id == f"ma__{run.metadata.uid}__1"
    load, report = run.status.steps
    assert [step.name for step in report.sub_steps] == ["report.check", "report.publish"]
    assert [value.number_value for value in load.output["value"].values] == list(range(7))
    assert report.sub_steps[1].output["late"] == 7
    assert run.status.source_pipeline.pipeline.status.latest_revision.name == pipeline.status.latest_revision.name
    shown = plain.ma("pipeline", "dags")
    (good,) = (line for line in shown.out.splitlines() if TAG in line)
    (bad,) = (line for line in shown.out.splitlines() if "nowhere.py" in line)
    assert "READY" in good
    assert "UNKNOWN_PROJECT" in bad


def test_what_it_cannot_do_is_refused_by_name(plain: Plain) -> None:
    plain.pipeline(READY)
    refused = plain.ma("pipeline", "run", "delays", "-n", PROJECT, "--set", "rows=0")
    assert refused.code != 0
    assert "rows" in refused.err
    refused = plain.ma("pipeline-run", "resume", "one", "-n", PROJECT)
    assert refused.code != 0
    assert "PLAIN_DAG" in refused.err
    assert "retry a step" in refused.err
    shown = plain.ma("get", "pipeline", "delays", "-n", PROJECT, "-o", "json")
    document = json.loads(shown.out)
    document["spec"]["description"] = "mine"
    for verb in ("apply", "plan"):
        refused = plain.ma(verb, "-f", "-", given=json.dumps(document))
        assert refused.code != 0, verb
        assert "PLAIN_DAG" in refused.err, f"{verb}: {refused.err}"
        assert "Traceback" not in refused.err


def test_a_failed_step_is_done_again(plain: Plain, tmp_path: Path) -> None:
    plain.pipeline(READY)
    run = plain.run("missing", f"wanted={tmp_path}/here")
    assert run.status.state == wire.PIPELINE_RUN_STATE_FAILED
    assert "report.check" in run.status.error_message
    explained = plain.ma("pipeline-run", "explain", "missing", "-n", PROJECT)
    assert "FileNotFoundError" in explained.out
    (tmp_path / "here").touch()
    again = plain.ma("pipeline-run", "retry", "missing", "-n", PROJECT, "--wait", timeout_s=soon(RUN_S))
    assert again.code == 0, again.out + again.err
    check = plain.get("missing").status.steps[1].sub_steps[0]
    assert list(check.attempt_ids) == ["1", "2"]


def test_it_is_killed_and_begun_again_after_it_was_lost(plain: Plain) -> None:
    plain.pipeline(READY)
    plain.run("slept", "sleep_s=120", wait=False)
    plain.until("slept", wire.PIPELINE_RUN_STATE_RUNNING)
    assert plain.ma("pipeline-run", "kill", "slept", "-n", PROJECT).code == 0
    plain.until("slept", wire.PIPELINE_RUN_STATE_KILLED)
    pipeline = plain.pipeline(READY)
    pipeline.metadata.labels[ATTEMPTS] = "2"
    plain.api.update(pipeline)
    plain.run("lost", "sleep_s=8", wait=False)
    first = plain.until("lost", wire.PIPELINE_RUN_STATE_RUNNING)
    # Airflow's API deletes no run that goes on; a metadata database that was restored has forgotten it all the same.
    with contextlib.closing(sqlite3.connect(plain.ma.config.airflow_home / "airflow.db", timeout=30)) as db, db:
        db.execute("PRAGMA foreign_keys = ON")
        assert db.execute("DELETE FROM dag_run WHERE run_id = ?", (first.status.workflow_run_id,)).rowcount == 1
    run = plain.until("lost", wire.PIPELINE_RUN_STATE_SUCCEEDED)
    assert run.status.workflow_run_id == f"ma__{run.metadata.uid}__2"
    assert attempt_of(run) == 2
    assert condition_of(run, "Attempt").reason == "EngineRunLost"


def test_a_run_of_its_own_schedule_is_a_pipeline_run_too(plain: Plain) -> None:
    plain.pipeline(READY)
    with Flights(plain.ma, plain.ma.config, plain.api).airflow() as http:
        body = {"dag_run_id": "by-hand", "logical_date": None, "conf": {"rows": 2}}
        made = http.post("/api/v2/dags/late_flights/dagRuns", json=body)
        assert made.status_code == 200, made.text

    def adopted() -> Any:
        runs = plain.api.list("PipelineRun", PROJECT)
        ended = wire.PIPELINE_RUN_STATE_SUCCEEDED
        return [one for one in runs if one.status.workflow_run_id == "by-hand" and one.status.state == ended]

    eventually(adopted, "a PipelineRun of the run that Airflow began", timeout_s=SEEN_S)


def test_a_changed_file_is_another_revision_and_two_files_are_none(plain: Plain) -> None:
    first = plain.pipeline(READY)
    plain.put("late_flights.py", 'return {"late": count}', 'return {"late": count, "version": 2}')
    plain.put("late_flights.py", "Counts what was late.", "Counts it better.")
    old = first.status.latest_revision.name
    eventually(lambda: plain.pipeline(READY).status.latest_revision.name != old, "a revision", timeout_s=SEEN_S)
    plain.put("copy.py", dag="copied")
    found = plain.pipeline(ERROR, "TWO_DAGS")
    assert "copy.py" in found.status.error_message
    refused = plain.ma("pipeline", "run", "delays", "-n", PROJECT)
    assert refused.code != 0
    assert "TWO_DAGS" in refused.err
    (plain.folder / "copy.py").unlink()
    plain.pipeline(READY)
    (plain.folder / "late_flights.py").unlink()
    plain.pipeline(ERROR, "DAG_GONE")
