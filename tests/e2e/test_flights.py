"""The flights from files to predictions: real Airflow, Feast, MLflow and inference server, and what each book says."""

import json
import re
import sqlite3
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from api.gen.michelangelo.api.v2 import deployment_pb2, pipeline_run_pb2
from tests.e2e.flights_platform import PROJECT, SUCCEEDED, Flights, eventually
from tests.processes import command

ROOT = Path(__file__).resolve().parents[2]
STAGES = ["materialize_features", "prepare_dataset", "train", "evaluate", "register_model", "deploy_model"]


def request(**parameters: Any) -> dict[str, Any]:
    """The example's request as a caller of the protocol sends it."""
    row = json.loads((ROOT / "examples" / "flights" / "request.json").read_text())
    given = row.pop("parameters")
    tensors = [
        {"name": name, "datatype": "INT64" if isinstance(value, int) else "BYTES", "shape": [1], "data": [value]}
        for name, value in row.items()
    ]
    return {"inputs": tensors, "parameters": {**given, **parameters}}


def test_every_stage_tells_when_it_ran_on_what_and_what_it_made(flights: Flights) -> None:
    run = flights.run(flights.first_run)
    assert run.status.state == SUCCEEDED
    assert [step.name for step in run.status.steps] == STAGES
    for step in run.status.steps:
        assert step.state == pipeline_run_pb2.PIPELINE_RUN_STEP_STATE_SUCCEEDED
        assert step.start_time.seconds <= step.end_time.seconds
        assert step.log_url.startswith(flights.config.airflow_url)
        assert dict(step.input)
        assert dict(step.output)


def test_an_attempt_is_exactly_one_dag_run(flights: Flights) -> None:
    run = flights.run(flights.first_run)
    with flights.airflow() as http:
        runs = http.get(f"/api/v2/dags/{PROJECT}.train/dagRuns").json()["dag_runs"]
    own = [item["dag_run_id"] for item in runs if run.metadata.uid in item["dag_run_id"]]
    assert own == [f"ma__{run.metadata.uid}__1"] == [run.status.workflow_run_id]


def test_the_model_beats_the_baselines_by_what_was_known_at_the_moment(flights: Flights) -> None:
    report = flights.api.get("EvaluationReport", PROJECT, f"{flights.first_run}-evaluation")
    assert report.spec.source_pipeline_run.name == flights.first_run
    table = next(chart.table for chart in report.spec.charts if chart.title == "Test")
    auc = {row.values[0].str_value: row.values[1].number for row in table.rows}
    assert auc["model"] >= 0.72
    assert auc["rate by carrier and hour"] < 0.63
    assert auc["without the features"] < 0.65


def test_the_model_is_a_resource_with_its_lineage(flights: Flights) -> None:
    model = flights.api.get("Model", PROJECT, "late-1")
    assert model.spec.source_pipeline_run.name == flights.first_run
    assert model.spec.model_family.name == "late"
    assert [item.name for item in model.spec.input_schema.schema_items][:2] == ["carrier", "origin"]
    assert flights.api.get("Revision", PROJECT, "late-1").spec.base_resource.name == "late-1"
    assert flights.api.get("ModelFamily", PROJECT, "late").spec.name == "late"


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning", "ignore::FutureWarning")
def test_mlflow_holds_version_alias_signature_example_and_tags(flights: Flights) -> None:
    import mlflow

    from operators.hooks.mlflow import ModelRegistry

    champion = ModelRegistry(flights.config.mlflow_path).champion(f"{PROJECT}.late")
    info = mlflow.models.get_model_info(champion.uri)
    assert info.signature is not None
    assert "carrier_delay_7d" in info.signature.inputs.input_names()
    assert info.saved_input_example_info is not None
    tags = mlflow.MlflowClient().get_model_version(champion.name, str(champion.version)).tags
    assert tags["michelangelo.pipeline_run"] in {run.metadata.name for run in flights.api.list("PipelineRun", PROJECT)}
    assert not list(flights.config.mlflow_path.rglob("*.pkl"))


def test_a_prediction_says_which_features_were_joined(flights: Flights) -> None:
    answer = flights.predict(request(explain_features=True))
    assert answer.status_code == 200, answer.text
    (output,) = answer.json()["outputs"]
    assert 0 < output["data"][0] < 1
    features = answer.json()["parameters"]["features"]
    assert len(features) == 19
    assert {item["status"] for item in features} == {"PRESENT"}


def test_a_feature_that_is_too_old_is_not_used_and_that_is_said(flights: Flights) -> None:
    answer = flights.predict(request(explain_features=True, event_timestamp="2013-12-31T06:00:00Z"))
    status = {item["feature"]: item["status"] for item in answer.json()["parameters"]["features"]}
    assert status["temp"] == status["origin_delay_3h"] == "OUTSIDE_MAX_AGE"
    assert status["carrier_delay_7d"] == status["seats"] == "PRESENT"


def test_online_and_batch_give_the_same_answer(flights: Flights) -> None:
    """The model's own test rows, scored by MLflow's loader, equal what the artifact says of them."""
    from operators.features import artifact
    from operators.features.scorer import Scorer, columns_of
    from operators.jobs.register_model import compare
    from operators.jobs.train import FULL, TrainedModel

    model = flights.api.get("Model", PROJECT, "late-1").spec
    trained = TrainedModel(Path(model.model_artifact_uri[0].removeprefix("file://")) / FULL)
    scorer = Scorer(artifact.load(model.deployable_artifact_uri[0]))
    held_out = pq.read_table(next(flights.config.artifacts_path.rglob("test.parquet"))).to_pandas().head(2000)
    assert compare(trained, scorer, held_out) <= 1e-5
    assert len(scorer.predict(columns_of(scorer.graph, held_out))) == 2000


def test_a_prediction_is_in_the_log(flights: Flights) -> None:
    given = {**request(), "id": "the-one-in-the-log"}
    assert flights.predict(given).json()["id"] == "the-one-in-the-log"

    def logged() -> Any:
        for path in flights.config.predictions_path.rglob("*.parquet"):
            table = pq.ParquetFile(path).read()
            ids = table["request_id"].to_pylist()
            if "the-one-in-the-log" in ids:
                return table.slice(ids.index("the-one-in-the-log"), 1).to_pylist()[0]
        return None

    row = eventually(logged, "a row in the prediction log", timeout_s=90)
    assert row["carrier"] == "B6"
    assert row["revision"].startswith("late-")
    assert 0 < row["probability"] < 1


def test_the_predict_command_fits_a_terminal(flights: Flights) -> None:
    ended = flights.ma("predict", "flights.late", "-f", str(ROOT / "examples/flights/request.json"))
    assert ended.code == 0, ended.err
    assert re.search(r"probability: 0\.\d+", ended.out)


def test_applying_the_example_again_leaves_in_service_what_a_run_deployed(flights: Flights) -> None:
    before = flights.api.get("Deployment", PROJECT, "late")
    assert before.spec.desired_revision.name
    planned = flights.ma("plan", "-f", str(ROOT / "examples/flights"))
    assert planned.out.splitlines()[-1].startswith("0 created, 0 changed, 0 removed")
    again = flights.ma("apply", "-f", str(ROOT / "examples/flights"))
    assert again.code == 0, again.err
    assert "Deployment late unchanged" in again.out
    assert flights.api.get("Deployment", PROJECT, "late").spec == before.spec


def test_the_deployment_serves_what_the_pipeline_registered(flights: Flights) -> None:
    status = flights.api.get("Deployment", PROJECT, "late").status
    assert status.state == deployment_pb2.DEPLOYMENT_STATE_HEALTHY
    assert status.stage == deployment_pb2.DEPLOYMENT_STAGE_ROLLOUT_COMPLETE


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("sample_fraction=2", "sample_fraction"),
        ("sampel_fraction=1", "did you mean 'sample_fraction'"),
        ("algorithm=xgboost", "algorithm"),
        ("seed=many", "seed"),
    ],
)
def test_a_run_with_a_wrong_parameter_is_refused_before_anything_starts(
    flights: Flights, given: str, said: str
) -> None:
    before = len(flights.api.list("PipelineRun", PROJECT))
    ended = flights.ma("pipeline", "run", "train", "-n", PROJECT, "--set", given)
    assert ended.code != 0
    assert said in ended.err
    assert "Traceback" not in ended.err
    assert len(flights.api.list("PipelineRun", PROJECT)) == before


def test_a_run_that_the_gate_stops_says_why_and_registers_nothing(flights: Flights) -> None:
    models = len(flights.api.list("Model", PROJECT))
    ended = flights.ma("pipeline", "run", "train", "-n", PROJECT, "--wait",
                       "--set", "minimum_auc=0.99", "--set", "sample_fraction=0.05")  # fmt: skip
    assert ended.code != 0
    assert "below minimum_auc 0.99" in ended.out + ended.err
    assert len(flights.api.list("Model", PROJECT)) == models


def test_killing_a_run_stops_its_work(flights: Flights) -> None:
    name, endless = "to-be-killed", {"num_iterations": 100_000_000, "early_stopping_round": 0}
    given = ["--set", "sample_fraction=0.05", "--set", f"hyperparameters={json.dumps(endless)}"]
    ended = flights.ma("pipeline", "run", "train", "-n", PROJECT, "--name", name, *given)
    assert ended.code == 0, ended.err
    flights.until_step(name, "train")
    assert flights.ma("pipeline-run", "kill", name, "-n", PROJECT).code == 0
    assert flights.until_ended(name, timeout_s=90).status.state == pipeline_run_pb2.PIPELINE_RUN_STATE_KILLED
    from tests.e2e.conftest import processes_of

    eventually(
        lambda: not [one for one in processes_of(flights.config) if "operators.jobs.run" in command(one)],
        "the end of the job",
        timeout_s=90,
    )


def test_a_run_started_in_airflow_is_a_pipeline_run(flights: Flights) -> None:
    with flights.airflow() as http:
        conf = {"sample_fraction": 0.02, "minimum_auc": None, "deployment": ""}
        made = http.post(
            f"/api/v2/dags/{PROJECT}.train/dagRuns",
            json={"dag_run_id": "by-hand", "logical_date": None, "conf": conf},
        )
    assert made.status_code == 200, made.text

    def adopted() -> Any:
        runs = flights.api.list("PipelineRun", PROJECT)
        return next((run for run in runs if run.status.workflow_run_id == "by-hand"), None)

    run = eventually(adopted, "a PipelineRun of the DAG run", timeout_s=90)
    assert flights.until_ended(run.metadata.name).status.state == SUCCEEDED
    sources = {model.spec.source_pipeline_run.name for model in flights.api.list("Model", PROJECT)}
    assert run.metadata.name in sources
    assert run.metadata.name in flights.ma("get", "pipelineruns", "-n", PROJECT).out


def test_the_stores_are_sound_after_all_this(flights: Flights) -> None:
    for path in (flights.config.store_path, flights.config.features_path / "online.db"):
        with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as connection:
            assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
