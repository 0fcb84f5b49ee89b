"""Each template in one process of this machine and on the embedded Airflow: the same steps, the same output digests."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from api.gen.michelangelo.api.v2 import pipeline_pb2
from api.gen.michelangelo.api.v2 import pipeline_run_pb2 as wire
from api.workflows import plain
from operators.templates.digests import digest_of
from operators.templates.registry import TEMPLATES
from tests.e2e.conftest import ROOT
from tests.e2e.flights_platform import PROJECT, SUCCEEDED, Flights, eventually
from tests.patience import soon

EXAMPLE = ROOT / "examples" / "flights"
HERE_S = 120
READY = pipeline_pb2.PIPELINE_STATE_READY
# The example's own pipeline, which all end-to-end tests share.
WHOLE = "train_and_deploy"
OTHERS: Mapping[str, Mapping[str, Any]] = {
    "train": {"sample_fraction": 0.1, "minimum_auc": None, "model_name": "parity"},
    "batch_predict": {"model": "late-1"},
}
Steps = list[tuple[str, str, str]]
"""Name, state and digest of each step, in the order in which they ended."""


def here(flights: Flights, files: Path, keep: Path, run: str, *settings: str) -> Steps:
    """Run a pipeline's YAML in a process of this machine."""
    given = [word for setting in settings for word in ("-p", setting)]
    words = ["pipeline", "test", "-f", str(files), "--keep", str(keep), "--name", run, *given]
    ended = flights.ma(*words, timeout_s=soon(HERE_S))
    assert ended.code == 0, ended.err[-3000:]
    told = json.loads((keep / "test-report.json").read_text())
    return [(step["step"], step["state"], step["digest"]) for step in told]


def there(run: Any) -> Steps:
    """Return what a PipelineRun says of its steps."""
    names = {run.metadata.name: "RUN"}
    return [
        (
            step.name,
            wire.PipelineRunStepState.Name(step.state).removeprefix("PIPELINE_RUN_STEP_STATE_"),
            digest_of(plain(step.output), names),
        )
        for step in run.status.steps
    ]


def pipeline(template: str, folder: Path) -> Path:
    """Write the example's pipeline as one of another template."""
    document = yaml.safe_load((EXAMPLE / "pipeline.yaml").read_text())
    manifest = document["spec"]["manifest"]
    values = {**manifest["content"]["value"], **OTHERS[template]}
    wanted = TEMPLATES[template].params()
    document["metadata"]["name"] = template.replace("_", "-")
    manifest["filePath"] = template
    manifest["content"]["value"] = {name: value for name, value in values.items() if name in wanted}
    manifest.pop("triggerMap", None)
    project = yaml.safe_load((EXAMPLE / "project.yaml").read_text())
    folder.mkdir(exist_ok=True)
    (folder / "pipeline.yaml").write_text(yaml.safe_dump_all([project, document]))
    return folder / "pipeline.yaml"


def on_airflow(flights: Flights, file: Path, template: str) -> Any:
    """Apply and run it on the platform."""
    name, run = template.replace("_", "-"), f"parity-{template.replace('_', '-')}"
    applied = flights.ma("apply", "-f", str(file))
    assert applied.code == 0, applied.err
    eventually(lambda: flights.api.get("Pipeline", PROJECT, name).status.state == READY, name, timeout_s=soon(60))
    ended = flights.ma("pipeline", "run", name, "-n", PROJECT, "--name", run, "--wait", timeout_s=soon(HERE_S))
    assert ended.code == 0, ended.out + ended.err
    found = flights.run(run)
    assert found.status.state == SUCCEEDED
    return found


@pytest.fixture(scope="module")
def whole(flights: Flights, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Steps]:
    """The example with its rollout in a process of this machine, and what it left behind."""
    keep = tmp_path_factory.mktemp("here")
    return keep, here(flights, EXAMPLE, keep, flights.first_run)


def test_every_template_is_compared() -> None:
    assert {WHOLE, *OTHERS} == set(TEMPLATES)


@pytest.mark.robustness
def test_a_template_with_its_rollout_does_here_what_it_does_on_airflow(
    flights: Flights, whole: tuple[Path, Steps]
) -> None:
    mine = whole[1]
    assert [state for _, state, _ in mine] == ["SUCCEEDED"] * 6
    assert there(flights.run(flights.first_run)) == mine


@pytest.mark.robustness
@pytest.mark.parametrize("template", sorted(OTHERS))
def test_a_template_does_here_what_it_does_on_airflow(
    flights: Flights, whole: tuple[Path, Steps], tmp_path: Path, template: str
) -> None:
    file = pipeline(template, tmp_path)
    run = on_airflow(flights, file, template)
    assert there(run) == here(flights, file, whole[0], run.metadata.name)


@pytest.fixture
def edited(tmp_path: Path) -> Callable[[str, str], Path]:
    """Copies the example's project with one edit of its code."""

    def edit(old: str, new: str) -> Path:
        folder = tmp_path / "flights"
        shutil.copytree(EXAMPLE, folder)
        text = (folder / "flights.py").read_text()
        assert old in text
        (folder / "flights.py").write_text(text.replace(old, new))
        document = yaml.safe_load((folder / "project.yaml").read_text())
        del document["spec"]["rootDir"]
        (folder / "project.yaml").write_text(yaml.safe_dump(document))
        return folder

    return edit


@pytest.mark.robustness
def test_a_difference_that_is_injected_turns_the_comparison_red(
    flights: Flights, whole: tuple[Path, Steps], edited: Callable[[str, str], Path], tmp_path: Path
) -> None:
    """One other number in the project's code is seen from the step on that reads it, and in no step before."""
    folder = edited('(arrived["arr_delay"] >= LATE_MIN)', '(arrived["arr_delay"] > LATE_MIN)')
    mine = here(flights, folder, tmp_path / "keep", flights.first_run)
    differing = [name for (name, _, one), (_, _, other) in zip(mine, whole[1], strict=True) if one != other]
    assert mine != there(flights.run(flights.first_run))
    assert differing[0] == "prepare_dataset"
    assert "materialize_features" not in differing
