"""Events: published once for each key, taken to each subscription once, with what they told."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from api.client import Client
from api.errors import AlreadyExists, FailedPrecondition, InvalidArgument, NotFound, ResourceExhausted
from api.subscriptions.values import DEPTH, EVENT, PAYLOAD, event_name
from api.workflows import plain
from tests.api.event_world import EventWorld, condition

SHORT, LONG = 1_000, 10_000


@pytest.fixture
def world(tmp_path: Path) -> Iterator[EventWorld]:
    made = EventWorld(tmp_path)
    yield made
    made.close()


def parameters(run: Any) -> Any:
    return plain(run.spec.input.fields["kw_args"].struct_value)


def test_an_event_begins_a_run_with_what_it_told(world: EventWorld) -> None:
    world.subscription(
        "on-load",
        "orders.loaded",
        parameters={"day": {"path": "data.day"}, "rows": {"value": 10}, "all": {"path": "data"}},
    )
    told = world.publish("orders.loaded", {"day": "2026-11-21", "files": ["a", "b"]}, key="21")
    assert not told.duplicate
    (run,) = world.until_runs(1)
    assert run.spec.pipeline.name == "train"
    assert run.spec.actor.name == "subscription/on-load"
    data = {"day": "2026-11-21", "files": ["a", "b"]}
    assert parameters(run) == {"day": "2026-11-21", "rows": 10, "all": data}
    stored = world.api.get("Event", world.project, told.event)
    assert told.event == event_name("orders.loaded", stored.spec.source, "21") == run.metadata.annotations[EVENT]
    assert json.loads(run.metadata.annotations[PAYLOAD]) == data
    assert run.metadata.annotations[DEPTH] == "1"
    status = world.until_told("on-load", lambda status: status.runs).status
    assert (status.last_run.name, status.last_event, status.refused) == (run.metadata.name, told.event, 0)


@pytest.mark.parametrize("duplicates", [SHORT, pytest.param(LONG, marks=pytest.mark.robustness)])
def test_any_number_of_publishes_of_one_key_begins_one_run(world: EventWorld, duplicates: int) -> None:
    world.subscription("once", "orders.loaded")

    def publish(_: int) -> list[bool]:
        with Client(world.served.address) as api:
            return [
                api.publish("orders.loaded", {"n": 1}, namespace=world.project, key="one").duplicate
                for _ in range(duplicates // 8)
            ]

    with ThreadPoolExecutor(8) as pool:
        answers = [answer for part in pool.map(publish, range(8)) for answer in part]
    assert len(answers) == duplicates
    assert answers.count(False) == 1
    world.quiet()
    assert len(world.runs()) == 1
    assert len(world.api.list("Event", world.project, equal={"event_name": "orders.loaded"})) == 1


def test_a_key_with_other_content_is_refused_and_without_one_each_is_new(world: EventWorld) -> None:
    world.publish("orders.loaded", {"n": 1}, key="one")
    with pytest.raises(AlreadyExists, match="give each event a key of its own") as refused:
        world.publish("orders.loaded", {"n": 2}, key="one")
    assert refused.value.reason == "KEY_REUSED"
    assert world.publish("orders.loaded", {"n": 2}, key="one", source="elsewhere").duplicate is False
    assert len({world.publish("orders.loaded", {"n": 1}).event for _ in range(3)}) == 3


@pytest.mark.parametrize(
    ("name", "data", "more", "reason", "fields"),
    [
        ("", None, {}, "INVALID_FIELDS", ["name"]),
        ("orders loaded", None, {}, "INVALID_FIELDS", ["name"]),
        ("ma.run.succeeded", None, {}, "RESERVED_NAME", ["name"]),
        ("orders.loaded", None, {"ttl_s": 31 * 86400}, "BAD_TTL", ["ttl"]),
        ("orders.loaded", None, {"key": "k" * 501}, "TOO_LONG", ["key"]),
        ("orders.loaded", None, {"cause": "nobodys-run"}, "UNKNOWN_REFERENCE", ["cause"]),
        ("orders.loaded", None, {"attributes": {"Not-Lower": "x"}}, "INVALID_FIELDS", ["attributes[Not-Lower]"]),
    ],
)
def test_what_cannot_be_published_says_which_field(
    world: EventWorld, name: str, data: Any, more: dict[str, Any], reason: str, fields: list[str]
) -> None:
    with pytest.raises(InvalidArgument) as refused:
        world.publish(name, data, **more)
    assert refused.value.reason == reason
    assert [violation.field for violation in refused.value.violations] == fields


def test_a_payload_is_small_and_flat(world: EventWorld) -> None:
    world.publish("orders.loaded", "x" * (48 * 1024 - 2))
    with pytest.raises(ResourceExhausted, match="at most 49152 are kept: store it and publish where it lies") as large:
        world.publish("orders.loaded", "x" * (48 * 1024 - 1))
    assert large.value.reason == "TOO_LARGE"
    deep: Any = "end"
    for _ in range(20):
        deep = {"in": deep}
    with pytest.raises(InvalidArgument, match="nested deeper than 20 levels"):
        world.publish("orders.loaded", deep)


def test_an_unknown_project_is_unknown(world: EventWorld) -> None:
    with pytest.raises(NotFound):
        world.api.publish("orders.loaded", namespace="nowhere")


@pytest.mark.parametrize(
    ("conditions", "wanted"),
    [
        ([condition("data.rows", "GREATER_THAN", 10)], {"many"}),
        ([condition("data.rows", "LESS_THAN_OR_EQUAL_TO", 10)], {"few"}),
        ([condition("data.country", "IN", "NL", "DE")], {"many"}),
        ([condition("data.country", "NOT_IN", "DE")], {"few", "none"}),
        ([condition("data.country", "EXISTS")], {"many", "few"}),
        ([condition("data.country", "ABSENT")], {"none"}),
        ([condition("data.tags", "CONTAINS", "full")], {"many"}),
        ([condition("data.tags.0", "EQUAL", "part")], {"few"}),
        ([condition("data.path", "PREFIX", "s3://")], {"many"}),
        ([condition("subject", "NOT_EQUAL", "few")], {"many", "none"}),
        ([condition("data.rows", "EQUAL", True)], set()),
        ([condition("data.rows", "GREATER_THAN", "1")], set()),
        ([condition("data.rows", "GREATER_THAN", 1), condition("data.rows", "LESS_THAN", 10)], {"few"}),
    ],
)
def test_conditions_choose_events(world: EventWorld, conditions: list[Any], wanted: set[str]) -> None:
    world.subscription("some", {"name": "orders.*", "conditions": conditions})
    told = {
        "many": {"rows": 100, "country": "DE", "tags": ["full"], "path": "s3://b/k"},
        "few": {"rows": 2, "country": "FR", "tags": ["part"], "path": "/tmp/k"},
        "none": {"rows": None},
    }
    names = {world.publish("orders.loaded", data, subject=subject).event: subject for subject, data in told.items()}
    world.publish("shipments.loaded", told["many"])
    world.quiet()
    assert {names[run.metadata.annotations[EVENT]] for run in world.runs()} == wanted


def test_a_subscription_hears_what_comes_while_it_is_there_and_not_paused(world: EventWorld) -> None:
    world.publish("orders.loaded", key="before")
    world.subscription("late", "orders.loaded")
    first = world.publish("orders.loaded", key="heard").event
    world.until_runs(1)
    world.pause("late", paused=True)
    world.publish("orders.loaded", key="passes by")
    world.quiet()
    world.pause("late", paused=False)
    last = world.publish("orders.loaded", key="heard again").event
    world.until_runs(2)
    world.quiet()
    assert [run.metadata.annotations[EVENT] for run in world.runs()] == [first, last]


def test_a_run_that_cannot_be_is_refused_once_and_told(world: EventWorld) -> None:
    world.subscription("strict", "orders.loaded", parameters={"day": {"path": "data.day"}})
    world.subscription("mild", "orders.loaded", parameters={"day": {"path": "data.day", "default": "today"}})
    event = world.publish("orders.loaded", {"night": 1}).event
    (run,) = world.until_runs(1)
    assert parameters(run) == {"day": "today"}
    status = world.until_told("strict", lambda status: status.refused).status
    assert (status.runs, status.last_event) == (0, event)
    assert status.message == "parameter day comes from data.day, which event orders.loaded lacks"
    world.api.delete("Pipeline", world.project, "train")
    world.publish("orders.loaded", {"day": "x"})
    gone = world.until_told("strict", lambda status: status.refused == 2).status
    assert "Pipeline 'train'" in gone.message


def test_a_broker_that_begins_anew_takes_nothing_twice_and_forgets_nothing(world: EventWorld) -> None:
    world.subscription("steady", "orders.loaded")
    for life in range(5):
        world.publish("orders.loaded", key=f"{life}-led")
        world.until_runs(2 * life + 1)
        world.end()
        world.publish("orders.loaded", key=f"{life}-leaderless")
        world.begin()
        world.until_runs(2 * life + 2)
    world.quiet()
    assert len(world.runs()) == 10
    assert world.until_told("steady", lambda status: status.runs == 10).status.refused == 0


def test_a_chain_of_runs_ends_at_its_tenth(world: EventWorld) -> None:
    world.subscription("again", "ping")
    world.publish("ping", key="0")
    depth = 0
    for depth in range(1, 11):
        run = world.until_runs(depth)[-1]
        assert run.metadata.annotations[DEPTH] == str(depth)
        cause = f"{world.project}/{run.metadata.name}"
        if depth < 10:
            world.publish("ping", key=str(depth), cause=cause)
    with pytest.raises(FailedPrecondition, match="a chain ends at 10") as refused:
        world.publish("ping", key=str(depth), cause=cause)
    assert refused.value.reason == "TRIGGER_CYCLE"
    world.quiet()
    assert len(world.runs()) == 10
