"""Templates and projects as Airflow's DAG processor reads them: tags, forms, order, schedules."""

from pathlib import Path
from typing import Any

import jsonschema
import pytest

from api.workflows import param_faults
from operators.templates.project import build
from tests.dags.conftest import ROOT, read_by_airflow, written
from tests.dags.manifests import pipeline, step, trigger

TEMPLATES = {"train", "train_and_deploy", "batch_predict"}
LINE = ["materialize_features", "prepare_dataset", "train", "evaluate", "register_model", "deploy_model"]
MANIFESTS = [
    pipeline(
        "late",
        template="train_and_deploy",
        params={"seed": 3, "label": "is_late", "train_until": "2013-09-30", "hyperparameters": {"depth": 3}},
        description="Whether a flight is late.",
        owner="flights-team",
        max_active_runs=4,
    ),
    pipeline("scores", template="batch_predict", type="PREDICTION"),
    pipeline("graph", template="steps", steps=[step("one"), step("two", "register_model", "one")]),
    trigger("nightly"),
    trigger("often", cron=None, interval_s=90.0, parameters={"us": {}, "eu": {}}),
    pipeline("unknown", template="trian"),
    pipeline("wrong", params={"seed": "three"}),
    pipeline("circle", steps=[step("a", "register_model", "b"), step("b", "register_model", "a")]),
    pipeline("half-built", steps=[step("a"), step("b", "register_model", "a", surplus=1)]),
    trigger("never", cron="99 * * * *"),
    {**pipeline("early"), "project": "trains"},
]
BROKEN = {"unknown", "wrong", "circle", "half-built", "late.never"}
GOOD = {"flights.late", "flights.scores", "flights.graph", "flights.late.nightly", "flights.late.often", "trains.early"}


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Any:
    home: Path = tmp_path_factory.mktemp("home")
    files = written(home, *MANIFESTS)
    (home / "manifests" / "flights" / "half.json").write_text('{"kind": "Pipel')
    (home / "manifests" / "flights" / "list.json").write_text("[]")
    (home / "manifests" / "flights" / "empty.json").write_text('{"kind": "Pipeline", "project": "flights"}')
    return read_by_airflow(home, ROOT / "dags", files)


def test_every_good_dag_is_read_and_no_file_has_an_error(found: Any) -> None:
    assert found["errors"] == {}
    broken = {name for name, dag in found["dags"].items() if "broken" in dag["tags"]}
    assert broken == {f"flights.{name}" for name in BROKEN}
    assert set(found["dags"]) == TEMPLATES | GOOD | broken


def test_reading_dags_loads_no_grpc_and_none_of_the_heavy_libraries(found: Any) -> None:
    assert not {"grpc", "ray", "feast", "mlflow", "pandas", "lightgbm"} & set(found["modules"])


def test_there_is_a_file_of_its_own_for_each_template() -> None:
    assert {path.stem for path in (ROOT / "dags").glob("*.py")} == TEMPLATES


@pytest.mark.parametrize("name", sorted(TEMPLATES))
def test_a_bare_template_is_found_by_its_tag_and_never_starts_by_itself(found: Any, name: str) -> None:
    dag = found["dags"][name]
    assert dag["tags"] == ["template"]
    assert (dag["schedule"], dag["catchup"]) == ("None", False)
    assert dag["doc_md"]


@pytest.mark.parametrize("name", sorted(TEMPLATES | {"flights.late", "flights.scores", "trains.early"}))
def test_the_form_of_a_dag_accepts_its_own_defaults(found: Any, name: str) -> None:
    for parameter, param in found["dags"][name]["params"].items():
        schema = param["schema"]
        jsonschema.Draft202012Validator.check_schema(schema)
        jsonschema.Draft202012Validator(schema, format_checker=jsonschema.FormatChecker()).validate(param["value"])
        assert schema["title"], parameter
        assert schema["section"], parameter


BAD = {
    "sample_fraction": (0, 1.5, "all"),
    "train_until": ("yesterday", 5),
    "seed": (-1, 2**31, 0.5),
    "minimum_auc": (-0.1, 1.1),
    "algorithm": ("guessing",),
    "engine": ("spark",),
    "baseline_columns": ("carrier", [1]),
    "hyperparameters": ([], "depth=3"),
}


@pytest.mark.parametrize("parameter", BAD)
def test_what_no_run_can_work_with_is_refused_by_form_api_and_dag_alike(found: Any, parameter: str) -> None:
    schemas = {name: param["schema"] for name, param in found["dags"]["train_and_deploy"]["params"].items()}
    form = jsonschema.Draft202012Validator(schemas[parameter], format_checker=jsonschema.FormatChecker())
    for value in BAD[parameter]:
        assert not form.is_valid(value)
        assert param_faults(schemas, {parameter: value}, "spec.input"), f"the API takes {value!r}"
        with pytest.raises(ValueError, match=f"parameter '{parameter}': ."):
            build(pipeline(template="train_and_deploy", params={parameter: value}))


def test_stages_follow_each_other(found: Any) -> None:
    def order(name: str) -> list[str]:
        tasks = found["dags"][name]["tasks"]
        first = set(tasks) - {after for task in tasks.values() for after in task["downstream"]}
        line = sorted(first)
        while tasks[line[-1]]["downstream"]:
            # What an earlier stage returned is read by later ones too: the next is the one that waits for no other.
            waiting = set(tasks[line[-1]]["downstream"])
            line.append((waiting - {after for name in waiting for after in tasks[name]["downstream"]}).pop())
        assert set(line) == set(tasks)
        return line

    assert order("train_and_deploy") == order("flights.late") == LINE
    assert order("train") == order("trains.early") == LINE[:-1]
    assert order("batch_predict") == order("flights.scores") == ["materialize_features", "batch_predict"]
    assert order("flights.graph") == ["one", "two"]


def test_a_stage_is_tried_again(found: Any) -> None:
    for name in TEMPLATES:
        assert {task["retries"] for task in found["dags"][name]["tasks"].values()} == {2}


def test_a_pipelines_dag_shows_its_own_values_over_the_templates(found: Any) -> None:
    params = found["dags"]["flights.late"]["params"]
    values = {name: param["value"] for name, param in params.items()}
    bare = {name: param["value"] for name, param in found["dags"]["train_and_deploy"]["params"].items()}
    own = {"seed": 3, "label": "is_late", "train_until": "2013-09-30", "hyperparameters": {"depth": 3}}
    told = {"project": "flights", "pipeline": "late", "root_dir": "/srv/flights", "revision": "pipeline-late-1"}
    assert values == {**bare, **own, "ma": told}
    for name in own:
        assert params[name]["schema"] == found["dags"]["train_and_deploy"]["params"][name]["schema"]


def test_a_pipelines_dag_can_be_found_and_read(found: Any) -> None:
    dag = found["dags"]["flights.late"]
    assert {"pipeline", "train", "template:train_and_deploy", "project:flights", "spec:0123456789ab"} == set(
        dag["tags"]
    )
    assert dag["description"] == "Whether a flight is late."
    for text in ("Whether a flight is late.", "**late**", "**flights**", "pipeline-late-1", "flights-team"):
        assert text in dag["doc_md"]
    assert dag["max_active_runs"] == 4
    assert (dag["schedule"], dag["catchup"]) == ("None", False)


def test_a_triggers_dag_has_the_schedule_and_one_mapped_task(found: Any) -> None:
    nightly, often = found["dags"]["flights.late.nightly"], found["dags"]["flights.late.often"]
    assert (nightly["schedule"], often["schedule"]) == ("0 3 * * *", "every 90 s")
    for dag in (nightly, often):
        assert set(dag["tags"]) == {"trigger", "project:flights", "spec:0123456789ab"}
        assert not dag["catchup"]
        assert {name: task["mapped"] for name, task in dag["tasks"].items()} == {"create_run": True}
