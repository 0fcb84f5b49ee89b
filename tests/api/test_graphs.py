"""Graphs of Python-authored pipelines, and what a task may ask for: bad inputs 43, 44, 45, 51, 52 and 53."""

import copy
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.demands import cores, demand_faults, memory_bytes, seconds_of
from api.errors import FieldViolation
from api.graphs import MOST_INSTANCES, MOST_STEPS, graph_faults

QUICK_S = 20.0


def step(name: str, *needs: str, **settings: Any) -> dict[str, Any]:
    return {
        "name": name,
        "task": "m:f",
        "inputs": {f"x{i}": {"step": need} for i, need in enumerate(needs)},
        **settings,
    }


def graph(*steps: Any, **settings: Any) -> dict[str, Any]:
    return {"version": 1, "name": "p", "params": {}, "steps": list(steps), **settings}


def loop(over: Any, name: str = "each", within: str = "") -> dict[str, Any]:
    return {"name": name, "over": over, "within": within}


def only(given: Any) -> FieldViolation:
    found = graph_faults(given, "spec.graph")
    assert len(found) == 1, found
    return found[0]


def test_a_graph_with_everything_in_it_has_no_fault() -> None:
    whole = graph(
        step("a", resources={"cpu": 0.5, "gpu": 1, "memory": "1.5Gi"}, retries=3, timeout_s=60, engine="ray"),
        step("b", foreach="inner", group="g"),
        step("d", inputs={"all": {"each": ["outer", {"each": ["inner", {"step": "b"}]}]}}),
        step("c", when=[{"not": {"compare": [">", {"get": [{"step": "a"}, "auc"]}, {"const": 0.9}]}}]),
        loops=[loop({"step": "a"}, "outer"), loop({"matrix": {"x": {"item": "outer"}}}, "inner", "outer")],
        params={"type": "object", "properties": {"n": {"type": "integer"}}},
        result={"last": [{"step": "c"}, {"dict": {"n": {"param": "n"}, "l": {"list": []}}}]},
    )
    assert graph_faults(whole) == []


def test_a_circle_is_told_with_its_path() -> None:
    found = only(graph(step("a", "c"), step("b", "a"), step("c", "b")))
    assert found.reason == "CYCLE"
    assert found.field == "spec.graph.steps"
    assert found.description == "form a circle: a -> c -> b -> a"


def test_a_circle_through_a_loop_and_a_condition_is_found() -> None:
    assert only(graph(step("a", foreach="each"), loops=[loop({"step": "a"})])).reason == "CYCLE"
    assert only(graph(step("a", needs=["b"]), step("b", when=[{"step": "a"}]))).reason == "CYCLE"


def test_loops_within_each_other_are_a_circle() -> None:
    found = only(graph(step("a"), loops=[loop({"const": []}, "x", "y"), loop({"const": []}, "y", "x")]))
    assert found.reason == "CYCLE"


def test_a_step_that_needs_itself_is_refused() -> None:
    found = only(graph(step("a", "a")))
    assert (found.reason, found.field) == ("CYCLE", "spec.graph.steps[0].inputs.x0")
    assert "a -> a" in found.description


def test_an_unknown_step_is_refused_with_the_nearest() -> None:
    found = only(graph(step("train"), step("report", "trian")))
    assert found.reason == "UNKNOWN_STEP"
    assert "did you mean 'train'?" in found.description


def test_a_step_named_twice_is_refused() -> None:
    found = only(graph(step("a"), step("a")))
    assert (found.reason, found.field) == ("DUPLICATE_STEP", "spec.graph.steps[1].name")


@pytest.mark.parametrize("steps", [[], None, "a", {}])
def test_no_step_is_refused(steps: Any) -> None:
    assert only({**graph(), "steps": steps}).reason == "NO_STEPS"


def test_the_most_steps_are_taken_and_one_more_is_not() -> None:
    begun = time.monotonic()
    chain = [step(f"s{n}", *([f"s{n - 1}"] if n else [])) for n in range(MOST_STEPS)]
    assert graph_faults(graph(*chain)) == []
    found = only(graph(*chain, step("more")))
    assert (found.reason, found.field) == ("TOO_MANY", "spec.graph.steps")
    assert time.monotonic() - begun < QUICK_S


def test_a_product_of_a_billion_is_refused_without_expanding_it() -> None:
    begun = time.monotonic()
    axis = {"const": list(range(1000))}
    found = only(graph(step("a", foreach="each"), loops=[loop({"matrix": {"x": axis, "y": axis, "z": axis}})]))
    assert found.reason == "TOO_MANY"
    assert "1000000000 instances" in found.description
    assert time.monotonic() - begun < QUICK_S


def test_loops_within_loops_are_multiplied() -> None:
    hundred = {"const": list(range(101))}
    nested = [loop(hundred, "x"), loop(hundred, "y", "x")]
    assert only(graph(step("a", foreach="y"), loops=nested)).reason == "TOO_MANY"
    exact = {"const": list(range(MOST_INSTANCES))}
    assert graph_faults(graph(step("a", foreach="x"), loops=[loop(exact, "x")])) == []


OUTSIDE = [
    step("a", inputs={"x": {"item": "each"}}),
    step("a", inputs={"x": {"step": "inside"}}),
    step("a", inputs={"x": {"each": ["inner", {"step": "deep"}]}}),
    step("a", inputs={"x": {"each": ["each", {"step": "deep"}]}}),
    step("a", when=[{"item": "each"}]),
]


@pytest.mark.parametrize("outside", OUTSIDE)
def test_what_is_in_a_loop_is_read_outside_of_it_only_by_each(outside: Any) -> None:
    loops = [loop({"const": [1]}), loop({"const": [1]}, "inner", "each")]
    found = only(graph(step("inside", foreach="each"), step("deep", foreach="inner"), outside, loops=loops))
    assert found.reason == "OUTSIDE_LOOP"


def test_values_that_are_too_deep_are_refused() -> None:
    value: Any = {"const": 1}
    for _ in range(5000):
        value = {"not": value}
    assert only(graph({**step("a"), "inputs": {"x": value}})).reason == "TOO_DEEP"


def test_an_unknown_parameter_is_refused() -> None:
    found = only(graph({**step("a"), "inputs": {"x": {"param": "n"}}}))
    assert found.reason == "UNKNOWN_PARAM"


REFUSED_RESOURCES = [
    ({"cpu": -1}, "cpu", "more than 0"),
    ({"cpu": 0}, "cpu", "more than 0"),
    ({"cpu": "two"}, "cpu", "500m"),
    ({"cpu": float("nan")}, "cpu", "500m"),
    ({"cpu": True}, "cpu", "500m"),
    ({"gpu": 1e9}, "gpu", "from 0 to 64"),
    ({"gpu": 10**9}, "gpu", "from 0 to 64"),
    ({"gpu": 10**5000}, "gpu", "from 0 to 64"),
    ({"memory": 4}, "memory", '"2Gi"'),
    ({"memory": "4"}, "memory", '"2Gi"'),
    ({"memory": "4gb"}, "memory", "did you mean '4Gi'?"),
    ({"memory": "512 MB"}, "memory", "did you mean '512Mi'?"),
    ({"memory": "0Gi"}, "memory", '"2Gi"'),
    ({"memory": "2Gi\n"}, "memory", '"2Gi"'),
    ({"ram": "2Gi"}, "ram", "use cpu, gpu, memory"),
]


@pytest.mark.parametrize(("resources", "field", "way_out"), REFUSED_RESOURCES, ids=range(len(REFUSED_RESOURCES)))
def test_resources_are_refused_with_the_accepted_forms(resources: Any, field: str, way_out: str) -> None:
    found = only(graph(step("a", resources=resources)))
    assert (found.field, found.reason) == (f"spec.graph.steps[0].resources.{field}", "BAD_RESOURCES")
    assert way_out in found.description


@pytest.mark.parametrize("timeout", [0, -1, 7 * 86400 + 1, float("inf"), float("nan"), "soon", "", "10", True])
def test_timeouts_out_of_range_are_refused(timeout: Any) -> None:
    found = list(demand_faults({"timeout_s": timeout}))
    assert [(fault.field, fault.reason) for fault in found] == [("timeout_s", "BAD_TIMEOUT")]


@pytest.mark.parametrize("retries", [-1, 11, 1000, 1.5, "3", True])
def test_retries_out_of_range_are_refused(retries: Any) -> None:
    found = list(demand_faults({"retries": retries}))
    assert [(fault.field, fault.reason) for fault in found] == [("retries", "BAD_RETRIES")]


def test_texts_of_time_memory_and_cores_are_read() -> None:
    assert seconds_of("1h30m") == 5400
    assert seconds_of("2d") == 172_800
    assert seconds_of("1.5s") == 1.5
    assert seconds_of(7) == 7
    assert memory_bytes("1.5Gi") == 1536 * 2**20
    assert cores("500m") == 0.5


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
PLACES = [
    ("name",),
    ("version",),
    ("params",),
    ("loops",),
    ("loops", 0),
    ("loops", 0, "over"),
    ("loops", 0, "within"),
    ("steps",),
    ("steps", 0),
    ("result",),
    *(("steps", 0, key) for key in ("name", "task", "engine", "resources", "inputs", "needs", "foreach", "when")),
]


@given(place=st.sampled_from(PLACES), value=JSON)
def test_whatever_stands_in_a_graph_is_judged_without_an_error(place: tuple[Any, ...], value: Any) -> None:
    broken: Any = copy.deepcopy(graph(step("a", foreach="each"), loops=[loop({"const": [1]})], result={"step": "a"}))
    at = broken
    for key in place[:-1]:
        at = at[key]
    at[place[-1]] = value
    assert all(fault.field and fault.description for fault in graph_faults(broken))
