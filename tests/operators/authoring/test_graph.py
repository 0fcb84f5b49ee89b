"""The graph as typed values."""

import subprocess
import sys
from typing import Any

import pytest

from api.errors import InvalidArgument
from operators.authoring.graph import read

NESTED: dict[str, Any] = {
    "version": 1,
    "name": "nested",
    "params": {"type": "object", "properties": {"n": {"type": "integer"}}},
    "loops": [{"name": "outer", "over": {"step": "a"}}, {"name": "inner", "over": {"const": [1]}, "within": "outer"}],
    "steps": [
        {
            "name": "c",
            "task": "m:f",
            "engine": "local",
            "inputs": {"x": {"each": ["outer", {"each": ["inner", {"step": "b"}]}]}},
            "needs": ["d"],
        },
        {
            "name": "b",
            "task": "m:f",
            "engine": "ray",
            "retries": 2,
            "inputs": {"x": {"item": "outer"}},
            "foreach": "inner",
        },
        {"name": "a", "task": "m:f", "engine": "local", "inputs": {"n": {"param": "n"}}},
        {"name": "d", "task": "m:f", "engine": "local", "when": [{"step": "a"}]},
    ],
    "result": {"step": "c"},
}


def test_json_comes_back_as_it_was() -> None:
    assert read(NESTED).to_json() == NESTED


def test_each_step_comes_after_what_it_needs() -> None:
    found = read(NESTED)
    order = found.order()
    assert sorted(order) == ["a", "b", "c", "d", "inner", "outer"]
    for name in order:
        assert all(order.index(need) < order.index(name) for need in found.needs(name))


def test_the_loops_around_a_step_are_named_from_the_outermost() -> None:
    assert read(NESTED).around("inner") == ("outer", "inner")


def test_every_fault_is_in_the_one_refusal() -> None:
    broken = {**NESTED, "steps": [*NESTED["steps"], {"name": "e", "task": "?", "retries": -1}]}
    with pytest.raises(InvalidArgument) as refused:
        read(broken)
    assert {fault.field for fault in refused.value.violations} == {"steps[4].task", "steps[4].retries"}


def test_reading_a_graph_imports_no_airflow_and_no_library_of_data() -> None:
    code = "import sys, operators.authoring.graph; print(*sys.modules)"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    heavy = {"airflow", "pandas", "numpy", "pyarrow", "ray", "google", "jsonschema", "fsspec"}
    assert not heavy & {name.split(".")[0] for name in ended.stdout.split()}
