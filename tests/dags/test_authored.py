"""Graphs of pipelines written in Python as DAGs, run by Airflow with its database, mapping and XComs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from api.code_tar import code_path, pack
from api.config import Config
from operators.templates.project import build
from operators.values.references import Reference
from operators.values.store import values_at
from tests.dags.conftest import airflow_environ, written
from tests.dags.manifests import pipeline

PARAMS = {
    "type": "object",
    "properties": {
        "rate": {"type": "number", "default": 1.0, "description": "How much."},
        "names": {"type": "array", "items": {"type": "string"}, "default": ["a", "bb", "ccc"]},
        "rows": {"type": "integer", "minimum": 1},
    },
    "required": ["rows"],
}
CODE = """
import os

def pair(rate, rows):
    print("user code says hello")
    return [rate, rows, "AIRFLOW__CORE__DAGS_FOLDER" in os.environ, os.environ["MA_PIPELINE_RUN"]]

def rounds(name):
    return list(range(len(name)))

def twice(name, number):
    if name == "bb" and number == 1:
        raise RuntimeError("this instance fails")
    return f"{name}{number}"

def fine(name, number):
    return f"{name}{number}"

def count(values):
    return sum(len(each) for each in values)

def same(value):
    return value

def fails(rows):
    raise ValueError(f"cannot use {rows} rows")
"""


def step(name: str, task: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "task": f"flow:{task}", **more}


def graph(*steps: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"version": 1, "name": "flow", "params": PARAMS, "steps": list(steps), **more}


INNER = {"item": "inner.items"}
OUTER = {"item": "outer.items"}
MANY = {"compare": [">", {"param": "rows"}, {"const": 5}]}
LOOPS = [
    {"name": "outer.items", "over": {"param": "names"}},
    {"name": "inner.items", "over": {"step": "rounds"}, "within": "outer.items"},
]
GRAPHS = {
    "plain": graph(step("pair", "pair", inputs={"rate": {"param": "rate"}, "rows": {"param": "rows"}})),
    "nested": graph(
        step("rounds", "rounds", inputs={"name": OUTER}, foreach="outer.items"),
        step("each", "fine", inputs={"name": OUTER, "number": INNER}, foreach="inner.items"),
        step("again", "same", inputs={"value": {"step": "each"}}, foreach="inner.items"),
        step(
            "all",
            "count",
            inputs={"values": {"each": ["outer.items", {"each": ["inner.items", {"step": "again"}]}]}},
        ),
        loops=LOOPS,
    ),
    "branches": graph(
        step("many", "same", inputs={"value": {"const": "many"}}, when=[MANY]),
        step("few", "same", inputs={"value": {"const": "few"}}, when=[{"not": MANY}]),
        step("after", "same", inputs={"value": {"step": "many"}}),
        step("either", "same", inputs={"value": {"last": [{"step": "many"}, {"step": "few"}]}}),
    ),
    "empty": graph(
        step("each", "same", inputs={"value": {"item": "none.items"}}, foreach="none.items"),
        step("all", "count", inputs={"values": {"each": ["none.items", {"step": "each"}]}}),
        loops=[{"name": "none.items", "over": {"const": []}}],
    ),
    "fails": graph(
        step("fails", "fails", inputs={"rows": {"param": "rows"}}, retries=1),
        step("after", "same", inputs={"value": {"step": "fails"}}),
    ),
}


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """Every graph, run once with rows=3."""
    home = tmp_path_factory.mktemp("authored")
    (home / "mine").mkdir()
    (home / "mine" / "flow.py").write_text(CODE)
    packed = pack(home / "mine")
    tar = code_path(Config(home=home, projects_root=home).artifacts_path, "flights", packed.digest)
    tar.parent.mkdir(parents=True)
    tar.write_bytes(packed.data)
    manifests = [pipeline(name, template="python", graph=found, code=packed.digest) for name, found in GRAPHS.items()]
    files = written(home, *manifests)
    environ = airflow_environ(home, AIRFLOW__CORE__DAGS_FOLDER=str(files))
    migrate = [sys.executable, "-m", "airflow", "db", "migrate"]
    subprocess.run(migrate, env=environ, check=True, capture_output=True, timeout=180)
    asked = [{"dag_id": f"flights.{name}", "manual": True, "conf": {"rows": 3}} for name in GRAPHS]
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("run_dags.py")), str(files), json.dumps(asked)],
        env=environ,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert "\nENDED " in done.stdout, done.stdout[-8000:] + done.stderr[-8000:]
    return home, dict(zip(GRAPHS, json.loads(done.stdout.rpartition("\nENDED ")[2]), strict=True))


def states(run: dict[str, Any]) -> dict[str, str]:
    return {
        f"{task['task_id']}{[task['map_index']] if task['map_index'] >= 0 else ''}": task["state"]
        for task in run["tasks"]
        if not task["task_id"].endswith(".items")
    }


def value(home: Path, run: dict[str, Any], task_id: str) -> Any:
    """Return what a step returned: its XCom is a reference and nothing more."""
    (found,) = [x["value"] for x in run["xcoms"] if x["task_id"] == task_id and x["key"] == "return_value"]
    assert set(found) <= {"digest", "format", "index"}
    values = values_at(str(Config(home=home, projects_root=home).artifacts_path / "values"))
    return values.get(Reference.from_json(found))


def test_a_step_gets_its_parameters_as_their_schema_says_and_sees_no_key(ended: Any) -> None:
    home, runs = ended
    rate, rows, airflows_own, run = value(home, runs["plain"], "pair")
    assert (rate, type(rate), rows, airflows_own) == (1.0, float, 3, False)
    assert run.startswith("flights/")


def test_a_loop_within_a_loop_runs_every_instance_and_is_collected_in_order(ended: Any) -> None:
    home, runs = ended
    found = states(runs["nested"])
    assert [name for name in found if name.startswith("again")] == [f"again[{number}]" for number in range(6)]
    assert set(found.values()) == {"success"}
    assert value(home, runs["nested"], "all") == 6
    labels = [task["label"] for task in runs["nested"]["tasks"] if task["task_id"] == "again"]
    assert labels == ["[0][0]", "[1][0]", "[1][1]", "[2][0]", "[2][1]", "[2][2]"]


def test_a_branch_that_is_not_taken_is_skipped_and_what_needs_it_too(ended: Any) -> None:
    home, runs = ended
    assert states(runs["branches"]) == {
        "many": "skipped",
        "few": "success",
        "after": "skipped",
        "either": "success",
    }
    assert value(home, runs["branches"], "either") == "few"
    assert runs["branches"]["state"] == "success"


def test_a_loop_over_nothing_is_skipped_and_collected_as_nothing(ended: Any) -> None:
    home, runs = ended
    assert states(runs["empty"]) == {"each": "skipped", "all": "success"}
    assert value(home, runs["empty"], "all") == 0


def test_an_exception_of_the_users_code_is_tried_again_and_told(ended: Any) -> None:
    _, runs = ended
    assert states(runs["fails"]) == {"fails": "failed", "after": "upstream_failed"}
    assert [task["try_number"] for task in runs["fails"]["tasks"] if task["task_id"] == "fails"] == [2]
    (verdict,) = [x["value"] for x in runs["fails"]["xcoms"] if x["key"] == "verdict"]
    assert (verdict["kind"], verdict["message"]) == ("user", "ValueError: cannot use 3 rows")


def test_the_parameters_are_a_form_with_defaults_and_what_is_required() -> None:
    dag = build(pipeline("form", template="python", graph=GRAPHS["plain"], code="0" * 64))
    fields = {name: dag.params.get_param(name).dump() for name in ("rate", "names", "rows")}
    assert (fields["rate"]["value"], fields["rate"]["description"]) == (1.0, "How much.")
    assert fields["names"]["schema"]["items"] == {"type": "string"}
    assert fields["rows"]["value"] is None
    assert fields["rows"]["schema"] == {"type": "integer", "minimum": 1}


def test_what_the_author_wrote_is_what_airflows_pages_say() -> None:
    """The form has the order of the signature; the docstring describes the DAG; a task says where it is written."""
    source = {"file": "flow.py", "line": 7}
    pair = step("pair", "pair", inputs={"rate": {"param": "rate"}}, source=source, resources={"memory": "2Gi"})
    found = graph(pair, doc="Find the\nbest pair.\n\nrate: how much")
    dag = build(pipeline("told", template="python", graph=found, code="0" * 64))
    assert [name for name in dag.params if name != "ma"] == ["rate", "names", "rows"]
    assert dag.description == "Find the best pair."
    assert str(dag.doc_md).startswith("Find the best pair.\n\nPipeline **told** of project **flights**")
    assert dag.get_task("pair").doc_md == "Task `flow:pair`, flow.py line 7; engine local, memory 2Gi."
    said = build(pipeline("told", template="python", graph=found, code="0" * 64, description="The team's own."))
    assert said.description == "The team's own."


def test_a_loop_within_a_loop_is_listed_in_the_group_of_the_outer_one() -> None:
    loops = [
        {"name": "of.items", "over": {"param": "names"}},
        {"name": "of.each.items", "over": {"step": "of.rounds"}, "within": "of.items"},
        {"name": "last.items", "over": {"param": "names"}},
    ]
    item = {"item": "of.items"}
    found = graph(
        step("of.rounds", "rounds", inputs={"name": item}, foreach="of.items", group="of"),
        step("of.each", "same", inputs={"value": {"item": "of.each.items"}}, foreach="of.each.items", group="of"),
        step("last", "same", inputs={"value": {"item": "last.items"}}, foreach="last.items"),
        loops=loops,
    )
    dag = build(pipeline("grouped", template="python", graph=found, code="0" * 64))
    groups = dag.task_group.get_task_group_dict()
    assert set(groups["of"].children) == {"of.items", "of.rounds", "of.each.items", "of.each"}
    assert set(dag.task_group.children) == {"of", "last.items", "last"}


def test_sub_pipelines_are_task_groups() -> None:
    found = graph(
        step("clean.load", "same", inputs={"value": {"const": 1}}, group="clean"),
        step("clean.deep.fit", "same", inputs={"value": {"step": "clean.load"}}, group="clean.deep"),
    )
    dag = build(pipeline("groups", template="python", graph=found, code="0" * 64))
    groups = dag.task_group.get_task_group_dict()
    assert {group for group in groups if group} == {"clean", "clean__deep"}
    assert list(groups["clean__deep"].children) == ["clean.deep.fit"]
    assert dag.get_task("clean.load").downstream_task_ids == {"clean.deep.fit"}


@pytest.mark.parametrize(
    ("task", "wanted"),
    [
        ("rounds", ["outer.items", "rounds"]),
        ("outer.items", ["outer.items", "rounds"]),
        ("again", ["again", "inner.items"]),
        ("inner.items", ["again", "each", "inner.items"]),
        ("all", ["all"]),
    ],
)
def test_a_task_builds_itself_and_what_is_mapped_with_it(
    task: str, wanted: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("_AIRFLOW_PARSING_CONTEXT_TASK_ID", task)
    dag = build(pipeline("nested", template="python", graph=GRAPHS["nested"], code="0" * 64))
    assert sorted(dag.task_dict) == wanted
    monkeypatch.delenv("_AIRFLOW_PARSING_CONTEXT_TASK_ID")
    whole = build(pipeline("nested", template="python", graph=GRAPHS["nested"], code="0" * 64))
    assert type(dag.get_task(task)) is type(whole.get_task(task))
    assert mapped_over(dag.get_task(task)) == mapped_over(whole.get_task(task))


def mapped_over(task: Any) -> list[str]:
    return [each.task_id for each in task.iter_mapped_dependants()]
