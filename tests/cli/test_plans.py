"""What an apply would change, told before; an apply of that or of nothing; and back to how a pipeline was."""

import json
from pathlib import Path
from typing import Any

import pytest

from api.client import Client
from api.config import Config
from tests.cli.conftest import Ma, use

PIPELINE = """\
apiVersion: michelangelo.api/v2
kind: Pipeline
metadata: {{name: late, namespace: {project}}}
spec:
  description: {text}
  manifest:
    type: PIPELINE_MANIFEST_TYPE_YAML
    content:
      "@type": type.googleapis.com/michelangelo.api.TypedStruct
      typeUrl: michelangelo.airflow/Steps
      value:
        steps:
          - {{name: fit, operator: train, with: {{seed: {seed}}}}}
"""
PROJECT = "apiVersion: michelangelo.api/v2\nkind: Project\nmetadata: {{name: {project}}}\n---\n"


@pytest.fixture
def project(served: Config, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> str:
    """The name of a project of the test's own, which is not there yet."""
    use(served, monkeypatch)
    return str(request.node.name).replace("_", "-")[:50].strip("-")


def written(folder: Path, project: str, text: str = "delays", seed: int = 1) -> str:
    path = folder / "late.yaml"
    path.write_text((PROJECT + PIPELINE).format(project=project, text=text, seed=seed))
    return str(path)


def planned(ma: Ma, folder: Path, file: str) -> Path:
    path = folder / "plan.json"
    ended = ma("plan", "-f", file, "-o", "json")
    assert ended.code == 0, ended.err
    path.write_text(ended.out)
    return path


def test_a_plan_tells_what_is_made_and_stores_nothing(ma: Ma, project: str, tmp_path: Path, served: Config) -> None:
    file = written(tmp_path, project)
    ended = ma("plan", "-f", file)
    assert ended.code == 0, ended.err
    shown = ended.out.splitlines()
    assert f"+ Project {project}" in shown
    assert "+ Pipeline late" in shown
    assert f"+ DAG {project}.late" in shown
    assert any(line.startswith("+ Revision pipeline-late-") for line in shown)
    assert '    spec.description: "delays"' in shown
    assert shown[-1] == "4 created, 0 changed, 0 removed, 0 unchanged"
    assert max(map(len, shown)) <= 80
    with Client.of(served) as api:
        assert api.find("Project", project, project) is None


def test_what_changes_is_told_field_by_field(ma: Ma, project: str, tmp_path: Path) -> None:
    assert ma("apply", "-f", written(tmp_path, project)).code == 0
    ended = ma("plan", "-f", written(tmp_path, project, text="x" * 90, seed=2))
    shown = ended.out.splitlines()
    assert f"= Project {project}" in shown
    assert "    steps[fit].with.seed: 1 -> 2" in shown
    at = shown.index("    spec.description:")
    assert shown[at + 1] == '      - "delays"'
    assert shown[at + 2].startswith('      + "xxx')
    assert shown[-1] == "1 created, 2 changed, 0 removed, 1 unchanged"
    assert max(map(len, shown)) <= 80


def test_a_plan_is_applied(ma: Ma, project: str, tmp_path: Path, served: Config) -> None:
    plan = planned(ma, tmp_path, written(tmp_path, project))
    ended = ma("apply", "--plan", str(plan))
    assert (ended.code, ended.out) == (0, f"Project {project} created\nPipeline late created\n")
    plan = planned(ma, tmp_path, written(tmp_path, project, text="more"))
    assert ma("apply", "--plan", str(plan)).out == f"Project {project} unchanged\nPipeline late configured\n"
    with Client.of(served) as api:
        assert api.get("Pipeline", project, "late").spec.description == "more"
    told = json.loads(plan.read_text())
    made = [change["name"] for change in told["changes"] if change["part"] == "REVISION"]
    with Client.of(served) as api:
        assert api.find("Revision", project, made[0]) is not None


def test_a_plan_of_another_world_is_refused_and_nothing_is_applied(
    ma: Ma, project: str, tmp_path: Path, served: Config
) -> None:
    assert ma("apply", "-f", written(tmp_path, project)).code == 0
    plan = planned(ma, tmp_path, written(tmp_path, project, text="planned"))
    assert ma("apply", "-f", written(tmp_path, project, text="somebody else's")).code == 0
    ended = ma("apply", "--plan", str(plan))
    assert ended.code == 1
    assert "PLAN_OUTDATED" in ended.err
    assert "  Pipeline late\n" in ended.err
    assert "`ma plan`" in ended.err
    with Client.of(served) as api:
        assert api.get("Pipeline", project, "late").spec.description == "somebody else's"
    # The same again, by what it makes: it is there by now.
    plan = planned(ma, tmp_path, written(tmp_path, f"{project}-2"))
    assert ma("apply", "--plan", str(plan)).code == 0
    assert "PLAN_OUTDATED" in ma("apply", "--plan", str(plan)).err


@pytest.mark.parametrize(
    ("text", "told"),
    [("{}", "is no plan"), ("[1]", "is no plan"), ("{", "is no JSON"), ('{"kind": "Plan"}', "is no plan")],
)
def test_what_is_no_plan_is_refused(ma: Ma, project: str, tmp_path: Path, text: str, told: str) -> None:
    path = tmp_path / "plan.json"
    path.write_text(text)
    ended = ma("apply", "--plan", str(path))
    assert ended.code != 0
    assert told in ended.err
    assert "Traceback" not in ended.err


def test_options_that_contradict_a_plan_are_refused(ma: Ma, project: str) -> None:
    assert ma("apply").code == 2
    assert ma("apply", "--plan", "p.json", "-f", "x.yaml").code == 2
    assert ma("apply", "--plan", "p.json", "--dry-run").code == 2
    assert ma("plan", "-f", "x.yaml", "-o", "wide").code == 2


def test_what_the_apply_refuses_the_plan_refuses(ma: Ma, project: str, tmp_path: Path) -> None:
    path = tmp_path / "late.yaml"
    path.write_text(PIPELINE.format(project=f"{project}-nowhere", text="a", seed=1))
    one, two = ma("plan", "-f", str(path)), ma("apply", "-f", str(path))
    assert (one.code, two.code) == (1, 1)
    assert "UNKNOWN_PROJECT" in one.err
    assert "UNKNOWN_PROJECT" in two.err
    path.write_text((PROJECT + PIPELINE).format(project=project, text="a", seed=1).replace("description", "descriptio"))
    ended = ma("plan", "-f", str(path))
    assert (ended.code, ended.out) == (1, "")
    assert "1 of 2 documents cannot be read: there is no plan" in ended.err


def test_a_pipeline_goes_back_to_how_it_was(ma: Ma, project: str, tmp_path: Path, served: Config) -> None:
    names: list[str] = []

    def revisions() -> list[Any]:
        ended = ma("revision", "list", "late", "-n", project, "-o", "json")
        assert ended.code == 0, ended.err
        return list(json.loads(ended.out)["items"])

    for seed in (1, 2, 3):
        assert ma("apply", "-f", written(tmp_path, project, seed=seed)).code == 0
        (new,) = [one["metadata"]["name"] for one in revisions() if one["metadata"]["name"] not in names]
        names.append(new)
    table = ma("revision", "list", "late", "-n", project).out
    assert table.index(names[2]) < table.index(names[1]) < table.rindex(names[0])

    ended = ma("revision", "diff", names[2], "-n", project)
    assert ended.out.splitlines() == [
        f"{names[1]} -> {names[2]}",
        "    manifest.content.value.steps[fit].with.seed: 2 -> 3",
    ]
    ended = ma("revision", "diff", names[2], names[0], "-n", project, "-o", "json")
    assert [(each["before"], each["after"]) for each in json.loads(ended.out)["fields"]] == [(1, 3)]

    ended = ma("pipeline", "rollback", "late", "--to", names[0], "-n", project, "--dry-run")
    assert f"= Revision {names[0]}" in ended.out
    assert "    steps[fit].with.seed: 3 -> 1" in ended.out
    short = names[0].rpartition("-")[2]
    ended = ma("pipeline", "rollback", "late", "--to", short, "-n", project)
    assert (ended.code, ended.out) == (0, f"Pipeline late rolled back: it is as in {names[0]}\n")
    with Client.of(served) as api:
        assert "number_value: 1" in str(_steps(api.get("Pipeline", project, "late")))
    assert len(revisions()) == 3, "going back makes no new revision"


def _steps(pipeline: Any) -> Any:
    from api.gen.michelangelo.api import typed_struct_pb2

    struct = typed_struct_pb2.TypedStruct()
    pipeline.spec.manifest.content.Unpack(struct)
    return struct


def test_a_revision_that_is_not_there_is_told_with_those_that_are(ma: Ma, project: str, tmp_path: Path) -> None:
    assert ma("apply", "-f", written(tmp_path, project)).code == 0
    ended = ma("pipeline", "rollback", "late", "--to", "nothing", "-n", project)
    assert ended.code == 1
    assert "there are pipeline-late-" in ended.err
    ended = ma("pipeline", "rollback", "late", "-n", project)
    assert "NO_GOOD_REVISION" in ended.err
