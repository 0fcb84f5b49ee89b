"""Drafts: pipelines that are kept to be tried.  A run of one runs what the draft was when the run was made."""

from typing import Any

import pytest

from api.gen.michelangelo.api.v2 import pipeline_pb2
from api.kinds import kinds
from api.pipeline_dags import dag_of
from api.workflows import STEPS_TYPE, typed
from tests.api.running import Served


@pytest.fixture
def draft(served: Served, project: str) -> Any:
    made = kinds()["Draft"].new(project, "idea")
    made.spec.pipeline = "late"
    steps(made.spec.content, "a")
    return served.create(made)


def steps(spec: pipeline_pb2.PipelineSpec, *names: str) -> None:
    graph = {"steps": [{"name": name, "operator": "train"} for name in names]}
    spec.manifest.content.Pack(typed(STEPS_TYPE, graph), deterministic=True)


def run(project: str, name: str = "one") -> Any:
    made = kinds()["PipelineRun"].new(project, name)
    made.spec.draft.name = "idea"
    return made


def test_a_run_of_a_draft_keeps_what_the_draft_was(served: Served, project: str, draft: Any) -> None:
    first = served.create(run(project))
    assert first.spec.pipeline_spec == draft.spec.content
    steps(draft.spec.content, "a", "b")
    served.update(draft)
    again = served.run(served.resources.get("PipelineRun", project, "one"))
    assert again.spec.pipeline_spec == first.spec.pipeline_spec
    second = served.create(run(project, "two"))
    assert dag_of(second) != dag_of(first)
    # A client that knows nothing of the content may stop it.
    again.spec.kill = True
    again.spec.ClearField("pipeline_spec")
    assert served.update(again).spec.pipeline_spec == first.spec.pipeline_spec


def test_a_draft_that_cannot_be_built_is_refused(served: Served, project: str) -> None:
    made = kinds()["Draft"].new(project, "bad")
    steps(made.spec.content, "a", "a")
    refusal = served.refused(lambda: served.create(made))
    assert refusal.paths[0].startswith("spec.content.manifest.content")


def test_a_run_of_a_draft_names_nothing_else(served: Served, project: str, draft: Any) -> None:
    made = run(project)
    made.spec.revision.name = "gone"
    made.spec.pipeline_spec.description = "mine"
    refusal = served.refused(lambda: served.create(made))
    assert {"spec.revision", "spec.pipeline_spec"} <= set(refusal.paths)


def test_a_draft_that_is_not_there_is_told(served: Served, project: str) -> None:
    refusal = served.refused(lambda: served.create(run(project)))
    assert (refusal.reason, refusal.paths) == ("UNKNOWN_REFERENCE", ["spec.draft"])


def test_the_draft_of_a_run_never_changes(served: Served, project: str, draft: Any) -> None:
    made = served.create(run(project))
    made.spec.draft.name = "other"
    other = kinds()["Draft"].new(project, "other")
    steps(other.spec.content, "c")
    served.create(other)
    assert "spec.draft" in served.refused(lambda: served.update(made)).paths
