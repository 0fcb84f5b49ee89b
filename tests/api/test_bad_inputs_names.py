"""Names, projects and references that cannot be: refused with the rule and a name that can."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from api.admission import is_name, suggestion
from api.kinds import kinds
from tests.api.running import Served

KINDS = sorted(kinds())
BAD_NAMES = {
    "empty": "",
    "254 characters": "x" * 254,
    "half a megabyte": "x" * 2**19,
    "upper case": "Upper",
    "underscore": "a_b",
    "begins with a dash": "-a",
    "ends with a dot": "a.",
    "two dots": "a..b",
    "only dots": "..",
    "path": "../../etc/passwd",
    "slash": "a/b",
    "space": "a b",
    "newline": "a\n",
    "emoji": "model-\U0001f600",
    "ligature": "ﬀ",
    "right to left": "\u202egnp.exe",
    "cyrillic a": "а",
    "percent": "%2e%2e",
    "template": "{{ 7*7 }}",
    "quote": "a'; DROP TABLE object; --",
}


@pytest.mark.parametrize("name", BAD_NAMES.values(), ids=BAD_NAMES.keys())
def test_a_bad_name_is_refused_with_the_rule_and_a_suggestion(served: Served, project: str, name: str) -> None:
    refusal = served.refused(lambda: served.create(kinds()["ModelFamily"].new(project, name)))
    assert (refusal.code, refusal.reason, refusal.paths) == ("INVALID_ARGUMENT", "BAD_NAME", ["metadata.name"])
    assert "use lower-case letters" in refusal.message
    suggested = re.search(r"for example '([^']*)'", refusal.message)
    assert suggested is not None
    assert is_name(suggested[1].removesuffix("…"))


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_refuses_a_bad_name(served: Served, project: str, kind: str) -> None:
    new = kinds()[kind].new(project, "Bad Name")
    refusal = served.refused(lambda: served.create(new))
    assert refusal.code == "INVALID_ARGUMENT"
    assert "metadata.name" in refusal.paths


@pytest.mark.parametrize("name", [name for name in BAD_NAMES.values() if name])
def test_a_bad_project_is_refused(served: Served, name: str) -> None:
    refusal = served.refused(lambda: served.create(kinds()["ModelFamily"].new(name, "good")))
    assert (refusal.reason, refusal.paths) == ("BAD_NAME", ["metadata.namespace"])
    refusal = served.refused(lambda: served.create(kinds()["Project"].new(name, name)))
    assert (refusal.reason, sorted(refusal.paths)) == ("BAD_NAME", ["metadata.name", "metadata.namespace"])


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=300))
@example("a-.-.b")
@example("-.-" * 100)
@example("x" * 252 + ".y")
@example("İ")
def test_every_suggestion_is_a_name(name: str) -> None:
    assert is_name(suggestion(name))


@pytest.mark.parametrize("name", ["a", "0", "a-b.c", "x" * 253, "a--b", "2026-11-21"])
def test_a_good_name_is_kept(served: Served, project: str, name: str) -> None:
    assert served.create(kinds()["ModelFamily"].new(project, name)).metadata.name == name


@pytest.mark.parametrize("name", ["default", "kube-system", "kube-public", "ma-system", "a.b"])
def test_a_reserved_project_is_refused(served: Served, name: str) -> None:
    refusal = served.refused(lambda: served.create(kinds()["Project"].new(name, name)))
    assert (refusal.reason, refusal.paths) == ("BAD_NAME", ["metadata.name"])


def test_a_project_lives_in_itself(served: Served, project: str) -> None:
    refusal = served.refused(lambda: served.create(kinds()["Project"].new(project, "other")))
    assert (refusal.reason, refusal.paths) == ("BAD_NAME", ["metadata.namespace"])
    assert "'other'" in refusal.message


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in ("Project", "Cluster")])
def test_an_object_needs_its_project(served: Served, kind: str) -> None:
    new = kinds()[kind].new("nobodys", "good")
    for oneof in new.spec.DESCRIPTOR.oneofs:
        made = getattr(new.spec, oneof.fields[0].name)
        if hasattr(made, "SetInParent"):
            made.SetInParent()
    refusal = served.refused(lambda: served.create(new))
    assert refusal.code in ("NOT_FOUND", "INVALID_ARGUMENT")
    assert refusal.reason in ("UNKNOWN_PROJECT", "INVALID_FIELDS")


def test_a_missing_project_is_told(served: Served) -> None:
    refusal = served.refused(lambda: served.create(kinds()["ModelFamily"].new("nobodys", "good")))
    assert (refusal.code, refusal.reason) == ("NOT_FOUND", "UNKNOWN_PROJECT")
    assert "create it first" in refusal.message


def test_a_cluster_belongs_to_the_platform(served: Served, project: str) -> None:
    refusal = served.refused(lambda: served.create(kinds()["Cluster"].new(project, "east")))
    assert "metadata.namespace" in refusal.paths


@pytest.mark.parametrize("beginning", ["A", "a_", "\U0001f600", "-", "..", "../x"])
def test_a_bad_beginning_of_a_name_is_refused(served: Served, project: str, beginning: str) -> None:
    new = kinds()["ModelFamily"].new(project)
    new.metadata.generateName = beginning
    refusal = served.refused(lambda: served.create(new))
    assert (refusal.code, refusal.reason) == ("INVALID_ARGUMENT", "BAD_NAME")
    assert refusal.paths == ["metadata.generateName"]


def test_generated_names_are_different_and_good(served: Served, project: str) -> None:
    new = kinds()["ModelFamily"].new(project)
    new.metadata.generateName = "family-"
    names = {served.create(new).metadata.name for _ in range(20)}
    assert len(names) == 20
    assert all(name.startswith("family-") and is_name(name) for name in names)


def test_a_name_that_is_taken_is_refused_with_the_uid(served: Served, project: str) -> None:
    first = served.create(kinds()["ModelFamily"].new(project, "taken"))
    for options in ({}, {"dryRun": ["All"]}):
        refusal = served.refused(
            lambda options=options: served.create(kinds()["ModelFamily"].new(project, "taken"), **options)  # type: ignore[misc]
        )
        assert (refusal.code, refusal.reason) == ("ALREADY_EXISTS", "ALREADY_EXISTS")
        assert first.metadata.uid in refusal.message


def reference(project: str, kind: str, path: str, name: str, namespace: str) -> Any:
    new = kinds()[kind].new(project, "referring")
    if kind == "TriggerRun":
        new.spec.trigger.cron_schedule.cron = "0 3 * * *"
    target = getattr(new.spec, path)
    target.name, target.namespace = name, namespace
    return new


@pytest.mark.parametrize("namespace", ["", "elsewhere"])
@pytest.mark.parametrize(
    ("kind", "path"),
    [
        ("PipelineRun", "pipeline"),
        ("TriggerRun", "pipeline"),
        ("Model", "model_family"),
        ("Model", "source_pipeline_run"),
        ("Model", "performance_evaluation_report"),
    ],
)
@pytest.mark.parametrize("name", ["gone", "Bad Name", "..", "x" * 10_000])
def test_a_reference_to_nothing_is_refused(
    served: Served, project: str, kind: str, path: str, name: str, namespace: str
) -> None:
    new = reference(project, kind, path, name, namespace)
    refusal = served.refused(lambda: served.create(new))
    assert (refusal.code, refusal.reason) == ("INVALID_ARGUMENT", "UNKNOWN_REFERENCE")
    assert refusal.paths == [f"spec.{path}"]
    assert repr(namespace or project) in refusal.message
