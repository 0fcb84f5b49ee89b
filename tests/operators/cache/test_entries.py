"""The port of entries: what a process keeps for itself and what a project keeps as resources behave alike."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from api.client import Client
from api.kinds import kinds
from operators.authoring.graph import Step
from operators.cache.cached_outputs import CachedOutputs
from operators.cache.entries import MOST_COMPARED, Entries, Entry
from operators.cache.parts import Parts, line_name
from operators.cache.step_cache import StepCache, parts_of
from operators.values.references import Reference
from operators.values.store import scratch_values
from tests.api.running import Served
from tests.operators.cache.project import MemoryEntries

NOW = datetime(2026, 1, 1, 12, 30, 5, 123456, tzinfo=UTC)
PARTS = Parts({"m.f": "ab"}, "sha256:00", {"rows": "sha256:1"}, {"numpy": "2"}, "1")
REFERENCE = Reference("sha256:" + "a" * 64, "json")
ENTRY = Entry("k" * 64, "line", PARTS, REFERENCE, REFERENCE, NOW, NOW + timedelta(seconds=90), "nightly", "train")


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    made = Served(tmp_path_factory.mktemp("cache") / "store.db")
    yield made
    made.close()


@pytest.fixture(params=["memory", "resources"])
def entries(request: pytest.FixtureRequest) -> Iterator[Entries]:
    if request.param == "memory":
        yield MemoryEntries()
        return
    served: Served = request.getfixturevalue("served")
    project = served.project()
    with Client(served.address) as api:
        pipeline = kinds()["Pipeline"].new(project, "train")
        pipeline.spec.manifest.file_path = "train"
        api.create(pipeline)
        run = kinds()["PipelineRun"].new(project, "nightly")
        run.spec.pipeline.name = "train"
        api.create(run)
        yield CachedOutputs(api, project, "/artifacts/values")


def test_what_is_added_is_found_whole(entries: Entries) -> None:
    assert entries.find("line", ENTRY.key) is None
    assert list(entries.of_line("line")) == []

    entries.add(ENTRY)

    assert entries.find("line", ENTRY.key) == ENTRY
    assert list(entries.of_line("line")) == [ENTRY]
    assert entries.find("another", ENTRY.key) is None
    assert list(entries.of_line("another")) == []


def test_a_later_entry_takes_the_place_of_one_with_its_key(entries: Entries) -> None:
    later = replace(ENTRY, made=NOW + timedelta(hours=1), expires=None, output=Reference("sha256:" + "b" * 64, "json"))

    entries.add(ENTRY)
    entries.add(later)

    assert entries.find("line", ENTRY.key) == later
    assert len(entries.of_line("line")) == 1


def test_only_the_newest_of_a_step_are_compared(entries: Entries) -> None:
    for number in range(MOST_COMPARED + 3):
        entries.add(replace(ENTRY, key=f"{number:02}" + 62 * "0", made=NOW + timedelta(seconds=number)))

    assert len(entries.of_line("line")) == MOST_COMPARED


def test_a_cache_that_cannot_be_asked_stops_no_step(tmp_path: Path) -> None:
    step = Step(name="train", task="flow:train", cache={"version": "1"})
    with Client("127.0.0.1:1", timeout_s=0.2) as api:
        cache = StepCache(step, PARTS, CachedOutputs(api, "flights"), scratch_values(tmp_path), pipeline="train")

        found = cache.lookup()
        cache.keep(REFERENCE)

    assert found.output is None
    assert found.why.startswith("the cache could not be asked: ")


def test_a_step_whose_code_nobody_can_read_is_never_kept(tmp_path: Path) -> None:
    entries, step = MemoryEntries(), Step(name="train", task="flow:train", cache={"version": "1"})
    cache = StepCache(step, parts_of(step, {}, tmp_path), entries, scratch_values(tmp_path), pipeline="train")

    cache.keep(REFERENCE)

    assert list(entries.of_line(line_name("train", "train"))) == []
    assert cache.lookup().why.startswith("its code cannot be read")
