"""What each stage asks of its program: a pure function of the context, every value as it was given."""

import inspect
import json
from collections.abc import Mapping
from typing import Any

import pytest

from operators.engines.base import JobSpec
from operators.job import JobOperator, job_id
from operators.provider import STAGES
from operators.templates.project import build
from operators.templates.steps import operator_class
from tests.operators.airflow_here import Run

NASTY = "{{ 7*7 }} $(id) `id` ${HOME} {% raw %}\n\r\tline two\u2028é\x7f'\"\\ ../.. .sql"
DATA = {"module": NASTY, "feature_service": NASTY}
UNTIL = {"features_until": "2013-09-30T00:00:00+00:00"}
SPLIT = {"label": NASTY, "train_until": "2013-09-30", "validate_until": None, "sample_fraction": 0.1}
MODEL = {"algorithm": "lightgbm", "hyperparameters": {NASTY: [NASTY, 1, 0.5, None, {"{{ x }}": True}]}, "seed": 0}
GATE = {"baseline_columns": [NASTY, "{{ ds }}"], "minimum_auc": 0.25}
CONF = {
    **DATA,
    **UNTIL,
    **SPLIT,
    **MODEL,
    **GATE,
    "model_name": NASTY,
    "engine": "local",
    "deployment": NASTY,
    "model": NASTY,
}

# What earlier stages returned; a program may return whatever text it likes.
RETURNED = {
    "materialize_features": {"feature_service": NASTY},
    "prepare_dataset": {"dataset_uri": "file:///{{ dataset }}"},
    "train": {"model_uri": "file:///{{ model }}"},
    "evaluate": {"report": "report-{{ 1 }}"},
    "register_model": {"model": "model-1"},
}
DATASET, TRAINED = "file:///{{ dataset }}", "file:///{{ model }}"

ARGS: Mapping[str, Mapping[str, Any]] = {
    "materialize_features": {**DATA, **UNTIL},
    "prepare_dataset": {**DATA, **SPLIT},
    "train": {"dataset_uri": DATASET, "label": NASTY, **MODEL},
    "evaluate": {"dataset_uri": DATASET, "model_uri": TRAINED, "label": NASTY, **GATE},
    "register_model": {
        "dataset_uri": DATASET,
        "model_uri": TRAINED,
        "report": "report-{{ 1 }}",
        "model_name": NASTY,
    },
    "batch_predict": {**DATA, "model": NASTY, "model_name": NASTY},
}


def manifest(template: str, **more: Any) -> dict[str, Any]:
    return {
        "kind": "Pipeline",
        "project": "flights",
        "name": "late",
        "uid": "u",
        "revision": "pipeline-late-1",
        "template": template,
        "params": {},
        "steps": [],
        "description": "",
        "owner": "",
        "type": "TRAIN",
        "tags": [],
        "root_dir": "/srv/{{ flights }}",
        "max_active_runs": 16,
        **more,
    }


def run_of(stage: str, conf: Mapping[str, Any] = CONF, **more: Any) -> Run:
    template = "batch_predict" if stage == "batch_predict" else "train_and_deploy"
    xcoms = {(task, key): value for task, outputs in RETURNED.items() for key, value in outputs.items()}
    return Run(lambda: build(manifest(template, **more)), conf=conf, xcoms=xcoms)


@pytest.mark.parametrize("stage", ARGS)
def test_a_stage_hands_its_program_the_documented_arguments_unchanged(stage: str) -> None:
    task, context = run_of(stage).task(stage)
    spec = task.job(context)
    assert isinstance(spec, JobSpec)
    assert spec.program == stage
    assert {name: value for name, value in spec.args.items() if name != "run"} == ARGS[stage]
    assert json.loads(json.dumps(dict(spec.args))) == spec.args


@pytest.mark.parametrize("stage", ARGS)
def test_a_stage_says_the_same_job_twice_and_touches_nothing(stage: str) -> None:
    run = run_of(stage)
    task, context = run.task(stage)
    pushed = dict(run.xcoms)
    first, second = task.job(context), task.job(context)
    assert first == second
    assert run.xcoms == pushed
    assert task.outputs.__func__ is JobOperator.outputs


@pytest.mark.parametrize("stage", ARGS)
def test_values_of_a_pipeline_reach_the_program_unchanged_too(stage: str) -> None:
    known = {"engine", *ARGS[stage]} - {"dataset_uri", "model_uri", "report"}
    values = {name: CONF[name] for name in known}
    task, context = run_of(stage, conf={}, params=values).task(stage)
    assert {name: value for name, value in task.job(context).args.items() if name != "run"} == ARGS[stage]


def test_every_stage_but_the_rollout_is_a_job() -> None:
    assert set(ARGS) == set(STAGES) - {"deploy_model"}
    assert all(issubclass(operator_class(stage), JobOperator) for stage in ARGS)


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_keeps_the_house_rules_of_an_operator(stage: str) -> None:
    operator = operator_class(stage)
    own = [p for p in inspect.signature(operator).parameters.values() if p.kind is not p.VAR_KEYWORD]
    assert all(parameter.kind is parameter.KEYWORD_ONLY for parameter in own)
    assert len(own) <= 8
    assert set(operator.template_fields) == {parameter.name for parameter in own}
    assert not operator.template_ext


def test_a_program_learns_for_which_run_it_works() -> None:
    owner = {"owner_uid": "1234", "pipeline_run": "late-1", "namespace": "flights"}
    task, context = run_of("train", conf={**CONF, "ma": owner}).task("train")
    assert task.job(context).args["run"] == {
        "project": "flights",
        "pipeline": "late",
        "pipeline_run": "late-1",
        "uid": "1234",
        "dag_id": "flights.late",
        "run_id": "ma__u__1",
        "root_dir": "/srv/{{ flights }}",
    }


def test_a_run_that_nobody_owns_has_an_identity_all_the_same() -> None:
    task, context = run_of("train").task("train")
    told = task.job(context).args["run"]
    adopted = "airflow-20260101-000000-406ffe7c"
    assert (told["uid"], told["pipeline_run"]) == ("flights.late/ma__u__1", adopted)
    assert told["root_dir"] == "/srv/{{ flights }}"


def test_names_with_dots_are_told_apart() -> None:
    task, context = run_of("train", project="my.flights", name="late.v2").task("train")
    told = task.job(context).args["run"]
    assert (told["dag_id"], told["project"], told["pipeline"]) == ("my.flights.late.v2", "my.flights", "late.v2")


def test_a_runs_own_values_cannot_change_where_the_code_lies() -> None:
    conf = {**CONF, "ma": {"owner_uid": "1", "root_dir": "/tmp/evil"}}
    task, context = run_of("train", conf=conf).task("train")
    assert task.job(context).args["run"]["root_dir"] == "/srv/{{ flights }}"


def test_a_jobs_name_is_of_run_task_and_place_but_not_of_the_try() -> None:
    def name(run_id: str = "r", task: str = "train", tried: int = 1, place: int = -1, dag: str = "late") -> str:
        run = Run(lambda: build(manifest("train_and_deploy", name=dag)), run_id=run_id, conf=CONF)
        run.xcoms.update(run_of("train").xcoms)
        return job_id(run.task(task, try_number=tried, map_index=place)[1])

    assert name() == name(tried=2) == name(tried=7)
    others = [name(run_id="s"), name(task="evaluate"), name(place=0), name(place=1), name(dag="early")]
    assert len({name(), *others}) == 6
    assert name().startswith("train-")


def test_a_jobs_name_is_a_file_name_however_long_the_tasks_name_is() -> None:
    ti = type("Ti", (), {"dag_id": "d" * 250, "run_id": "../" * 80, "task_id": "t" * 250, "map_index": -1})
    name = job_id({"ti": ti})
    assert len(f".{name}.lock.123456") < 200
    assert "/" not in name
