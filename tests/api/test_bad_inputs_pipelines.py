"""Pipelines, runs and triggers that cannot be carried out: refused before anything is written, all faults at once."""

from __future__ import annotations

import time
from typing import Any

import pytest

from api.admission import is_name
from api.controllers.pipeline import revision_name
from api.gen.michelangelo.api.v2 import pipeline_pb2, pipeline_run_pb2, trigger_run_pb2
from api.kinds import kinds
from api.schedules import LONGEST_INTERVAL_S, MOST_ENTRIES
from api.steps import MOST_STEPS
from api.workflows import STEPS_TYPE, WORKFLOW_TYPE, spec_hash, typed
from tests.api.running import ANSWER_S, Refusal, Served

CONTENT = "spec.manifest.content"
STEPS = f"{CONTENT}.steps"
MAP = "spec.manifest.trigger_map"
SCHEMAS = {
    "rows": {"type": "integer", "minimum": 1, "maximum": 10},
    "rate": {"type": "number", "exclusiveMinimum": 0},
    "algorithm": {"type": "string", "enum": ["lightgbm", "xgboost"], "default": "lightgbm"},
    "label": {"type": "string", "minLength": 1},
    "note": {"type": "string", "default": ""},
}
READY, ERROR = pipeline_pb2.PIPELINE_STATE_READY, pipeline_pb2.PIPELINE_STATE_ERROR


def graph(project: str, steps: Any) -> Any:
    new = kinds()["Pipeline"].new(project, "graph")
    new.spec.manifest.content.Pack(typed(STEPS_TYPE, {"steps": steps}))
    return new


def step(name: Any, *needs: Any, **more: Any) -> dict[str, Any]:
    return {"name": name, "operator": "train", "needs": list(needs), **more}


def pipeline(project: str, name: str = "train") -> Any:
    new = kinds()["Pipeline"].new(project, name)
    new.spec.manifest.file_path = "train"
    return new


def run(project: str, **given: Any) -> Any:
    new = kinds()["PipelineRun"].new(project, "run")
    new.spec.pipeline.name = "train"
    new.spec.input.update(given)
    return new


def trigger(project: str, cron: str = "0 3 * * *") -> Any:
    new = kinds()["TriggerRun"].new(project, "nightly")
    new.spec.pipeline.name = "train"
    new.spec.trigger.cron_schedule.cron = cron
    return new


def built(served: Served, project: str, state: Any = READY) -> Any:
    """Create a pipeline as its controller leaves it."""
    made = served.create(pipeline(project))
    made.status.state, made.status.build_id, made.status.error_message = state, spec_hash(made.spec), "no template"
    made.status.registered_workflow.Pack(typed(WORKFLOW_TYPE, {"params_schema": SCHEMAS, "params": {}}))
    return served.run(served.resources.update_status(made))


def refused(served: Served, new: Any, code: str = "INVALID_ARGUMENT") -> Refusal:
    refusal = served.refused(lambda: served.create(new))
    assert refusal.code == code, refusal
    return refusal


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


@pytest.mark.parametrize(
    ("cron", "reason", "told"),
    [
        ("0 0 * * * *", "BAD_CRON", "five fields"),
        ("* * * *", "BAD_CRON", "has 4"),
        ("", "BAD_CRON", "has 0"),
        ("61 * * * *", "BAD_CRON", "bad minute: '61'"),
        ("* 24 * * *", "BAD_CRON", "bad hour"),
        ("* * 0 * *", "BAD_CRON", "bad day of month"),
        ("* * * 13 *", "BAD_CRON", "bad month"),
        ("* * * * 8", "BAD_CRON", "bad day of week"),
        ("*/0 * * * *", "BAD_CRON", "bad minute"),
        ("-5 * * * *", "BAD_CRON", "bad minute"),
        ("٣ * * * *", "BAD_CRON", "bad minute"),
        ("{{1}} * * * *", "BAD_CRON", "bad minute"),
        ("@reboot", "BAD_CRON", "five fields"),
        ("@daily", "BAD_CRON", "five fields"),
        ("9" * 200 + " * * * *", "BAD_CRON", "bad minute"),
        ("9" * 5_000 + " * * * *", "BAD_CRON", "longer than 256"),
        ("1," * 100_000 + "1 * * * *", "BAD_CRON", "longer than 256"),
        ("0 0 30 2 *", "NEVER_FIRES", "never fires"),
        ("0 0 31 4,6,9,11 *", "NEVER_FIRES", "never fires"),
    ],
)
def test_a_schedule_that_cannot_work_is_refused(
    served: Served, project: str, cron: str, reason: str, told: str
) -> None:
    new = pipeline(project, "scheduled")
    new.spec.manifest.trigger_map["nightly"].cron_schedule.cron = cron
    refusal = refused(served, new)
    assert (refusal.reason, refusal.paths) == (reason, [f"{MAP}[nightly].cron_schedule.cron"])
    assert told in refusal.message
    served.create(pipeline(project))
    refusal = refused(served, trigger(project, cron))
    assert (refusal.reason, refusal.paths) == (reason, ["spec.trigger.cron_schedule.cron"])


@pytest.mark.parametrize("seconds", [0, 59, -1, LONGEST_INTERVAL_S + 1, 2**62, -(2**62)])
def test_an_interval_that_cannot_be_kept_is_refused(served: Served, project: str, seconds: int) -> None:
    served.create(pipeline(project))
    new = trigger(project)
    new.spec.trigger.interval_schedule.interval.seconds = seconds
    assert refused(served, new).paths == ["spec.trigger.interval_schedule.interval"]


@pytest.mark.parametrize("nanos", [-1, 10**9])
def test_an_interval_with_impossible_nanoseconds_is_refused(served: Served, project: str, nanos: int) -> None:
    served.create(pipeline(project))
    new = trigger(project)
    new.spec.trigger.interval_schedule.interval.seconds = 60
    new.spec.trigger.interval_schedule.interval.nanos = nanos
    assert refused(served, new).paths == ["spec.trigger.interval_schedule.interval"]


def test_more_runs_at_one_instant_than_can_be_mapped_are_refused(served: Served, project: str) -> None:
    served.create(pipeline(project))
    new = trigger(project)
    for number in range(MOST_ENTRIES + 1):
        new.spec.trigger.parameters_map[f"entry-{number}"].SetInParent()
    refusal = refused(served, new)
    assert (refusal.reason, refusal.paths) == ("TOO_MANY", ["spec.trigger.parameters_map"])
    assert str(MOST_ENTRIES + 1) in refusal.message


def test_all_faults_of_triggers_are_told_at_once(served: Served, project: str) -> None:
    new = pipeline(project)
    new.spec.manifest.trigger_map["a"].cron_schedule.cron = "61 * * * *"
    new.spec.manifest.trigger_map["a"].max_concurrency = -1
    new.spec.manifest.trigger_map["b"].interval_schedule.interval.seconds = 1
    new.spec.manifest.trigger_map["c"].SetInParent()
    refusal = refused(served, new)
    assert sorted(refusal.paths) == [
        f"{MAP}[a].cron_schedule.cron",
        f"{MAP}[a].max_concurrency",
        f"{MAP}[b].interval_schedule.interval",
        f"{MAP}[c].trigger_type",
    ]


def test_a_trigger_names_what_it_starts_and_when(served: Served, project: str) -> None:
    served.create(pipeline(project))
    new = kinds()["TriggerRun"].new(project, "nightly")
    assert sorted(refused(served, new).paths) == ["spec.pipeline.name", "spec.trigger"]
    new.spec.pipeline.name, new.spec.source_trigger_name = "train", "weekly"
    assert refused(served, new).paths == ["spec.source_trigger_name"]


@pytest.mark.parametrize(("start", "end"), [(1, 2), (2, 1), (0, 2**33), (1, None)])
def test_a_backfill_is_refused_by_name(served: Served, project: str, start: int, end: int | None) -> None:
    served.create(pipeline(project))
    new = trigger(project)
    new.spec.start_timestamp.seconds = start
    if end is not None:
        new.spec.end_timestamp.seconds = end
    refusal = refused(served, new)
    assert refusal.paths == ["spec.start_timestamp"]
    assert "backfill" in refusal.message


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


@pytest.mark.parametrize("field", ["draft", "resume", "pipeline_spec", "retry_info", "local_diff"])
def test_what_this_release_does_not_do_is_refused(served: Served, project: str, field: str) -> None:
    built(served, project)
    new = run(project, kw_args={"rows": 1, "rate": 1, "label": "x"})
    if field == "local_diff":
        new.spec.local_diff = "diff"
    else:
        getattr(new.spec, field).SetInParent()
    assert f"spec.{field}" in refused(served, new).paths


@pytest.mark.parametrize("action", ["PAUSE", "RESUME", "KILL"])
def test_an_action_twice_is_one_action_and_an_ended_trigger_takes_none(
    served: Served, project: str, action: str
) -> None:
    served.create(pipeline(project))
    made = served.create(trigger(project))
    made.spec.action = trigger_run_pb2.TriggerRunAction.Value(f"TRIGGER_RUN_ACTION_{action}")
    acted = served.update(made)
    before = served.log()
    assert served.update(acted) == acted
    assert served.log() == before
    acted.status.state = trigger_run_pb2.TRIGGER_RUN_STATE_KILLED
    ended = served.run(served.resources.update_status(acted))
    ended.spec.action = trigger_run_pb2.TRIGGER_RUN_ACTION_NO_ACTION
    refusal = served.refused(lambda: served.update(ended))
    assert refusal.reason == "ALREADY_FINISHED"


def test_names_leave_room_for_what_is_made_of_them(served: Served, project: str) -> None:
    long = served.refused(lambda: served.create(kinds()["Project"].new("x" * 64, "x" * 64)))
    assert (long.reason, long.paths) == ("BAD_NAME", ["metadata.name"])
    assert refused(served, pipeline(project, "x" * 151)).paths == ["metadata.name"]
    assert refused(served, pipeline(project, "a.b")).paths == ["metadata.name"]
    served.create(pipeline(project, "x" * 150))
    new = trigger(project)
    new.spec.pipeline.name, new.metadata.name = "x" * 150, "y" * 70
    assert refused(served, new).paths == ["metadata.name"]


@pytest.mark.parametrize("reference", ["größe", "ÄÖÜ", "٣٤٥", "//", "Feature/1", "deadbeef" * 5])
def test_a_commit_of_any_spelling_gives_a_name(reference: str) -> None:
    new = pipeline("shop")
    new.spec.commit.git_ref = reference
    assert is_name(revision_name(new))
