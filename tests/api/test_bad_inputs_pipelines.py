"""Pipelines, runs and triggers that cannot be carried out: refused before anything is written, all faults at once."""

from __future__ import annotations

import time
from typing import Any

import pytest

from api.admission import is_name
from api.gen.michelangelo.api.v2 import pipeline_run_pb2
from api.kinds import kinds
from api.revisions import revision_name
from api.steps import MOST_STEPS
from api.workflows import typed
from tests.api.running import ANSWER_S, Served
from tests.api.workloads import ERROR, built, graph, pipeline, refused, run, step, trigger

CONTENT = "spec.manifest.content"
STEPS = f"{CONTENT}.steps"


@pytest.mark.parametrize(
    ("steps", "reason", "paths", "told"),
    [
        ([step("a", "b"), step("b", "a")], "CYCLE", [STEPS], "a -> b -> a"),
        ([step("a", "c"), step("b", "a"), step("c", "b")], "CYCLE", [STEPS], "a -> c -> b -> a"),
        ([step("a", "a")], "CYCLE", [f"{STEPS}[0].needs"], "needs itself"),
        ([step("a", **{"with": {"x": "${steps.b.outputs.y}"}}), step("b", "a")], "CYCLE", [STEPS], "a -> b -> a"),
        ([step("load"), step("fit", "laod")], "INVALID_FIELDS", [f"{STEPS}[1].needs"], "did you mean 'load'?"),
        (
            [step("a", **{"with": {"x": ["${steps.q.outputs.y}"]}})],
            "INVALID_FIELDS",
            [f"{STEPS}[0].with"],
            "'q', which is no step",
        ),
        ([step("a"), step("a")], "INVALID_FIELDS", [f"{STEPS}[1].name"], "of an earlier step too"),
        ([], "INVALID_FIELDS", [STEPS], "at least one step"),
        (None, "INVALID_FIELDS", [STEPS], "at least one step"),
        ("all of them", "INVALID_FIELDS", [STEPS], "at least one step"),
        ({"a": step("a")}, "INVALID_FIELDS", [STEPS], "at least one step"),
        (["a", 1], "INVALID_FIELDS", [f"{STEPS}[0]", f"{STEPS}[1]"], "must be an object"),
        ([step("a", retries=-1), step("b", retries=1_000)], "INVALID_FIELDS", None, "from 0 to 10"),
        ([step("a", retries=1.5), step("b", retries=True)], "INVALID_FIELDS", None, "from 0 to 10"),
        ([step("a", retries="3"), step("b", retries=None)], "INVALID_FIELDS", None, "from 0 to 10"),
        ([step([1]), step({})], "INVALID_FIELDS", [f"{STEPS}[0].name", f"{STEPS}[1].name"], "lower-case"),
        ([step(None), step("")], "INVALID_FIELDS", [f"{STEPS}[0].name", f"{STEPS}[1].name"], "lower-case"),
        ([step("Fit It"), step("x" * 251)], "INVALID_FIELDS", [f"{STEPS}[0].name", f"{STEPS}[1].name"], "lower-case"),
        ([step("a", {}), step("b", [1])], "INVALID_FIELDS", [f"{STEPS}[0].needs", f"{STEPS}[1].needs"], "a list"),
        ([{**step("a"), "needs": 5}, {**step("b"), "needs": "a"}], "INVALID_FIELDS", None, "a list of names"),
        ([{"name": "a"}, {"name": "b", "operator": [1]}], "INVALID_FIELDS", None, "names the operator"),
        ([step("a", **{"with": 5})], "INVALID_FIELDS", [f"{STEPS}[0].with"], "arguments by name"),
        ([step("a", wiht={})], "INVALID_FIELDS", [f"{STEPS}[0].wiht"], "did you mean 'with'?"),
    ],
)
def test_a_graph_that_cannot_be_built_is_refused(
    served: Served, project: str, steps: Any, reason: str, paths: list[str] | None, told: str
) -> None:
    refusal = refused(served, graph(project, steps))
    assert refusal.reason == reason
    assert told in refusal.message
    assert paths is None or refusal.paths == paths


def test_all_faults_of_a_graph_are_told_at_once(served: Served, project: str) -> None:
    steps = [step("a", "b"), step("b", "a"), step("A"), step("c", "nobody"), step("c", retries=99)]
    refusal = refused(served, graph(project, steps))
    assert refusal.reason == "INVALID_FIELDS"
    assert refusal.paths == [
        f"{STEPS}[2].name",
        f"{STEPS}[3].needs",
        f"{STEPS}[4].retries",
        f"{STEPS}[4].name",
        STEPS,
    ]
    assert [given for path, given in refusal.fields if path == STEPS] == ["form a circle: a -> b -> a"]


@pytest.mark.parametrize(
    "steps",
    [
        [{"name": f"s{n}", "operator": "train"} for n in range(MOST_STEPS + 1)],
        [{} for _ in range(100_000)],
    ],
    ids=["10,001 steps", "100,000 steps"],
)
def test_too_many_steps_are_counted_and_refused(served: Served, project: str, steps: Any) -> None:
    refusal = refused(served, graph(project, steps))
    assert (refusal.reason, refusal.paths) == ("TOO_MANY", [STEPS])
    assert str(len(steps)) in refusal.message


@pytest.mark.parametrize(
    "needs",
    [lambda n: [f"s{n + 1}"], lambda n: [f"nobody-{n}"], lambda n: [f"s{max(n - 1, 0)}"], lambda n: ["s0"]],
    ids=["one circle of all", "each needs a stranger", "a chain whose first needs itself", "all need the first"],
)
def test_a_large_graph_is_judged_in_time(served: Served, project: str, needs: Any) -> None:
    size = 5_000
    steps = [{"name": f"s{n % size}", "operator": "train", "needs": needs(n % size)} for n in range(size)]
    steps[-1]["needs"] = ["s0"]
    refused(served, graph(project, steps))


def test_a_long_chain_is_accepted_in_time(served: Served, project: str) -> None:
    steps = [step(f"s{n}", *([f"s{n - 1}"] if n else [])) for n in range(5_000)]
    began = time.monotonic()
    served.create(graph(project, steps), dryRun=["All"])
    assert time.monotonic() - began < 2 * ANSWER_S


def test_a_manifest_says_what_it_wants(served: Served, project: str) -> None:
    empty = refused(served, kinds()["Pipeline"].new(project, "empty"))
    assert empty.paths == ["spec.manifest.file_path"]
    other = pipeline(project)
    other.spec.manifest.content.Pack(typed("michelangelo.UniFlowConf", {}))
    assert refused(served, other).paths == [CONTENT]
    stranger = pipeline(project)
    stranger.spec.manifest.content.Pack(other.spec.commit)
    assert refused(served, stranger).paths == [CONTENT]


@pytest.mark.parametrize(
    ("given", "paths"),
    [
        ({}, ["rows", "rate", "label"]),
        ({"rows": 3, "rate": 0.5}, ["label"]),
        ({"rows": 0, "rate": 0, "label": ""}, ["rows", "rate", "label"]),
        ({"rows": 11, "rate": 1, "label": "x", "algorithm": "catboost"}, ["rows", "algorithm"]),
        ({"rows": "3", "rate": "a", "label": 7}, ["rows", "rate", "label"]),
        ({"rows": 2.5, "rate": True, "label": None}, ["rows", "rate", "label"]),
        ({"rows": [1], "rate": {}, "label": []}, ["rows", "rate", "label"]),
        ({"rows": 3, "rate": 1, "label": "x", "colour": "red", "ma": {}}, ["colour", "ma"]),
        ({"rows": 10**16, "rate": 1, "label": "x"}, ["rows"]),
    ],
)
def test_every_wrong_parameter_is_told_at_once(
    served: Served, project: str, given: dict[str, Any], paths: list[str]
) -> None:
    built(served, project)
    refusal = refused(served, run(project, kw_args=given))
    assert sorted(refusal.paths) == sorted(f"spec.input.kw_args.{path}" for path in paths)


def test_a_parameter_with_a_near_name_is_offered(served: Served, project: str) -> None:
    built(served, project)
    refusal = refused(served, run(project, kw_args={"rows": 1, "rate": 1, "lable": "x"}))
    assert "did you mean 'label'?" in refusal.message


def test_thousands_of_unknown_parameters_are_told_in_time(served: Served, project: str) -> None:
    built(served, project)
    refusal = refused(served, run(project, kw_args={f"unknown-{n}": n for n in range(20_000)}))
    assert refusal.fields[-1][0] == "*"


@pytest.mark.parametrize(
    ("given", "path"),
    [
        ({"kw_args": "rows=1"}, "spec.input.kw_args"),
        ({"kw_args": [1]}, "spec.input.kw_args"),
        ({"kw_args": None}, "spec.input.kw_args"),
        ({"kwargs": {"rows": 1}}, "spec.input.kwargs"),
        ({"rows": 1}, "spec.input.rows"),
    ],
)
def test_an_input_of_the_wrong_shape_is_refused_before_the_pipeline_is_built(
    served: Served, project: str, given: dict[str, Any], path: str
) -> None:
    served.create(pipeline(project))
    assert refused(served, run(project, **given)).paths == [path]


@pytest.mark.parametrize("value", ["{{ 7*7 }}", "$(id)", "%(x)s", "a\nb\r\n", "`id`", "größe \U0001f600", "' OR 1=1"])
def test_a_value_is_stored_as_it_was_written(served: Served, project: str, value: str) -> None:
    built(served, project)
    given = {"rows": 1, "rate": 0.1, "label": value, "note": value}
    served.create(run(project, kw_args=given))
    stored = served.get("PipelineRun", project, "run")
    found = stored.spec.input.fields["kw_args"].struct_value.fields
    assert (found["label"].string_value, found["note"].string_value) == (value, value)


def test_what_is_being_deleted_starts_nothing(served: Served, project: str) -> None:
    made = pipeline(project)
    made.metadata.finalizers.append("a.example/held")
    served.create(made)
    served.delete("Pipeline", project, "train")
    for new in (run(project), trigger(project)):
        refusal = refused(served, new, "FAILED_PRECONDITION")
        assert refusal.reason == "PIPELINE_DELETED"


def test_a_pipeline_in_error_starts_nothing_and_says_why(served: Served, project: str) -> None:
    built(served, project, ERROR)
    for new in (run(project), trigger(project)):
        refusal = refused(served, new, "FAILED_PRECONDITION")
        assert refusal.reason == "PIPELINE_ERROR"
        assert "no template" in refusal.message


@pytest.fixture
def begun(served: Served, project: str) -> Any:
    """A run of a built pipeline."""
    built(served, project)
    return served.create(run(project, kw_args={"rows": 1, "rate": 1, "label": "x"}))


def test_a_kill_twice_is_one_kill(served: Served, begun: Any) -> None:
    begun.spec.kill = True
    killed = served.update(begun)
    before = served.log()
    assert served.update(killed) == killed
    assert served.log() == before


def test_an_ended_run_cannot_be_killed(served: Served, begun: Any) -> None:
    begun.status.state = pipeline_run_pb2.PIPELINE_RUN_STATE_SUCCEEDED
    begun.status.end_time.GetCurrentTime()
    ended = served.run(served.resources.update_status(begun))
    ended.spec.kill = True
    refusal = served.refused(lambda: served.update(ended))
    assert (refusal.code, refusal.reason) == ("FAILED_PRECONDITION", "ALREADY_FINISHED")


def test_faults_of_every_kind_are_told_at_once(served: Served, project: str) -> None:
    new = run(project, kwargs={})
    new.metadata.name = "Bad Name"
    new.metadata.ownerReferences.add(kind="Pod", name="x", uid="y")
    new.spec.revision.name, new.spec.workspace_root_dir, new.spec.local_diff = "gone", "not a path", "diff"
    refusal = refused(served, new)
    assert refusal.reason == "INVALID_FIELDS"
    assert sorted(refusal.paths) == [
        "metadata.name",
        "metadata.ownerReferences[0].kind",
        "spec.input.kwargs",
        "spec.local_diff",
        "spec.pipeline",
        "spec.revision",
        "spec.workspace_root_dir",
    ]


def test_what_a_run_does_never_changes(served: Served, project: str, begun: Any) -> None:
    served.create(pipeline(project, "other"))
    begun.spec.pipeline.name = "other"
    begun.spec.input.update({"kw_args": {"rows": 2}})
    refusal = served.refused(lambda: served.update(begun))
    assert refusal.paths == ["spec.pipeline", "spec.input"]


@pytest.mark.parametrize("field", ["retry_info", "local_diff"])
def test_what_a_new_run_cannot_wish_is_refused(served: Served, project: str, field: str) -> None:
    built(served, project)
    new = run(project, kw_args={"rows": 1, "rate": 1, "label": "x"})
    if field == "local_diff":
        new.spec.local_diff = "diff"
    else:
        getattr(new.spec, field).SetInParent()
    assert f"spec.{field}" in refused(served, new).paths


@pytest.mark.parametrize("reference", ["größe", "ÄÖÜ", "٣٤٥", "//", "Feature/1", "deadbeef" * 5])
def test_a_commit_of_any_spelling_gives_a_name(reference: str) -> None:
    new = pipeline("shop")
    new.spec.commit.git_ref = reference
    assert is_name(revision_name(new))
