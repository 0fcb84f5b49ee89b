"""Pipelines and triggers run by Airflow itself, with its database, templating and XComs; the programs are stand-ins."""

import asyncio
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from api.gen.michelangelo.api.v2 import trigger_run_pb2
from api.kinds import kinds
from api.server import grpc_server
from api.store.base import Query
from tests.api.controllers.conftest import World
from tests.dags.conftest import airflow_environ, written
from tests.dags.manifests import pipeline, step

NASTY = "{{ 7*7 }} $(id) {% x\n\u2028\"'\\"
OUTPUTS = {
    "materialize_features": {"feature_service": f"service {NASTY}", "features_uri": "file:///features"},
    "prepare_dataset": {"dataset_uri": f"file:///{NASTY}", "train_rows": "10"},
    "train": {"model_uri": "file:///model {{ 1 }}"},
    "evaluate": {"report": "report-1", "auc": "0.7"},
    "register_model": {"model": "model-1", "model_version": "1"},
}
PROGRAM = """
from operators.errors import UserError

def run(args):
    if {name!r} == "train" and args["seed"] == 666:
        raise UserError("label 'x' is constant")
    return {outputs!r}
"""
FINDS_PROGRAMS = "import operators.jobs; operators.jobs.__path__.insert(0, {folder!r})"
CONF = {"label": NASTY, "hyperparameters": {"a": [NASTY]}, "model_name": NASTY}
ASKED = [
    {"dag_id": "flights.late", "conf": {**CONF, "ma": {"owner_uid": "1234", "pipeline_run": "late-1"}}},
    {"dag_id": "flights.bad", "manual": True},
    {"dag_id": "flights.graph", "manual": True},
    # No task is for a time before its trigger was activated.
    {"dag_id": "flights.train.nightly", "at": "2100-03-10T03:00:00Z"},
    {"dag_id": "flights.train.nightly", "manual": True},
]


def stand_ins(folder: Path) -> Path:
    """Write a program for each stage, and what makes jobs find them."""
    folder.mkdir()
    for name, outputs in OUTPUTS.items():
        (folder / f"{name}.py").write_text(PROGRAM.format(name=name, outputs=outputs))
    (folder / "sitecustomize.py").write_text(FINDS_PROGRAMS.format(folder=str(folder)))
    return folder


def run_all(home: Path, api_port: int) -> list[Any]:
    files = written(
        home,
        pipeline("late", template="train_and_deploy", params={"module": NASTY}),
        pipeline("bad", params={"seed": 666}),
        pipeline("graph", template="steps", steps=graph()),
    )
    environ = airflow_environ(
        home,
        AIRFLOW__CORE__DAGS_FOLDER=str(files),
        PYTHONPATH=str(stand_ins(home / "programs")),
        MA_API_PORT=str(api_port),
    )
    airflow = [sys.executable, "-m", "airflow", "db", "migrate"]
    subprocess.run(airflow, env=environ, check=True, capture_output=True, timeout=180)
    script = str(Path(__file__).with_name("run_dags.py"))
    done = subprocess.run(
        [sys.executable, script, str(files), json.dumps(ASKED)],
        env=environ,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert "\nENDED " in done.stdout, done.stdout[-8000:] + done.stderr[-8000:]
    ended: list[Any] = json.loads(done.stdout.rpartition("ENDED ")[2])
    return ended


async def nightly(world: World) -> None:
    """Activate a trigger of two entries, one of them with a name that a template would change."""
    new = kinds()["TriggerRun"].new("flights", "nightly")
    new.spec.pipeline.name = "train"
    new.spec.trigger.cron_schedule.cron = "0 3 * * *"
    new.spec.trigger.parameters_map["{{ 7*7 }}"].kw_args.update({"rows": 3})
    new.spec.trigger.parameters_map["eu"].SetInParent()
    await world.resources.create(new)
    running = trigger_run_pb2.TRIGGER_RUN_STATE_RUNNING
    await world.until("TriggerRun", "nightly", lambda found: found.status.state == running)


def graph() -> list[dict[str, Any]]:
    last = step("register-it", model_uri="${steps.make-features.outputs.features_uri}", report=NASTY)
    return [last, step("make-features", "materialize_features", module=NASTY)]


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> Any:
    home = tmp_path_factory.mktemp("home")

    async def all_of_it() -> dict[str, Any]:
        world = World(home)
        world.start()
        async with grpc_server(world.resources, 0) as port:
            await world.ready()
            await nightly(world)
            runs = await asyncio.to_thread(run_all, home, port)
            page = await world.resources.list("PipelineRun", Query(namespace="flights"))
        await world.stop()
        return {"runs": runs, "created": list(page.items), "home": home}

    return asyncio.run(all_of_it())


def states(run: Any) -> dict[str, str]:
    return {task["task_id"]: task["state"] for task in run["tasks"]}


def args_of(ended: Any, dag_id: str) -> dict[str, Any]:
    """Return what the programs of a DAG's run were given, by program."""
    specs = [json.loads(path.read_text()) for path in (ended["home"] / "jobs").glob("*/spec.json")]
    return {spec["program"]: spec["args"] for spec in specs if spec["args"]["run"]["dag_id"] == dag_id}


def test_a_pipeline_runs_to_its_end(ended: Any) -> None:
    run = ended["runs"][0]
    assert run["state"] == "success"
    assert set(states(run)) == {*OUTPUTS, "deploy_model"}
    assert set(states(run).values()) == {"success"}


def test_every_value_reaches_its_program_as_it_was_given(ended: Any) -> None:
    args = args_of(ended, "flights.late")
    assert args["materialize_features"]["module"] == NASTY
    assert args["prepare_dataset"]["label"] == NASTY
    assert args["train"]["hyperparameters"] == {"a": [NASTY]}
    assert args["register_model"]["model_name"] == NASTY


def test_what_a_stage_returned_reaches_the_later_ones_as_it_was_returned(ended: Any) -> None:
    args = args_of(ended, "flights.late")
    assert args["prepare_dataset"]["feature_service"] == OUTPUTS["materialize_features"]["feature_service"]
    for program in ("train", "evaluate", "register_model"):
        assert args[program]["dataset_uri"] == OUTPUTS["prepare_dataset"]["dataset_uri"]
    assert args["evaluate"]["model_uri"] == OUTPUTS["train"]["model_uri"]
    assert args["register_model"]["report"] == "report-1"


def test_programs_know_their_run_and_its_owner(ended: Any) -> None:
    told = args_of(ended, "flights.late")["train"]["run"]
    assert told == {
        "project": "flights",
        "pipeline": "late",
        "pipeline_run": "late-1",
        "uid": "1234",
        "dag_id": "flights.late",
        "run_id": ended["runs"][0]["run_id"],
        "root_dir": "/srv/flights",
    }


def test_inputs_and_outputs_of_a_stage_can_be_read_by_the_api_server(ended: Any) -> None:
    xcoms = {(row["task_id"], row["key"]): row["value"] for row in ended["runs"][0]["xcoms"]}
    for stage, outputs in OUTPUTS.items():
        assert xcoms[stage, "return_value"] == outputs
        assert "run" not in xcoms[stage, "inputs"]
    assert xcoms["train", "inputs"]["label"] == NASTY
    assert xcoms["deploy_model", "return_value"] == {"deployment": "", "revision": "model-1"}


def test_a_wrong_input_is_not_tried_again_and_stops_what_follows(ended: Any) -> None:
    run = ended["runs"][1]
    assert run["state"] == "failed"
    assert states(run) == {
        "materialize_features": "success",
        "prepare_dataset": "success",
        "train": "failed",
        "evaluate": "upstream_failed",
        "register_model": "upstream_failed",
    }
    assert [task["try_number"] for task in run["tasks"] if task["task_id"] == "train"] == [1]
    xcoms = {(row["task_id"], row["key"]): row["value"] for row in run["xcoms"]}
    verdict = xcoms["train", "verdict"]
    assert (verdict["kind"], verdict["message"]) == ("user", "label 'x' is constant")


def test_a_graph_of_steps_runs_in_order_with_its_references(ended: Any) -> None:
    run = ended["runs"][2]
    assert states(run) == {"make-features": "success", "register-it": "success"}
    args = args_of(ended, "flights.graph")
    assert args["materialize_features"]["module"] == NASTY
    assert args["register_model"]["model_uri"] == "file:///features"
    assert args["register_model"]["report"] == NASTY


def test_a_trigger_creates_a_run_for_each_entry_also_when_a_person_starts_it(ended: Any) -> None:
    for run in ended["runs"][3:]:
        assert run["state"] == "success"
        assert [task["state"] for task in run["tasks"]] == ["success", "success"]
    created = ended["created"]
    entries = sorted(run.metadata.labels["pipelinerun.michelangelo/parameter-id"] for run in created)
    assert entries == ["eu", "eu", "{{ 7*7 }}", "{{ 7*7 }}"]
    scheduled = [run for run in created if "-21000310-030000-" in run.metadata.name]
    assert len(scheduled) == 2
