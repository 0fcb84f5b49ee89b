"""The DAGs of a project: one broken manifest leaves the others, and a task builds its own DAG alone."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk import DAG
from airflow.sdk.definitions.param import process_params
from airflow.sdk.exceptions import AirflowFailException
from airflow.serialization.serialized_objects import DagSerialization

from api.config import Config
from operators.templates import project
from operators.templates.project import build, dag_id_of, dags_of_project
from tests.dags.manifests import pipeline, step, trigger
from tests.operators.airflow_here import Run

Write = Callable[..., Path]

UNREADABLE: dict[str, Any] = {
    "not-json": "{",
    "not-text": b"\xff\xfe",
    "a-list": [],
    "a-number": 3,
    "empty": {},
    "other-kind": {**pipeline("x"), "kind": "Deployment"},
    "bad-name": pipeline("x y/z"),
    "long-name": pipeline("x" * 260),
    "tags-are-null": pipeline("x", tags=None),
    "long-tag": pipeline("x", tags=["t" * 200]),
}
BROKEN: dict[str, Any] = {
    "no-template": pipeline("x", template=None),
    "unknown-template": pipeline("x", template="trian"),
    "unknown-value": pipeline("x", params={"seed": "three"}),
    "unknown-date": pipeline("x", params={"train_until": "yesterday"}),
    "params-are-a-list": pipeline("x", params=[1]),
    "type-is-null": pipeline("x", type=None),
    "runs-are-text": pipeline("x", max_active_runs="many"),
    "steps-are-text": pipeline("x", steps="all"),
    "step-without-name": pipeline("x", steps=[{"operator": "train"}]),
    "step-circle": pipeline("x", steps=[step("a", "register_model", "b"), step("b", "register_model", "a")]),
    "step-arguments": pipeline("x", steps=[step("a", surplus=1)]),
    "step-name": pipeline("x", steps=[step("a b")]),
    "long-step-name": pipeline("x", steps=[step("a" * 253)]),
    "trigger-cron": trigger("x", cron="99 * * * *"),
    "trigger-without-schedule": trigger("x", cron=None),
    "trigger-interval": trigger("x", cron=None, interval_s=0),
    "trigger-start": trigger("x", start="soon"),
    "trigger-parameters": trigger("x", parameters=None),
    "trigger-concurrency": trigger("x", max_concurrency="one"),
}


def raw(home: Path, name: str, content: Any) -> None:
    path = home / "manifests" / "flights" / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else _text(content).encode())


def _text(content: Any) -> str:
    return content if isinstance(content, str) else json.dumps(content)


@pytest.mark.parametrize("broken", UNREADABLE)
def test_a_manifest_that_names_no_dag_is_left_out_and_logged_and_the_others_stand(
    home: Path, write: Write, broken: str, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    write(pipeline("first"), trigger("nightly"), pipeline("last"))
    raw(home, "h-broken", UNREADABLE[broken])
    found = dags_of_project("flights")
    assert {dag.dag_id for dag in found.values()} == {"flights.first", "flights.last", "flights.late.nightly"}
    assert "h-broken.json" in caplog.text + capsys.readouterr().out


@pytest.mark.parametrize("broken", BROKEN)
def test_a_dag_that_says_why_stands_for_a_manifest_that_cannot_be_built(home: Path, write: Write, broken: str) -> None:
    write(pipeline("first"), pipeline("last"))
    raw(home, "h-broken", BROKEN[broken])
    found = {dag.dag_id: dag for dag in dags_of_project("flights").values()}
    (name,) = set(found) - {"flights.first", "flights.last"}
    assert name == dag_id_of(BROKEN[broken])
    assert {"broken", "project:flights", "spec:0123456789ab"} == set(found[name].tags)
    assert found[name].description
    assert found[name].schedule is None


def test_a_run_of_such_a_dag_fails_with_the_reason(home: Path, write: Write) -> None:
    write(pipeline("late", template="trian"))

    def only() -> DAG:
        return next(iter(dags_of_project("flights").values()))

    with pytest.raises(AirflowFailException, match="no template 'trian': use train, train_and_deploy"):
        Run(only, conf={"seed": 3, "ma": {"owner_uid": "1"}}).execute("cannot_be_built")


def test_a_manifest_that_goes_away_in_between_is_no_error(home: Path, write: Write) -> None:
    write(pipeline("first"))
    (home / "manifests" / "flights" / "gone.json").symlink_to(home / "nowhere")
    assert [dag.dag_id for dag in dags_of_project("flights").values()] == ["flights.first"]


def test_files_that_are_being_written_are_not_read(home: Path, write: Write) -> None:
    write(pipeline("first"))
    (home / "manifests" / "flights" / ".abc.tmp").write_text(json.dumps(pipeline("second")))
    assert [dag.dag_id for dag in dags_of_project("flights").values()] == ["flights.first"]


def test_a_project_without_manifests_has_no_dags(home: Path) -> None:
    assert dags_of_project("flights") == {}


def test_projects_do_not_see_each_other(home: Path, write: Write) -> None:
    write(pipeline("late"), {**pipeline("late"), "project": "trains"})
    assert [dag.dag_id for dag in dags_of_project("trains").values()] == ["trains.late"]


def test_every_dag_has_a_global_name_of_its_own(home: Path, write: Write) -> None:
    write(*(pipeline(f"p-{number}.v1") for number in range(12)))
    names = dags_of_project("flights")
    assert len(names) == 12
    assert all(name.isidentifier() for name in names)


def test_a_task_builds_its_own_dag_alone(home: Path, write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    write(*(pipeline(f"p{number}") for number in range(5)))
    built: list[str] = []

    def building(manifest: Any) -> DAG:
        built.append(manifest["name"])
        return build(manifest)

    monkeypatch.setattr(project, "build", building)
    monkeypatch.setenv("_AIRFLOW_PARSING_CONTEXT_DAG_ID", "flights.p3")
    monkeypatch.setenv("_AIRFLOW_PARSING_CONTEXT_TASK_ID", "train")
    assert [dag.dag_id for dag in dags_of_project("flights").values()] == ["flights.p3"]
    assert built == ["p3"]


@pytest.mark.parametrize(
    ("manifest", "dag_id"),
    [
        (pipeline("late.v2"), "flights.late.v2"),
        ({**pipeline("train"), "name": "train.rev_7", "pipeline": "train", "hidden": True}, "flights.train.rev_7"),
        (trigger("nightly", pipeline="train"), "flights.train.nightly"),
    ],
)
def test_a_task_reads_no_manifest_but_that_of_its_dag(
    home: Path, write: Write, monkeypatch: pytest.MonkeyPatch, manifest: Any, dag_id: str
) -> None:
    write(pipeline("other"), pipeline("train"), manifest)
    # Were it read, what it says would be an error of the task.
    folder = Config(home=home, projects_root=home).manifests_path / "flights"
    (folder / "other.json").write_text("{")
    monkeypatch.setenv("_AIRFLOW_PARSING_CONTEXT_DAG_ID", dag_id)
    assert [dag.dag_id for dag in dags_of_project("flights").values()] == [dag_id]
    assert project._paths(folder, dag_id) != project._paths(folder, None)


def test_tasks_have_the_parameters_of_their_dag_without_a_copy_of_each() -> None:
    dag = build(pipeline("train", template="train_and_deploy", params={"minimum_auc": 0.6}))
    written_down = DagSerialization.to_dict(dag)["dag"]
    assert len(written_down["params"]) > 5
    assert all(len(task["__var"].get("params", ())) <= 1 for task in written_down["tasks"])
    conf = {"seed": 3, "ma": {"owner_uid": "u"}}
    given = process_params(dag, dag.get_task("train"), conf, suppress_exception=False)
    assert given["minimum_auc"] == 0.6
    assert given["seed"] == 3
    assert set(given) >= {name for name, _ in written_down["params"]}
    assert dag.params["ma"]["project"] == "flights"


def test_ids_are_those_that_the_api_server_asks_for() -> None:
    assert dag_id_of(pipeline("late.v2")) == "flights.late.v2"
    assert dag_id_of(trigger("nightly", pipeline="late.v2")) == "flights.late.v2.nightly"


def test_values_of_a_pipeline_that_no_parameter_takes_are_refused() -> None:
    with pytest.raises(ValueError, match="'sed'"):
        build(pipeline(params={"sed": 3}))
