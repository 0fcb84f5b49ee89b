"""A run of an older revision in a real Airflow: it runs its own shape, and its history stays when its DAG is gone."""

import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

from api.client import Client
from api.config import Config
from api.gen.michelangelo.api.v2 import pipeline_pb2
from api.gen.michelangelo.api.v2 import pipeline_run_pb2 as wire
from api.kinds import kinds
from tests.e2e.flights_platform import eventually

PROJECT = "pinned"
FLOW = """\
from operators import pipeline, task


@task.local
def {task}() -> int:
    return {value}


@pipeline(name="count")
def count():
    return {task}()
"""
MANIFEST = f"""\
apiVersion: michelangelo.api/v2
kind: Pipeline
metadata: {{name: count, namespace: {PROJECT}}}
spec:
  manifest: {{type: PIPELINE_MANIFEST_TYPE_UNIFLOW, filePath: flow, uniflowFunction: count}}
"""


def applied(ma: Any, api: Client, folder: Path, task: str, value: int) -> str:
    """Apply a state of the pipeline; return its revision."""
    (folder / "flow.py").write_text(FLOW.format(task=task, value=value))
    (folder / "count.yaml").write_text(MANIFEST)
    before = api.find("Pipeline", PROJECT, "count")
    old = "" if before is None else before.status.latest_revision.name
    ended = ma("pipeline", "apply", "-f", str(folder / "count.yaml"))
    assert ended.code == 0, ended.err

    def built() -> str | None:
        found = api.get("Pipeline", PROJECT, "count")
        assert found.status.state != pipeline_pb2.PIPELINE_STATE_ERROR, found.status.error_message
        name = str(found.status.latest_revision.name)
        return name if name != old and found.status.state == pipeline_pb2.PIPELINE_STATE_READY else None

    return str(eventually(built, "the pipeline's DAG", timeout_s=90))


def ended(api: Client, name: str) -> Any:
    def over() -> Any | None:
        run = api.get("PipelineRun", PROJECT, name)
        return run if run.status.HasField("end_time") else None

    return eventually(over, f"the end of {name}", timeout_s=120)


def test_an_older_revision_runs_as_it_was(ma: Callable[..., Any], platform: Config, tmp_path: Path) -> None:
    with Client.of(platform) as api:
        api.create(kinds()["Project"].new(PROJECT, PROJECT))
        first = applied(ma, api, tmp_path, "one", 1)
        second = applied(ma, api, tmp_path, "two", 2)
        plan = ma("plan", "-f", str(tmp_path / "count.yaml"))
        assert plan.code == 0, plan.err
        assert f"= DAG {PROJECT}.count" in plan.out
        for name, revision in (("old", first), ("new", "")):
            run = kinds()["PipelineRun"].new(PROJECT, name)
            run.spec.pipeline.name, run.spec.revision.name = "count", revision
            api.create(run)
        old, new = ended(api, "old"), ended(api, "new")
        for run, revision, step in ((old, first, "one"), (new, second, "two")):
            assert run.status.state == wire.PIPELINE_RUN_STATE_SUCCEEDED, run.status
            assert run.status.source_pipeline.pipeline.status.latest_revision.name == revision
            assert [each.name for each in run.status.steps] == [step]
        assert new.status.workflow_id == f"{PROJECT}.count"
        assert old.status.workflow_id.startswith(f"{PROJECT}.count.rev_")
        log = ma("pipeline-run", "logs", "old", "-n", PROJECT)
        assert log.code == 0, log.err
        assert "==> one" in log.out
    assert urllib.request.urlopen(old.status.log_url, timeout=20).status == 200
