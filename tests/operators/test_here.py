"""A template's DAG in this process: the same operators and programs, repeated as often, told step by step."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk import DAG
from airflow.sdk.exceptions import ParamValidationError

import operators.jobs
from operators.authoring.local_run import FAILED, RETRYING, RUNNING, SUCCEEDED, UPSTREAM_FAILED
from operators.authoring.try_out import USAGE
from operators.templates import try_out
from operators.templates.digests import digest_of
from operators.templates.here import Asked, Ended, run_here
from tests.operators.conftest import PROGRAMS
from tests.operators.test_job import EchoOperator

RUN = "test-late"


@pytest.fixture
def run(home: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Ended]:
    """Runs a chain of two stages; the second gets what the first returned."""
    monkeypatch.setattr(operators.jobs, "__path__", [*operators.jobs.__path__, str(PROGRAMS)])
    ran = {"ran": str(home / "ran")}

    def go(conf: Any = None, retries: int = 0, **more: Any) -> Ended:
        def build() -> DAG:
            params = {"text": "{{ 7*7 }}\n$(id)", "ma": {"project": "flights", "pipeline": "late"}}
            with DAG("flights.late", schedule=None, params=params) as dag:
                text: Any = dag.param("text")
                first: Any = EchoOperator(task_id="first", text=text, more={**ran, **more}, retries=retries)
                EchoOperator(task_id="second", text=first.output["args"], more=ran)
            return dag

        return run_here(Asked(build, RUN, conf or {}))

    return go


def told(ended: Ended) -> list[tuple[str, str, int]]:
    return [(event.step, event.state, event.attempt) for event in ended.events]


def test_each_stage_runs_here_with_what_the_one_before_returned(run: Callable[..., Ended], home: Path) -> None:
    ended = run()
    assert told(ended) == [
        ("first", RUNNING, 1),
        ("first", SUCCEEDED, 1),
        ("second", RUNNING, 1),
        ("second", SUCCEEDED, 1),
    ]
    given = json.loads(ended.outputs["first"]["args"])
    assert given["text"] == "{{ 7*7 }}\n$(id)", "a value is no template"
    assert given["run"]["pipeline_run"] == RUN
    assert json.loads(ended.outputs["second"]["args"])["text"] == ended.outputs["first"]["args"]
    assert (home / "ran").read_text() == "ran\nran\n"
    assert not (home / "jobs").exists(), "no other process"


def test_a_parameter_of_the_run_is_used(run: Callable[..., Ended]) -> None:
    assert json.loads(run({"text": "other"}).outputs["first"]["args"])["text"] == "other"


def test_what_may_succeed_is_repeated_as_on_airflow_and_the_rest_does_not_run(run: Callable[..., Ended]) -> None:
    ended = run(retries=2, error="system")
    tried = [(RUNNING, 1), (RETRYING, 1), (RUNNING, 2), (RETRYING, 2), (RUNNING, 3), (FAILED, 3)]
    assert told(ended) == [*(("first", *each) for each in tried), ("second", UPSTREAM_FAILED, 0)]
    assert "the disk is full" in str(ended.error)


def test_what_the_user_has_to_mend_is_not_repeated(run: Callable[..., Ended]) -> None:
    ended = run(retries=2, error="user")
    assert told(ended) == [("first", RUNNING, 1), ("first", FAILED, 1), ("second", UPSTREAM_FAILED, 0)]
    assert [step["state"] for step in ended.steps()] == ["FAILED", "SKIPPED"]
    assert ended.steps()[0]["message"] == "column 'x' is not there"


def test_the_same_content_is_the_same_digest_wherever_it_lies(tmp_path: Path) -> None:
    for place, created in (("a", "today"), ("b", "tomorrow")):
        folder = tmp_path / place / "model"
        folder.mkdir(parents=True)
        (folder / "model.txt").write_text("tree")
        (folder / "manifest.json").write_text(json.dumps({"created": created, "files": {}}))

    def digest(place: str, run: str) -> str:
        folder = (tmp_path / place / "model").as_uri()
        return digest_of({"model_uri": folder, "report": f"{run}-evaluation", "rows": "3"}, {run: "RUN"})

    assert digest("a", "one") == digest("b", "two")
    (tmp_path / "b" / "model" / "model.txt").write_text("treE")
    assert digest("a", "one") != digest("b", "two")
    (tmp_path / "b" / "model" / "model.txt").write_text("tree")
    (tmp_path / "b" / "model" / "manifest.json").write_text(json.dumps({"created": "x", "files": {"a": 1}}))
    assert digest("a", "one") != digest("b", "two")


MANIFEST = {
    "kind": "Pipeline",
    "project": "flights",
    "name": "train",
    "revision": "test",
    "template": "train",
    "params": {"module": "flights"},
    "steps": [],
    "description": "",
    "owner": "",
    "type": "TRAIN",
    "tags": [],
    "root_dir": "",
    "max_active_runs": 1,
}


@pytest.mark.parametrize(
    ("change", "settings", "words"),
    [
        ({}, ["sampel_fraction=1"], "sampel_fraction"),
        ({}, ["sample_fraction=2"], "sample_fraction"),
        ({}, ["seed"], "NAME=VALUE"),
        ({}, ["ma={}"], "ma"),
        ({"template": "trian"}, [], "there is no template 'trian'"),
        ({"params": {"nonsense": 1}}, [], "nonsense"),
        ({"template": "steps", "steps": [{"name": "a", "operator": "nonsense"}]}, [], "there is no operator"),
    ],
)
def test_what_cannot_be_run_is_told_before_anything_runs(
    home: Path, capsys: Any, change: Any, settings: list[str], words: str
) -> None:
    assert try_out.main({**MANIFEST, **change}, RUN, settings) == USAGE
    said = capsys.readouterr().err
    assert words in said
    assert "Traceback" not in said


def test_a_wrong_value_of_the_run_is_no_failure_of_a_step(home: Path) -> None:
    from operators.templates.registry import template_dag

    with pytest.raises(ParamValidationError):
        run_here(Asked(lambda: template_dag("train"), RUN, {"seed": "many"}))
