"""The same pipeline in this process and on the embedded Airflow: the same step states, the same output digests."""

from __future__ import annotations

import contextlib
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from api.client import Client
from api.gen.michelangelo.api.v2 import pipeline_pb2
from api.gen.michelangelo.api.v2 import pipeline_run_pb2 as wire
from api.workflows import plain
from operators.authoring.loading import in_module
from operators.authoring.local_run import SKIP, UPSTREAM_FAILED, run_here
from tests.e2e.conftest import ROOT, Ma
from tests.e2e.flights_platform import eventually

PROJECT = "authored"
EXAMPLES = ROOT / "examples" / PROJECT
READY = pipeline_pb2.PIPELINE_STATE_READY
Steps = Mapping[str, list[tuple[str, str]]]
"""State and digest of each instance of each step, in the order of its loops' items."""


@pytest.fixture(scope="module")
def authored(ma: Ma) -> Iterator[Client]:
    """A client of the platform, where the project of the examples is."""
    applied = ma("apply", "-f", str(EXAMPLES))
    assert applied.code == 0, applied.err
    with Client.of(ma.config) as api:
        yield api


@contextlib.contextmanager
def importable(folder: Path) -> Iterator[None]:
    """Let modules of a folder be imported, and forget them afterwards."""
    known = set(sys.modules)
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))
        for name in set(sys.modules) - known:
            if str(folder) in str(getattr(sys.modules[name], "__file__", "")):
                del sys.modules[name]


def here(folder: Path, name: str, given: Mapping[str, Any]) -> Steps:
    """Run a pipeline in this process."""
    with importable(folder):
        report = run_here(in_module(f"{name}_flow", name), given)
    found: dict[str, list[tuple[str, str]]] = {}
    states, digests = report.states(), report.digests()
    for step, index in sorted(states):
        state = SKIP if states[step, index] == UPSTREAM_FAILED else states[step, index]
        found.setdefault(step, []).append((state, digests.get((step, index), "")))
    return found


def leaves(steps: Any) -> Iterator[Any]:
    for step in steps:
        if step.sub_steps:
            yield from leaves(step.sub_steps)
        else:
            yield step


def position(step: Any) -> tuple[str, int]:
    name, bracket, rest = step.name.partition("[")
    return name, int(rest.rstrip("]")) if bracket else 0


def on_airflow(run: Any) -> Steps:
    """Return what a PipelineRun says of its steps."""
    found: dict[str, list[tuple[str, str]]] = {}
    for step in sorted(leaves(run.status.steps), key=position):
        state = wire.PipelineRunStepState.Name(step.state).removeprefix("PIPELINE_RUN_STEP_STATE_")
        digest = plain(step.output).get("digest", "")
        found.setdefault(position(step)[0], []).append((state, digest))
    return found


def applied(ma: Ma, api: Client, folder: Path, name: str) -> None:
    ended = ma("pipeline", "apply", "-f", str(folder / "pipeline.yaml"))
    assert ended.code == 0, ended.err
    assert f"Pipeline {name}" in ended.out
    eventually(lambda: api.get("Pipeline", PROJECT, name).status.state == READY, f"the DAG of {name}", timeout_s=180)


def run_there(ma: Ma, api: Client, name: str, run: str, *settings: str) -> Any:
    """Run a pipeline on the platform."""
    given = [part for setting in settings for part in ("--set", setting)]
    ma("pipeline", "run", name, "-n", PROJECT, "--name", run, "--wait", *given, timeout_s=600)
    return api.get("PipelineRun", PROJECT, run)


@pytest.mark.parametrize(
    ("name", "given"),
    [("sweep", {"count": 4}), ("review", {}), ("converge", {"target": 10})],
)
def test_a_pipeline_does_here_what_it_does_on_airflow(
    ma: Ma, authored: Client, name: str, given: dict[str, Any]
) -> None:
    folder = EXAMPLES / name
    applied(ma, authored, folder, name)
    run = run_there(ma, authored, name, f"{name}-1", *(f"{key}={value}" for key, value in given.items()))
    assert run.status.state == wire.PIPELINE_RUN_STATE_SUCCEEDED, run.status.error_message
    mine = here(folder, name, given)
    assert any(state == "SUCCEEDED" and digest for steps in mine.values() for state, digest in steps)
    assert on_airflow(run) == mine


def changed(folder: Path, to: Path, old: str, new: str) -> Path:
    """Copy a pipeline with one edit, as a pipeline of another name."""
    shutil.copytree(folder, to)
    (source,) = to.glob("*_flow.py")
    text = source.read_text()
    assert old in text
    source.write_text(text.replace(old, new))
    return to


@pytest.fixture
def edited(tmp_path: Path) -> Callable[[str, str, str], Path]:
    """Copies a pipeline of the examples with one edit."""
    return lambda name, old, new: changed(EXAMPLES / name, tmp_path / name, old, new)


def test_a_difference_that_is_injected_turns_the_comparison_red(
    ma: Ma, authored: Client, edited: Callable[[str, str, str], Path]
) -> None:
    """One other digit in one task is seen, in that step alone."""
    folder = edited("converge", 'round(state["root"], digits)', 'round(state["root"], digits + 1)')
    applied(ma, authored, folder, "converge")
    there = on_airflow(run_there(ma, authored, "converge", "edited-1"))
    mine = here(EXAMPLES / "converge", "converge", {})
    assert there != mine
    assert {name for name in mine if mine[name] != there[name]} == {"rounded"}
    assert there == here(folder, "converge", {})


def test_uncommitted_code_runs_without_being_registered(
    ma: Ma, authored: Client, edited: Callable[[str, str, str], Path]
) -> None:
    """A dev-run does what the folder says now; no pipeline is left of it."""
    folder = edited("converge", 'round(state["root"], digits)', 'round(state["root"], digits + 1)')
    ended = ma("pipeline", "dev-run", "-f", str(folder / "pipeline.yaml"), "--name", "dev-1", timeout_s=600)
    assert ended.code == 0, f"{ended.out}{ended.err}"
    there = on_airflow(authored.get("PipelineRun", PROJECT, "dev-1"))
    assert there == here(folder, "converge", {})
    assert not [one for one in authored.list("Pipeline", PROJECT) if one.metadata.name.startswith("dev")]
