"""Search over real gRPC and a real store, compared with looking at every object."""

from __future__ import annotations

import random
import uuid
from typing import Any

import pytest
from google.protobuf.wrappers_pb2 import StringValue

from api import search
from api.gen.michelangelo.api import list_pb2
from api.gen.michelangelo.platform.v1 import resource_service_pb2 as wire
from api.kinds import kinds
from tests.api.running import Served
from tests.api.watching import SERVICE
from tests.api.workloads import pipeline


def find(served: Served, **fields: Any) -> wire.SearchResponse:
    return send(served, wire.SearchRequest(**fields))


def send(served: Served, request: wire.SearchRequest) -> wire.SearchResponse:
    call: Any = served.channel.unary_unary(SERVICE + "Search", None, wire.SearchResponse.FromString)
    answer: wire.SearchResponse = call(request.SerializeToString(), timeout=20)
    return answer


def names(answer: wire.SearchResponse) -> list[tuple[str, str]]:
    return [(hit.kind, hit.name) for hit in answer.hits]


def every_page(served: Served, **fields: Any) -> list[wire.SearchHit]:
    hits: list[wire.SearchHit] = []
    request = wire.SearchRequest(**fields)
    for _ in range(1000):
        answer = send(served, request)
        hits += answer.hits
        if not answer.next_page_token:
            return hits
        request.page_token = answer.next_page_token
    raise AssertionError("it never ends")


def equal(field: str, value: str) -> list_pb2.CriterionOperation:
    operation = list_pb2.CriterionOperation()
    criterion = operation.criterion.add(field_name=field, operator=list_pb2.CRITERION_OPERATOR_EQUAL)
    criterion.match_value.Pack(StringValue(value=value))
    return operation


def family(project: str, name: str, description: str = "", **labels: str) -> Any:
    new = kinds()["ModelFamily"].new(project, name)
    new.spec.description = description
    new.metadata.labels.update(labels)
    return new


def test_text_is_found_in_names_labels_and_descriptions_of_every_kind(served: Served, project: str) -> None:
    word = uuid.uuid4().hex[:10]
    served.create(family(project, f"f-{word}"))
    served.create(family(project, "by-description", f"What {word.upper()} is for"))
    served.create(family(project, "by-label-value", team=word))
    served.create(family(project, "not-this-one", "something else"))
    made = pipeline(project, f"p-{word}")
    made.spec.description = f"{word} again"
    served.create(made)
    answer = find(served, text=word)
    assert names(answer) == [
        ("ModelFamily", "by-description"),
        ("ModelFamily", "by-label-value"),
        ("ModelFamily", f"f-{word}"),
        ("Pipeline", f"p-{word}"),
    ]
    assert [[(match.field, match.snippet) for match in hit.matches] for hit in answer.hits] == [
        [("spec.description", f"What {word.upper()} is for")],
        [("metadata.labels[team]", f"team={word}")],
        [("metadata.name", f"f-{word}")],
        [("metadata.name", f"p-{word}"), ("spec.description", f"{word} again")],
    ]
    assert not answer.next_page_token
    stored = served.get("Pipeline", project, f"p-{word}").metadata
    assert (answer.hits[3].uid, answer.hits[3].resource_version) == (stored.uid, stored.resourceVersion)
    assert answer.hits[3].namespace == project


def test_a_snippet_shows_what_stands_around_and_no_more(served: Served, project: str) -> None:
    served.create(family(project, "long", "a" * 5000 + " needle, " + "b" * 5000))
    (hit,) = find(served, text="NEEDLE", namespaces=[project]).hits
    (match,) = hit.matches
    assert match.snippet == "…" + "a" * 39 + " needle, " + "b" * 38 + "…"


def test_a_text_is_no_pattern(served: Served, project: str) -> None:
    served.create(family(project, "one", "cost (EUR) 100%_x"))
    assert names(find(served, text="(EUR) 100%_", namespaces=[project])) == [("ModelFamily", "one")]
    assert names(find(served, text=".*", namespaces=[project])) == []


def test_conditions_on_fields_search_the_kinds_that_have_them(served: Served, project: str) -> None:
    for name in ("a", "b"):
        new = family(project, name)
        new.spec.name = name
        served.create(new)
    assert names(find(served, operation=equal("spec.name", "b"), namespaces=[project])) == [("ModelFamily", "b")]
    fields = {"operation": equal("metadata.name", "a"), "namespaces": [project]}
    assert names(find(served, **fields)) == [("ModelFamily", "a")]


def test_labels_projects_and_kinds_narrow_a_search(served: Served, project: str) -> None:
    other = served.project()
    for where in (project, other):
        served.create(family(where, "one", stage="live"))
        served.create(family(where, "two", stage="test"))
        served.create(pipeline(where, "one"))
    assert names(find(served, namespaces=[other], label_selector="stage=live")) == [("ModelFamily", "one")]
    assert names(find(served, namespaces=[other], kinds=["Pipeline"])) == [("Pipeline", "one")]
    both = find(served, namespaces=[project, other], kinds=["ModelFamily"], text="two").hits
    assert [hit.namespace for hit in both] == sorted([project, other])


@pytest.mark.parametrize("limit", [1, 3, 7, 500])
def test_all_pages_together_are_what_every_object_shows(
    served: Served, monkeypatch: pytest.MonkeyPatch, limit: int
) -> None:
    monkeypatch.setattr(search, "CHUNK", 4)
    monkeypatch.setattr(search, "SCANNED", 11)
    rng = random.Random(limit)
    projects = sorted(served.project() for _ in range(3))
    expected = []
    for number in range(40):
        where, kind = rng.choice(projects), rng.choice(["ModelFamily", "Pipeline"])
        new = family(where, f"n{number}") if kind == "ModelFamily" else pipeline(where, f"n{number}")
        new.spec.description = rng.choice(["Needle here", "nothing"])
        served.create(new)
        if new.spec.description != "nothing":
            expected.append((kind, where, f"n{number}"))
    hits = every_page(served, text="needle", namespaces=projects, limit=limit)
    assert [(hit.kind, hit.namespace, hit.name) for hit in hits] == sorted(expected)


def test_what_is_made_between_pages_moves_no_page(served: Served, project: str) -> None:
    for name in "bdf":
        served.create(family(project, name))
    first = find(served, namespaces=[project], kinds=["ModelFamily"], limit=2)
    served.create(family(project, "a"))
    served.create(family(project, "e"))
    served.delete("ModelFamily", project, "b")
    second = find(served, namespaces=[project], kinds=["ModelFamily"], limit=2, page_token=first.next_page_token)
    assert [hit.name for hit in (*first.hits, *second.hits)] == ["b", "d", "e", "f"]


def test_an_answer_looks_at_so_many_objects_and_no_more(
    served: Served, project: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search, "SCANNED", 5)
    for number in range(8):
        served.create(family(project, f"f{number}"))
    answer = find(served, namespaces=[project], text="nowhere to be found")
    assert (len(answer.hits), answer.scanned) == (0, 5)
    assert answer.next_page_token


@pytest.mark.parametrize(
    ("fields", "reason", "paths"),
    [
        ({"limit": -1}, "BAD_FILTER", ["limit"]),
        ({"text": "x" * 257}, "BAD_FILTER", ["text"]),
        ({"text": "a\0"}, "BAD_TEXT", ["text"]),
        ({"kinds": ["Pipelin"]}, "UNKNOWN_KIND", ["kinds[0]"]),
        ({"label_selector": "=="}, "BAD_FILTER", ["label_selector"]),
        ({"operation": equal("spec.nothing", "x")}, "BAD_FILTER", ["operation.criterion[0].field_name"]),
        ({"page_token": "x"}, "BAD_TOKEN", []),
    ],
)
def test_what_cannot_be_searched_is_refused_with_its_field(
    served: Served, fields: Any, reason: str, paths: list[str]
) -> None:
    refusal = served.refused(lambda: find(served, **fields))
    assert (refusal.code, refusal.reason, refusal.paths) == ("INVALID_ARGUMENT", reason, paths)


def test_a_token_belongs_to_its_search(served: Served, project: str) -> None:
    for name in "abc":
        served.create(family(project, name))
    token = find(served, namespaces=[project], text="", limit=1).next_page_token
    assert find(served, namespaces=[project], page_token=token, limit=2).hits
    for changed in ({"page_token": token[:-2] + "AA"}, {"page_token": token, "text": "a"}):
        refusal = served.refused(lambda changed=changed: find(served, namespaces=[project], **changed))  # type: ignore[misc]
        assert refusal.reason == "BAD_TOKEN"
