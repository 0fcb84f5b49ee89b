"""List options that cannot be carried out: refused with the option's path, whatever the kind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from google.protobuf import any_pb2, duration_pb2, struct_pb2, timestamp_pb2
from google.protobuf import wrappers_pb2 as wrapped

from api.criteria import LONGEST_PATTERN, LONGEST_TEXT, MOST_CRITERIA, MOST_VALUES
from api.errors import Expired
from api.gen.michelangelo.api import list_pb2 as wire
from api.kinds import kinds
from api.listing import LONGEST_SELECTOR, MOST_ORDERS, MOST_REQUIREMENTS, MOST_SKIPPED
from api.resources import Resources
from api.store.base import LARGEST_PAGE, Query
from api.store.sqlite import SqliteStore
from tests.api.running import Refusal, Served

NUMBERED = [kind.name for kind in kinds().values() if kind.index("tier") or kind.index("state")]
OPERATION = "list_options_ext.operation"


def refusal_of(served: Served, kind: str = "Project", **fields: Any) -> Refusal:
    refusal = served.refused(lambda: served.list(kind, **fields))
    assert refusal.code in ("INVALID_ARGUMENT", "RESOURCE_EXHAUSTED")
    assert refusal.paths
    assert all(path in refusal.message for path in refusal.paths)
    return refusal


def criterion(field: str, operator: int, value: Any = None) -> wire.Criterion:
    made = wire.Criterion(field_name=field, operator=operator)  # type: ignore[arg-type]
    if value is not None:
        made.match_value.Pack(value)
    return made


def where(*criteria: wire.Criterion, **fields: Any) -> wire.ListOptionsExt:
    return wire.ListOptionsExt(operation=wire.CriterionOperation(criterion=criteria, **fields))


def many(count: int) -> struct_pb2.ListValue:
    values = struct_pb2.ListValue()
    values.extend(list(range(count)))
    return values


EQUAL, LESS, IN, LIKE, IS_NULL = 1, 5, 7, 9, 10
ONE = wrapped.Int64Value(value=1)
UNKNOWN_TYPE = any_pb2.Any(type_url="type.googleapis.com/a.B", value=b"x")
GARBAGE = any_pb2.Any(type_url="type.googleapis.com/google.protobuf.Int64Value", value=b"\xff")


@pytest.mark.parametrize(
    ("made", "path"),
    [
        (criterion("spec.nothing", EQUAL, ONE), "field_name"),
        (criterion("", EQUAL, ONE), "field_name"),
        (criterion("tier'; DROP TABLE object; --", EQUAL, ONE), "field_name"),
        (criterion("tier", 0, ONE), "operator"),
        (criterion("tier", 99, ONE), "operator"),
        (criterion("tier", -1, ONE), "operator"),
        (criterion("tier", EQUAL), "match_value"),
        (criterion("tier", EQUAL, many(0)), "match_value"),
        (criterion("tier", EQUAL, many(2)), "match_value"),
        (criterion("tier", LESS, wrapped.StringValue(value="abc")), "match_value"),
        (criterion("tier", EQUAL, wrapped.StringValue(value="9" * 5000)), "match_value"),
        (criterion("tier", EQUAL, wrapped.UInt64Value(value=2**64 - 1)), "match_value"),
        (criterion("tier", EQUAL, wrapped.DoubleValue(value=float("nan"))), "match_value"),
        (criterion("tier", LESS, wrapped.DoubleValue(value=float("inf"))), "match_value"),
        (criterion("tier", EQUAL, wrapped.BytesValue(value=b"1")), "match_value"),
        (criterion("tier", EQUAL, duration_pb2.Duration(seconds=1)), "match_value"),
        (criterion("tier", EQUAL, struct_pb2.Value()), "match_value"),
        (criterion("tier", EQUAL, struct_pb2.Struct()), "match_value"),
        (criterion("tier", LIKE, wrapped.StringValue(value="1%")), "match_value"),
        (criterion("metadata.name", LIKE, ONE), "match_value"),
        (criterion("metadata.name", EQUAL, ONE), "match_value"),
        (criterion("metadata.name", LIKE, wrapped.StringValue(value="%" * (LONGEST_PATTERN + 1))), "match_value"),
        (criterion("metadata.name", EQUAL, wrapped.StringValue(value="x" * (LONGEST_TEXT + 1))), "match_value"),
        (criterion("metadata.creation_timestamp", LESS, timestamp_pb2.Timestamp(seconds=2**62)), "match_value"),
        (criterion("tier", IN, many(MOST_VALUES + 1)), "match_value"),
    ],
)
def test_a_criterion_that_means_nothing_is_refused(served: Served, made: wire.Criterion, path: str) -> None:
    refusal = refusal_of(served, list_options_ext=where(made))
    assert (refusal.reason, refusal.paths) == ("BAD_FILTER", [f"{OPERATION}.criterion[0].{path}"])


@pytest.mark.parametrize("packed", [UNKNOWN_TYPE, GARBAGE], ids=["unknown type", "garbage"])
def test_a_match_value_that_cannot_be_read_is_refused(served: Served, packed: any_pb2.Any) -> None:
    made = wire.Criterion(field_name="tier", operator=wire.CRITERION_OPERATOR_EQUAL, match_value=packed)
    refusal = refusal_of(served, list_options_ext=where(made))
    assert refusal.reason in ("BAD_FILTER", "BAD_MESSAGE")
    assert refusal.paths == [f"{OPERATION}.criterion[0].match_value"]


@pytest.mark.parametrize("kind", NUMBERED)
def test_an_unknown_field_is_refused_with_those_there_are(served: Served, kind: str) -> None:
    refusal = refusal_of(served, kind, list_options_ext=where(criterion("spec.secret", EQUAL, ONE)))
    assert "metadata.creation_timestamp" in refusal.message
    assert all(index.key in refusal.message for index in kinds()[kind].indexes)


def test_a_state_that_does_not_exist_is_refused(served: Served) -> None:
    refusal = refusal_of(
        served, "PipelineRun", list_options_ext=where(criterion("state", EQUAL, wrapped.StringValue(value="DONE")))
    )
    assert "'DONE'" in refusal.message


def test_an_unknown_logical_operator_is_refused(served: Served) -> None:
    refusal = refusal_of(served, list_options_ext=where(criterion("tier", EQUAL, ONE), logical_operator=7))
    assert refusal.paths == [f"{OPERATION}.logical_operator"]


def test_operations_nested_too_deep_are_refused(served: Served) -> None:
    operation = wire.CriterionOperation(criterion=[criterion("tier", EQUAL, ONE)])
    for _ in range(25):
        operation = wire.CriterionOperation(sub_operations=[operation])
    extension = wire.ListOptionsExt(operation=operation)
    refusal = served.refused(lambda: served.list("Project", list_options_ext=extension))
    assert refusal.reason == "BAD_FILTER"
    assert "nested deeper" in refusal.message


@pytest.mark.parametrize("count", [MOST_CRITERIA + 1, 20_000])
def test_too_many_criteria_are_counted_and_refused(served: Served, count: int) -> None:
    refusal = refusal_of(served, list_options_ext=where(*[criterion("tier", EQUAL, ONE)] * count))
    assert (refusal.reason, refusal.paths) == ("BAD_FILTER", [OPERATION])
    assert str(count) in refusal.message


@pytest.mark.parametrize("any_of", [0, 1])
def test_as_many_criteria_as_are_allowed_are_carried_out(served: Served, any_of: int) -> None:
    made = where(*[criterion("tier", EQUAL, ONE)] * MOST_CRITERIA, logical_operator=any_of)
    assert not served.list("Project", list_options_ext=made).items
    served.list("Project", list_options_ext=where(criterion("tier", IN, many(MOST_VALUES))))
    longest = wrapped.StringValue(value="%a" * (LONGEST_PATTERN // 2))
    served.list("Project", list_options_ext=where(criterion("metadata.name", LIKE, longest)))


@pytest.mark.parametrize(
    ("order", "path"),
    [
        ([wire.OrderBy(field="spec.nothing")], "[0].field"),
        ([wire.OrderBy(field="tier"), wire.OrderBy(field="name)")], "[1].field"),
        ([wire.OrderBy(field="tier", dir=9)], "[0].dir"),  # type: ignore[arg-type]
        ([wire.OrderBy(field="tier")] * (MOST_ORDERS + 1), ""),
    ],
)
def test_an_order_that_means_nothing_is_refused(served: Served, order: list[wire.OrderBy], path: str) -> None:
    refusal = refusal_of(served, list_options_ext=wire.ListOptionsExt(order_by=order))
    assert (refusal.reason, refusal.paths) == ("BAD_FILTER", [f"list_options_ext.order_by{path}"])


@pytest.mark.parametrize(
    "path", ["nope", "spec.nope", "spec.tier.x", "metadata.ownerReferences.name", "metadata.labels.x", "", "spec."]
)
def test_only_fields_that_exist_can_be_left_out(served: Served, project: str, path: str) -> None:
    refusal = refusal_of(served, list_options_ext=wire.ListOptionsExt(returned_field_skip_list=["spec", path]))
    assert refusal.paths == ["list_options_ext.returned_field_skip_list[1]"]


def test_a_skip_list_is_limited(served: Served) -> None:
    refusal = refusal_of(
        served, list_options_ext=wire.ListOptionsExt(returned_field_skip_list=["spec"] * (MOST_SKIPPED + 1))
    )
    assert refusal.paths == ["list_options_ext.returned_field_skip_list"]


@pytest.mark.parametrize("field", ["labelSelector", "fieldSelector"])
@pytest.mark.parametrize(
    ("selector", "position"),
    [
        ("a=b c", 0),
        ("a=b,,c", 4),
        ("metadata.name=b,", 15),
        ("metadata.name='b'", 0),
        ("a in (b", 0),
        ("a in b", 0),
        ("a notin (b))", 0),
        ("metadata.name=b, ;drop", 16),
        ("=b", 0),
        ("a=>b", 0),
        ("(" * 60_000, 0),
        ("a in (" + "b," * 30_000, 0),
    ],
)
def test_a_selector_that_cannot_be_read_is_refused_with_the_place(
    served: Served, field: str, selector: str, position: int
) -> None:
    refusal = refusal_of(served, list_options={field: selector})
    assert (refusal.reason, refusal.paths) == ("BAD_FILTER", [f"list_options.{field}"])
    assert f"position {position}" in refusal.message


@pytest.mark.parametrize("selector", ["a=" + "b" * LONGEST_SELECTOR, " " * 2**20, "a," * 2**19])
def test_a_selector_that_is_too_large_is_refused(served: Served, selector: str) -> None:
    refusal = refusal_of(served, list_options={"labelSelector": selector})
    assert (refusal.code, refusal.reason) == ("RESOURCE_EXHAUSTED", "TOO_LARGE")


def test_too_many_requirements_are_refused(served: Served) -> None:
    selector = ",".join(f"a{number}=b" for number in range(MOST_REQUIREMENTS + 1))
    assert refusal_of(served, list_options={"labelSelector": selector}).reason == "BAD_FILTER"
    served.list("Project", list_options={"labelSelector": selector.rsplit(",", 1)[0]})


@pytest.mark.parametrize("selector", ["!metadata.name", "metadata.name", "spec.secret=x", "spec.tier=high"])
def test_a_field_selector_compares_indexed_fields_only(served: Served, selector: str) -> None:
    assert refusal_of(served, list_options={"fieldSelector": selector}).paths == ["list_options.fieldSelector"]


@pytest.mark.parametrize(
    "fields",
    [
        {"list_options": {"limit": -1}},
        {"list_options_ext": wire.ListOptionsExt(pagination=wire.PaginationSpec(limit=-1))},
        {"list_options_ext": wire.ListOptionsExt(pagination=wire.PaginationSpec(offset=-1))},
    ],
)
def test_a_negative_page_is_refused(served: Served, fields: dict[str, Any]) -> None:
    assert refusal_of(served, **fields).reason == "BAD_FILTER"


@pytest.mark.parametrize("limit", [0, 10**9])
def test_a_page_is_never_longer_than_1000(served: Served, project: str, limit: int) -> None:
    family = kinds()["ModelFamily"].new(project, "")
    for number in range(LARGEST_PAGE + 1 - len(served.list("ModelFamily", project).items)):
        family.metadata.name = f"m-{number:04}"
        served.run(served.resources.create(family))
    page = served.list("ModelFamily", project, list_options={"limit": limit})
    assert len(page.items) == LARGEST_PAGE
    rest = served.list("ModelFamily", project, list_options={"continue": getattr(page.metadata, "continue")})
    assert [item.metadata.name for item in rest.items] == ["m-1000"]
    far = wire.ListOptionsExt(pagination=wire.PaginationSpec(offset=2**31 - 1))
    assert not served.list("ModelFamily", project, list_options_ext=far).items


@pytest.fixture
def token(served: Served, project: str) -> str:
    """A token of the second page of this project's families."""
    for number in range(3):
        served.create(kinds()["ModelFamily"].new(project, f"m-{number}"))
    page = served.list("ModelFamily", project, list_options={"limit": 1})
    return str(getattr(page.metadata, "continue"))


@pytest.mark.parametrize("change", ["A", "é", "\U0001f600", "a" * 60_000])
def test_a_changed_token_is_refused(served: Served, project: str, token: str, change: str) -> None:
    inside = token[:5] + (change if token[5] != change else "B") + token[6:]
    for broken in (change, token + change, inside, token[:-8]):
        call = {"limit": 1, "continue": broken}
        refusal = served.refused(lambda call=call: served.list("ModelFamily", project, list_options=call))  # type: ignore[misc]
        assert (refusal.code, refusal.reason) == ("INVALID_ARGUMENT", "BAD_TOKEN")
        assert "list again" in refusal.message


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        ("Pipeline", {}),
        ("ModelFamily", {"list_options_ext": wire.ListOptionsExt(order_by=[wire.OrderBy(field="metadata.name")])}),
        ("ModelFamily", {"list_options_ext": where(criterion("model_family_name", IS_NULL))}),
    ],
)
def test_a_token_of_another_list_is_refused(
    served: Served, project: str, token: str, kind: str, fields: dict[str, Any]
) -> None:
    options = {"limit": 1, "continue": token}
    refusal = served.refused(lambda: served.list(kind, project, list_options=options, **fields))
    assert (refusal.code, refusal.reason) == ("INVALID_ARGUMENT", "BAD_TOKEN")


@pytest.mark.parametrize("options", [{"labelSelector": "a=b"}, {"fieldSelector": "metadata.name=m-0"}])
def test_a_token_with_another_selector_is_refused(
    served: Served, project: str, token: str, options: dict[str, str]
) -> None:
    refusal = served.refused(lambda: served.list("ModelFamily", project, list_options={"continue": token, **options}))
    assert refusal.reason == "BAD_TOKEN"
    elsewhere = served.refused(lambda: served.list("ModelFamily", "other", list_options={"continue": token}))
    assert elsewhere.reason == "BAD_TOKEN"


def test_a_token_expires_when_what_is_listed_changes(served: Served, project: str, token: str) -> None:
    served.create(kinds()["ModelFamily"].new(project, "later"))
    options = {"limit": 1, "continue": token}
    refusal = served.refused(lambda: served.list("ModelFamily", project, list_options=options))
    assert (refusal.code, refusal.reason) == ("OUT_OF_RANGE", "EXPIRED")
    assert "list again" in refusal.message


async def test_a_token_expires_when_the_changes_since_are_forgotten(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "store.db", window=3, window_s=0)
    resources = Resources(store)
    await resources.create(kinds()["Project"].new("shop", "shop"))
    for name in ("a", "b", "c"):
        await resources.create(kinds()["ModelFamily"].new("shop", name))
    page = await resources.list("ModelFamily", Query(limit=1))
    changed = await resources.get("ModelFamily", "shop", "a")
    changed.spec.description = "changed after the first page"
    await resources.update(changed)
    project = await resources.get("Project", "shop", "shop")
    while await resources.revision() < 1_000:
        project.spec.description = str(await resources.revision())
        project = await resources.update(project)
    with pytest.raises(Expired):
        await resources.list("ModelFamily", Query(limit=1, start=page.next))
    await store.close()
