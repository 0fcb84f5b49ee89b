"""`ma` against a real API server: what it prints, what it changes and how it ends."""

import json
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from api.cli import runs
from api.client import Client
from api.config import Config
from api.kinds import kinds

Ma = Callable[..., Any]

PROJECT = """\
apiVersion: michelangelo.api/v2
kind: Project
metadata:
  name: {name}
  labels: {{team: no}}
spec:
  description: A shop
  tier: 2
  owner: {{owningTeam: 9b4f7a2c-0000-4000-8000-000000000001}}
"""
PIPELINE = """\
apiVersion: michelangelo.api/v2
kind: Pipeline
metadata: {{name: train, namespace: {name}}}
spec:
  type: TRAIN
  manifest:
    type: PIPELINE_MANIFEST_TYPE_YAML
    filePath: train
"""


@pytest.fixture
def project() -> str:
    """A name that no other test uses."""
    return f"shop-{uuid.uuid4().hex[:8]}"


@pytest.fixture
def files(tmp_path: Path, project: str) -> Path:
    """A folder with a project and its pipeline, the dependent one first by name."""
    folder = tmp_path / "files"
    folder.mkdir()
    (folder / "a-pipeline.yaml").write_text(PIPELINE.format(name=project))
    (folder / "b-project.yaml").write_text(PROJECT.format(name=project))
    return folder


def test_a_folder_is_applied_in_order_and_twice_changes_nothing(api: Config, ma: Ma, files: Path, project: str) -> None:
    first = ma("apply", "-f", str(files))
    assert first.code == 0, first.err
    assert first.out.splitlines() == [
        f"Project {project} created",
        "Pipeline train created",
        "2 of 2 documents applied",
    ]
    second = ma("apply", "-f", str(files))
    assert second.out.splitlines()[:2] == [f"Project {project} unchanged", "Pipeline train unchanged"]


def test_a_dry_run_stores_nothing(api: Config, ma: Ma, files: Path, project: str) -> None:
    assert ma("apply", "--dry-run", "-f", str(files / "b-project.yaml")).code == 0
    assert ma("get", "project", project).code == 1


def test_fields_of_another_manager_are_a_conflict_unless_taken_by_force(
    api: Config, ma: Ma, files: Path, project: str
) -> None:
    declare = ("apply", "-f", str(files), "--field-manager")
    assert ma(*declare, "one").out.splitlines()[:2] == [f"Project {project} created", "Pipeline train created"]
    assert ma(*declare, "two").out.splitlines()[1] == "Pipeline train configured"
    assert ma(*declare, "two").out.splitlines()[1] == "Pipeline train unchanged"
    text = PROJECT.format(name=project)
    (files / "b-project.yaml").write_text(text.replace("team: no", "team: yes"))
    refused = ma(*declare, "two")
    assert refused.code == 1
    assert "metadata.labels[team]" in refused.err
    assert "'one'" in refused.err
    assert ma(*declare, "two", "--force-conflicts").code == 0
    assert ma("apply", "-f", str(files), "--field-manager", "").code == 2


def test_bad_documents_are_named_and_the_good_ones_applied(api: Config, ma: Ma, files: Path, project: str) -> None:
    (files / "c-broken.yaml").write_text("kind: Project\n")
    (files / "d-refused.yaml").write_text(PIPELINE.format(name=project).replace("name: train", "name: Bad Name"))
    ended = ma("apply", "-f", str(files))
    assert ended.code == 1
    assert "c-broken.yaml:1: apiVersion: is missing" in ended.err
    assert "d-refused.yaml:1: Pipeline Bad Name refused:" in ended.err
    assert "metadata.name" in ended.err
    assert ended.out.splitlines()[-1] == "2 of 4 documents applied"


def test_what_get_prints_can_be_applied(api: Config, ma: Ma, files: Path, project: str) -> None:
    ma("apply", "-f", str(files))
    for form in ("yaml", "json"):
        printed = ma("get", "project", project, "-o", form)
        again = files / f"again-{form}.yaml"
        again.write_text(printed.out)
        ended = ma("apply", "-f", str(again))
        assert ended.out == f"Project {project} unchanged\n"
        assert "status is ignored" in ended.err
    assert yaml.safe_load(ma("get", "project", project, "-o", "yaml").out)["metadata"]["labels"]["team"] == "no"


@pytest.mark.parametrize("kind", ["projects", "project", "Project"])
def test_kinds_are_found_by_every_name(api: Config, ma: Ma, files: Path, project: str, kind: str) -> None:
    ma("apply", "-f", str(files))
    assert ma("get", kind, project, "-o", "name").out == f"project/{project}\n"


@pytest.mark.parametrize("kind", ["pipelineruns", "pipeline_run", "pipeline-runs", "PipelineRun", "pr"])
def test_pipeline_runs_have_many_names(api: Config, ma: Ma, kind: str) -> None:
    assert ma("get", kind, "-n", "nowhere").out == "no pipeline_runs found\n"


def test_a_list_can_be_selected_by_label_and_namespace(api: Config, ma: Ma, files: Path, project: str) -> None:
    ma("apply", "-f", str(files))
    found = json.loads(ma("get", "projects", "-l", "team=no", "-n", project, "-o", "json").out)
    assert [item["metadata"]["name"] for item in found["items"]] == [project]
    assert json.loads(ma("get", "projects", "-l", "team=yes", "-n", project, "-o", "json").out)["items"] == []


def test_a_table_has_a_header_and_the_kinds_own_columns(api: Config, ma: Ma, files: Path, project: str) -> None:
    ma("apply", "-f", str(files))
    header, row = ma("get", "pipelines", "-n", project).out.splitlines()
    assert header.split() == ["NAME", "TYPE", "STATE", "LATEST", "REVISION", "AGE"]
    assert row.split()[:2] == ["train", "TRAIN"]


def test_describe_shows_what_is_set(api: Config, ma: Ma, files: Path, project: str) -> None:
    ma("apply", "-f", str(files))
    ended = ma("describe", "project", project)
    assert f"Project {project} in {project}" in ended.out
    assert "description: A shop" in ended.out


def test_a_project_is_deleted_only_with_a_yes(api: Config, ma: Ma, files: Path, project: str) -> None:
    ma("apply", "-f", str(files / "b-project.yaml"))
    refused = ma("delete", "project", project)
    assert (refused.code, "--yes" in refused.err) == (2, True)
    assert ma("get", "project", project).code == 0
    assert ma("delete", "project", project, "--yes").code == 0


def test_deleting_what_is_not_there_fails(api: Config, ma: Ma) -> None:
    ended = ma("delete", "pipeline", "nothing", "-n", "nowhere")
    assert ended.code == 1
    assert ended.err.count("\n") == 1


def test_running_an_unknown_pipeline_is_refused(api: Config, ma: Ma, files: Path, project: str) -> None:
    ma("apply", "-f", str(files / "b-project.yaml"))
    ended = ma("pipeline", "run", "nothing", "-n", project)
    assert ended.code == 1
    assert "nothing" in ended.err


def test_a_run_under_a_given_name_starts_once(api: Config, files: Path, ma: Ma, project: str) -> None:
    ma("apply", "-f", str(files))
    with Client.of(api) as client:
        assert runs.start(client, project, "train", {}, name="nightly") == "nightly"
        assert runs.start(client, project, "train", {}, name="nightly") == "nightly"
    assert len(json.loads(ma("get", "pr", "-n", project, "-o", "json").out)["items"]) == 1


def test_waiting_too_long_has_its_own_code(api: Config, files: Path, ma: Ma, project: str) -> None:
    ma("apply", "-f", str(files))
    ended = ma("pipeline", "run", "train", "-n", project, "--name", "slow", "--wait", "--timeout", "0.1")
    assert ended.code == 5, ended.err
    assert ended.out.splitlines()[0] == "slow"
    assert "still PENDING" in ended.err


def test_a_run_without_a_log_says_so(api: Config, files: Path, ma: Ma, project: str) -> None:
    ma("apply", "-f", str(files))
    ma("pipeline", "run", "train", "-n", project, "--name", "quiet")
    ended = ma("pipeline-run", "logs", "quiet", "-n", project)
    assert ended.code == 1
    assert "no log yet" in ended.err


def test_kill_asks_for_it_in_the_spec(api: Config, files: Path, ma: Ma, project: str) -> None:
    ma("apply", "-f", str(files))
    ma("pipeline", "run", "train", "-n", project, "--name", "doomed")
    assert ma("pipeline-run", "kill", "doomed", "-n", project).code == 0
    with Client.of(api) as client:
        assert client.get("PipelineRun", project, "doomed").spec.kill


def test_parameters_are_read_as_yaml() -> None:
    given = runs.parameters(["seed=7", "name=no", "on=true", "ratio=.5", "list=[1, a]", "text='7'", "empty=", "a=b=c"])
    assert given == {
        "seed": 7,
        "name": "no",
        "on": True,
        "ratio": 0.5,
        "list": [1, "a"],
        "text": "7",
        "empty": "",
        "a": "b=c",
    }


def test_every_kind_has_a_table(api: Config, ma: Ma) -> None:
    for kind in kinds().values():
        ended = ma("get", kind.plural, "-n", "nowhere")
        assert (ended.code, ended.out) == (0, f"no {kind.plural} found\n")
