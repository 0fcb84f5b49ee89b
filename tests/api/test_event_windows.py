"""Sets of events: which complete one, in any order and across crashes, with each event in one set alone."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from api.gen.michelangelo.platform.v1 import event_pb2, subscription_pb2
from api.messages.free import fill
from api.subscriptions.matching import MOST_WAITING, run_name, take
from api.subscriptions.values import EVENT, PAYLOAD
from api.workflows import plain
from tests.api.event_world import EventWorld, subscription

HOUR_NS = 3600 * 10**9


@pytest.fixture
def world(tmp_path: Path) -> Iterator[EventWorld]:
    made = EventWorld(tmp_path)
    yield made
    made.close()


def event(name: str, number: int, at_ns: int = 0, **data: Any) -> Any:
    """Return an event that came at a time."""
    made = event_pb2.Event()
    made.metadata.name = f"{name}-{number}"
    created = made.metadata.creationTimestamp
    created.seconds, created.nanos = divmod(at_ns, 10**9)
    made.spec.name = name
    fill(made.spec.data, data)
    return made


def pair(**spec: Any) -> Any:
    return subscription("p", "both", "a", "b", **{"within": "3600s", **spec}).spec


def taken(spec: Any, events: list[Any]) -> list[tuple[str, ...]]:
    """Return the sets that are completed by events, one after the other."""
    status = subscription_pb2.SubscriptionStatus()
    return [names for each in events if (names := take(spec, status, each))]


def test_all_that_are_waited_for_complete_a_set_in_any_order() -> None:
    assert taken(pair(), [event("a", 1), event("b", 1)]) == [("a-1", "b-1")]
    assert taken(pair(), [event("b", 1), event("c", 1), event("a", 1)]) == [("a-1", "b-1")]


def test_each_event_is_in_one_set_alone_and_the_oldest_goes_first() -> None:
    came = [event("a", 1), event("a", 2), event("b", 1), event("b", 2), event("b", 3)]
    assert taken(pair(), came) == [("a-1", "b-1"), ("a-2", "b-2")]


def test_what_came_longer_ago_than_the_time_waits_no_more() -> None:
    late = [event("a", 1), event("a", 2, HOUR_NS // 2), event("b", 1, HOUR_NS + 1)]
    assert taken(pair(), late) == [("a-2", "b-1")]
    assert taken(pair(), [event("a", 1), event("b", 1, HOUR_NS)]) == [("a-1", "b-1")]


def test_a_field_that_must_be_the_same_keeps_sets_apart() -> None:
    spec = pair(correlate="data.day")
    came = [event("a", 1, day="mo"), event("b", 1, day="tu"), event("b", 2), event("a", 2, day="tu")]
    assert taken(spec, came) == [("a-2", "b-1")]


def test_no_more_wait_than_are_kept() -> None:
    status = subscription_pb2.SubscriptionStatus()
    for number in range(MOST_WAITING + 5):
        assert take(pair(), status, event("a", number)) == ()
    assert len(status.waiting) == MOST_WAITING
    assert status.waiting[0].event == "a-5"


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.sampled_from("abx"), st.integers(0, 40)), max_size=30))
def test_sets_hold_each_event_once_one_of_each_within_the_time(came: list[tuple[str, int]]) -> None:
    at = 0
    events = []
    for number, (name, minutes) in enumerate(came):
        at += minutes * HOUR_NS // 60
        events.append(event(name, number, at))
    times = {each.metadata.name: at_ns(each) for each in events}
    sets = taken(pair(), events)
    used = [name for names in sets for name in names]
    assert len(used) == len(set(used))
    for first, second in sets:
        assert (first[0], second[0]) == ("a", "b")
        assert abs(times[first] - times[second]) <= HOUR_NS
    assert sets == taken(pair(), events), "the same again"
    # What is left would not have made another set at the end.
    last = max((time for time in times.values()), default=0)
    left = {name[0] for name, time in times.items() if name not in used and time >= last - HOUR_NS and name[0] in "ab"}
    assert left != {"a", "b"}


def at_ns(each: Any) -> int:
    return int(each.metadata.creationTimestamp.seconds * 10**9 + each.metadata.creationTimestamp.nanos)


def test_the_name_of_a_run_is_of_the_subscription_and_its_events() -> None:
    one, other = (subscription("p", "both", "a", "b", within="60s") for _ in range(2))
    one.metadata.uid, other.metadata.uid = "1", "2"
    names = {run_name(each, events) for each in (one, other) for events in (("a", "b"), ("a", "c"), ("a",))}
    assert len(names) == 6
    assert run_name(one, ("a", "b")) == run_name(one, ("a", "b"))


def test_a_set_begins_a_run_with_the_payloads_of_all(world: EventWorld) -> None:
    world.subscription(
        "both",
        {"name": "orders.loaded", "alias": "orders"},
        "prices.loaded",
        within="3600s",
        parameters={
            "rows": {"path": "data.rows", "event": "orders"},
            "day": {"path": "data.day", "event": "prices.loaded"},
        },
    )
    first = world.publish("orders.loaded", {"rows": 3})
    waits = world.until_told("both", lambda status: status.waiting).status.waiting
    assert [(one.position, one.event) for one in waits] == [(0, first.event)]
    second = world.publish("prices.loaded", {"day": "mo"})
    (run,) = world.until_runs(1)
    assert plain(run.spec.input.fields["kw_args"].struct_value) == {"rows": 3, "day": "mo"}
    assert run.metadata.annotations[EVENT] == f"{first.event},{second.event}"
    assert json.loads(run.metadata.annotations[PAYLOAD]) == {"orders": {"rows": 3}, "prices.loaded": {"day": "mo"}}
    assert not world.until_told("both", lambda status: status.runs).status.waiting


def test_sets_are_the_same_when_the_broker_begins_anew_between_any_two_events(world: EventWorld) -> None:
    world.subscription("both", "a", "b", within="3600s")
    for number in range(6):
        for name in ("a", "b"):
            world.publish(name, key=str(number))
            world.end()
            world.begin()
    world.until_runs(6)
    world.quiet()
    used = [name for run in world.runs() for name in run.metadata.annotations[EVENT].split(",")]
    assert len(used) == len(set(used)) == 12
