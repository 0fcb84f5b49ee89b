"""An explicit graph of steps: values as they were written, references to what earlier steps returned, no circle."""

import time
from typing import Any

import pytest

from operators.templates.project import build
from tests.dags.manifests import pipeline, step
from tests.operators.airflow_here import Run

NASTY = "{{ 7*7 }} $(id) {% x %}\n$HOME"


def graph(*steps: dict[str, Any]) -> Any:
    return build(pipeline("graph", template="steps", steps=list(steps)))


def args(steps: list[dict[str, Any]], task_id: str, xcoms: dict[tuple[str, str], Any] | None = None) -> Any:
    """Return what a step's program would be given."""
    task, context = Run(lambda: graph(*steps), xcoms=xcoms or {}).task(task_id)
    return task.job(context).args


def test_a_step_gets_its_values_as_they_were_written() -> None:
    deep = {"a": [NASTY, {"b": NASTY}], "n": 3, "x": None, NASTY: True}
    train = {
        "name": "fit",
        "operator": "train",
        "with": {
            "dataset_uri": NASTY,
            "label_column": "late",
            "algorithm": "lightgbm",
            "hyperparameters": deep,
            "seed": 3,
        },
    }
    given = args([train], "fit")
    assert given["dataset_uri"] == NASTY
    assert given["hyperparameters"] == deep
    assert given["seed"] == 3


def test_a_reference_is_what_the_step_returned_and_nothing_more() -> None:
    steps = [
        step("data-1.x", "materialize_features"),
        step("reg", "register_model", "data-1.x", model_uri="${steps.data-1.x.outputs.features_uri}"),
    ]
    given = args(steps, "reg", {("data-1.x", "features_uri"): NASTY})
    assert given["model_uri"] == NASTY
    assert given["report"] == "given report"


def test_references_deep_in_a_value_are_found() -> None:
    first = step("one", "materialize_features")
    fit = {
        "name": "fit",
        "operator": "train",
        "with": {
            "dataset_uri": "x",
            "label_column": "y",
            "algorithm": "z",
            "seed": 1,
            "hyperparameters": {"from": ["${steps.one.outputs.rows}", "{{ 1 }}"]},
        },
    }
    given = args([fit, first], "fit", {("one", "rows"): "12"})
    assert given["hyperparameters"] == {"from": ["12", "{{ 1 }}"]}
    assert graph(fit, first).get_task("fit").upstream_task_ids == {"one"}


def test_text_that_only_looks_like_a_reference_stays_text() -> None:
    for text in ("see ${steps.one.outputs.x}", "${steps.one.outputs.x} ", "${steps.one}", "$${steps.one.outputs.x}"):
        given = args([step("one"), step("two", "register_model", "one", report=text)], "two")
        assert given["report"] == text


def test_steps_may_be_written_in_any_order() -> None:
    last = step("last", "register_model", "left", "right")
    dag = graph(last, step("right", "register_model", "first"), step("left", "register_model", "first"), step("first"))
    assert dag.get_task("last").upstream_task_ids == {"left", "right"}
    assert dag.get_task("first").downstream_task_ids == {"left", "right"}


def test_a_reference_is_a_need_though_it_is_not_said() -> None:
    dag = graph(step("two", model_uri="${steps.one.outputs.features_uri}"), step("one", "materialize_features"))
    assert dag.get_task("two").upstream_task_ids == {"one"}


def test_a_circle_is_refused_and_shown() -> None:
    with pytest.raises(ValueError, match=r"circle.*(one -> three|three -> two|two -> one)"):
        graph(
            step("one", "register_model", "two"),
            step("two", "register_model", "three"),
            step("three", "register_model", "one"),
        )
    with pytest.raises(ValueError, match="circle"):
        graph(step("one", model_uri="${steps.one.outputs.x}"))


def test_a_step_that_does_not_exist_is_named() -> None:
    with pytest.raises(ValueError, match="'two' needs 'onw', which is no step"):
        graph(step("one"), step("two", "register_model", "onw"))
    with pytest.raises(ValueError, match="'two' needs 'onw', which is no step"):
        graph(step("one"), step("two", report="${steps.onw.outputs.x}"))


def test_an_operator_that_does_not_exist_is_named() -> None:
    with pytest.raises(ValueError, match="no operator 'job'"):
        graph({"name": "one", "operator": "job"})


@pytest.mark.parametrize("bad", [{"modul": "x"}, {"engine": "local", "task_id": "y"}, {"on_failure_callback": "x"}])
def test_an_argument_that_the_operator_does_not_take_is_named(bad: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"step 'one'.*{sorted(bad)[-1]!r}"):
        graph(step("one", "materialize_features", **bad))


def test_an_argument_that_is_missing_is_named() -> None:
    with pytest.raises(ValueError, match=r"step 'one'.*'feature_service'"):
        graph({"name": "one", "operator": "materialize_features", "with": {"module": "m"}})


def test_a_step_is_tried_as_often_as_it_says() -> None:
    dag = graph({**step("one"), "retries": 0}, {**step("two"), "retries": 7}, step("three"))
    assert [dag.get_task(name).retries for name in ("one", "two", "three")] == [0, 7, 2]


def test_a_long_chain_is_built_in_a_moment() -> None:
    steps = [step(f"s{n}", "materialize_features", *([f"s{n - 1}"] if n else [])) for n in range(1000)]
    began = time.monotonic()
    dag = graph(*reversed(steps))
    assert len(dag.tasks) == 1000
    assert time.monotonic() - began < 10
