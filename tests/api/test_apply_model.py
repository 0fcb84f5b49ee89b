"""Merges of random declarations by several managers, each compared with the reference model."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import pytest
from google.protobuf.json_format import MessageToDict
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from api.apply import Taken, Terms, arranged, merged
from api.apply_fields import after_update, at, leaves, owners_of, text, write_owners
from api.apply_trees import Leaf, Node, tree_of, write
from api.kinds import kinds
from tests.api.apply_model import ITEM, Model, fields, joined
from tests.robustness.results import told

MERGES = 20
Config = Mapping[str, Any]

few = st.sampled_from(["a", "b", "c"])
word = st.sampled_from(["x", "y", "z"])
scalars = st.one_of(st.booleans(), st.integers(2, 4), word, st.lists(st.integers(2, 4), min_size=1, max_size=2))
json = st.dictionaries(few, st.one_of(scalars, st.dictionaries(few, scalars, min_size=1, max_size=2)), max_size=3)
task = st.fixed_dictionaries({}, optional={"image_manifest_path": word, "image_target_hash": word})
configs = st.fixed_dictionaries(
    {},
    optional={
        "labels": st.dictionaries(few, word, max_size=3),
        "description": word,
        "notifications": st.lists(word, min_size=1, max_size=2),
        "owner": st.fixed_dictionaries({"name": word}),
        "tasks": st.dictionaries(
            few,
            st.fixed_dictionaries({}, optional={"image_manifest_path": word, "image_target_hash": word}),
            max_size=3,
        ),
        "params": st.dictionaries(
            few,
            st.fixed_dictionaries(
                {"environ": st.dictionaries(few, word, min_size=1, max_size=2)}, optional={"config": json}
            ),
            max_size=2,
        ),
    },
)
steps = st.tuples(
    st.sampled_from(["apply", "apply", "force", "update"]), st.sampled_from(["one", "two", "three"]), configs
)


def pipeline_of(config: Config) -> Any:
    """Return a pipeline with what a configuration says."""
    made = kinds()["Pipeline"].new("p", "n")
    made.metadata.labels.update(config.get("labels", {}))
    made.spec.description = config.get("description", "")
    for address in config.get("notifications", []):
        made.spec.notifications.add(emails=[address])
    if config.get("owner"):
        made.spec.owner.name = config["owner"]["name"]
    for name, task in config.get("tasks", {}).items():
        made.spec.manifest.task_specs.add(name=name, **task)
    for name, parameters in config.get("params", {}).items():
        target = made.spec.manifest.params_map[name]
        target.environ.update(parameters["environ"])
        if parameters.get("config"):
            target.workflow_config.update(parameters["config"])
    return made


class Merger:
    """The code under test, on one pipeline that keeps its managers as the server does."""

    def __init__(self) -> None:
        self.pipeline = pipeline_of({})

    def apply(self, manager: str, config: Config, *, force: bool) -> set[tuple[str, str]]:
        live = tree_of(self.pipeline)
        wanted = tree_of(pipeline_of(config))
        try:
            tree, owners = merged(live, wanted, owners_of(self.pipeline), Terms(manager, force))
        except Taken as taken:
            return {(text(self.pipeline.DESCRIPTOR, path), other) for path, other in taken.paths}
        write(tree, self.pipeline)
        assert tree_of(self.pipeline) == tree, "what is written is what was merged"
        write_owners(self.pipeline, owners)
        return set()

    def update(self, manager: str, config: Config) -> None:
        new = pipeline_of(config)
        after_update(self.pipeline, new, manager, time.time_ns())
        self.pipeline = new

    def live(self) -> dict[str, Any]:
        tree = tree_of(self.pipeline)
        return {text(self.pipeline.DESCRIPTOR, path): plain(at(tree, path)) for path in leaves(tree)}

    def owned(self) -> dict[tuple[str, str], set[str]]:
        found = {}
        for owner in owners_of(self.pipeline):
            found[owner.manager, owner.operation] = {text(self.pipeline.DESCRIPTOR, path) for path in owner.paths}
        return found


def plain(node: Node | None) -> Any:
    """Return a value as the model has it."""
    if not isinstance(node, Leaf):
        return ITEM
    if isinstance(node.value, list):
        return [item.emails[0] for item in node.value]
    return MessageToDict(node.value) if hasattr(node.value, "DESCRIPTOR") else node.value


def check(sequence: list[tuple[str, str, Config]]) -> None:
    """Carry out declarations on the model and on the code, and compare conflicts, values and owners after each."""
    model, merger = Model(), Merger()
    for what, manager, config in sequence:
        wanted = dict(fields(config))
        if what == "update":
            model.update(manager, wanted)
            merger.update(manager, config)
        else:
            expected = model.apply(manager, wanted, force=what == "force")
            found = merger.apply(manager, config, force=what == "force")
            assert found == {(joined(path), other) for path, other in expected}
        assert merger.live() == {joined(path): value for path, value in model.live.items()}
        assert merger.owned() == {owner: set(map(joined, paths)) for owner, paths in model.owned.items()}


@pytest.mark.both
def test_10000_merges_give_what_the_model_gives() -> None:
    merges = 0

    @settings(max_examples=500, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.lists(steps, min_size=MERGES, max_size=MERGES))
    def compared(sequence: list[tuple[str, str, Config]]) -> None:
        nonlocal merges
        check(sequence)
        merges += len(sequence)

    compared()
    told("G12", "a merge has the values, the owners and the conflicts of the model", trials=merges)


@pytest.mark.parametrize(
    ("live", "wanted", "order"),
    [
        ("", "ba", "ba"),
        ("ab", "ba", "ba"),
        ("abc", "cb", "acb"),
        ("xay", "ab", "xayb"),
        ("abcd", "da", "dabc"),
        ("pq", "a", "pqa"),
    ],
)
def test_items_stand_in_the_wanted_order_and_others_behind_what_they_followed(
    live: str, wanted: str, order: str
) -> None:
    assert "".join(arranged(live, wanted)) == order
