"""Outputs of steps that are kept: taken over by the next run, with a reason, and not when something changed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from api.client import Client
from api.gen.michelangelo.api.v2 import pipeline_pb2
from api.gen.michelangelo.api.v2 import pipeline_run_pb2 as wire
from api.workflows import plain
from tests.e2e.conftest import Ma
from tests.e2e.flights_platform import eventually

PROJECT = "cached"
FLOW = """
from operators import pipeline, task

FACTOR = 2


@task(cache=True)
def doubled(number: int) -> int:
    return number * FACTOR


@task(cache=True)
def checked(number: int) -> int:
    if number < 0:
        raise ValueError("less than nothing")
    return number


@pipeline(name="kept")
def kept(number: int = 1):
    return checked(doubled(number))
"""
DOCUMENTS = {
    "project.yaml": "apiVersion: michelangelo.api/v2\nkind: Project\nmetadata: {name: cached, namespace: cached}\n",
    "pipeline.yaml": """apiVersion: michelangelo.api/v2
kind: Pipeline
metadata: {name: kept, namespace: cached}
spec:
  manifest: {type: PIPELINE_MANIFEST_TYPE_UNIFLOW, filePath: kept_flow, uniflowFunction: kept}
""",
}
STATES = wire.PipelineRunStepState
SUCCEEDED, SKIPPED, FAILED = "SUCCEEDED", "SKIPPED", "FAILED"


def applied(ma: Ma, api: Client, folder: Path, flow: str) -> None:
    """Apply the pipeline with this code, and wait until Airflow has it."""
    (folder / "kept_flow.py").write_text(flow)
    ended = ma("pipeline", "apply", "-f", str(folder / "pipeline.yaml"))
    assert ended.code == 0, ended.err

    def ready() -> bool:
        found = api.get("Pipeline", PROJECT, "kept")
        return bool(found.status.state == pipeline_pb2.PIPELINE_STATE_READY)

    eventually(ready, "the DAG of kept", timeout_s=180)


def steps(ma: Ma, api: Client, run: str, number: int) -> dict[str, tuple[str, str, Any]]:
    """Run the pipeline and return state, message and digest of each step."""
    ma("pipeline", "run", "kept", "-n", PROJECT, "--name", run, "--wait", "--set", f"number={number}", timeout_s=600)
    found = api.get("PipelineRun", PROJECT, run).status.steps
    return {
        step.name: (
            STATES.Name(step.state).removeprefix("PIPELINE_RUN_STEP_STATE_"),
            step.message,
            plain(step.output).get("digest"),
        )
        for step in found
    }


def test_an_output_is_used_again_until_something_of_it_changes(ma: Ma, tmp_path: Path) -> None:
    for name, text in DOCUMENTS.items():
        (tmp_path / name).write_text(text)
    assert ma("apply", "-f", str(tmp_path / "project.yaml")).code == 0
    with Client.of(ma.config) as api:
        applied(ma, api, tmp_path, FLOW)
        first = steps(ma, api, "run-1", 3)
        new = (SUCCEEDED, "no earlier output of this step is kept")
        assert {name: step[:2] for name, step in first.items()} == {"doubled": new, "checked": new}

        again = steps(ma, api, "run-2", 3)
        for name, (state, message, digest) in again.items():
            assert (state, digest) == (SKIPPED, first[name][2])
            assert message.startswith("taken over from run-1 of ")
            assert message.endswith(": same code, inputs, environment and version")

        applied(ma, api, tmp_path, FLOW.replace("FACTOR = 2", "FACTOR = 3"))
        edited = steps(ma, api, "run-3", 3)
        assert edited["doubled"][1].startswith("code of kept_flow.FACTOR changed (1 line) (since run-1 of ")
        assert edited["checked"][1].startswith("inputs.number changed (since run-1 of ")

        failed = [steps(ma, api, f"failed-{number}", -1) for number in (1, 2)]
        assert [run["checked"][0] for run in failed] == [FAILED, FAILED]
        assert [run["doubled"][0] for run in failed] == [SUCCEEDED, SKIPPED]
        kept = api.list("CachedOutput", PROJECT)
        assert sorted(each.spec.source_pipeline_run_step for each in kept) == [
            *("checked", "checked", "doubled", "doubled", "doubled"),
        ]
        assert {each.spec.source_pipeline_run.name for each in kept} == {"run-1", "run-3", "failed-1"}
