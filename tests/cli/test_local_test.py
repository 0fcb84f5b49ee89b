"""`ma pipeline test -f`: what cannot be tried out is said before anything is started."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PIPELINE = """
apiVersion: michelangelo.api/v2
kind: Pipeline
metadata: {{name: {name}, namespace: flights}}
spec:
  manifest:
    filePath: {template}
    content:
      "@type": type.googleapis.com/michelangelo.api.TypedStruct
      typeUrl: michelangelo.airflow/{kind}
      value: {value}
"""


def tried(folder: Path, *words: str) -> tuple[int, str]:
    ended = subprocess.run(
        [sys.executable, "-m", "api.cli.main", "pipeline", "test", *words],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert "Traceback" not in ended.stderr
    return ended.returncode, ended.stderr


def document(
    folder: Path, name: str = "train", template: str = "train", kind: str = "Template", value: str = "{}"
) -> Path:
    path = folder / f"{name}.yaml"
    path.write_text(PIPELINE.format(name=name, template=template, kind=kind, value=value))
    return path


@pytest.mark.parametrize(
    ("kind", "template", "value", "words"),
    [
        ("Steps", "", "{steps: []}", "at least one step"),
        ("Template", "", "{}", "names the template"),
        ("Template", "train_and_deploy", "{deployment: late}", "give its folder, or -p deployment="),
        ("Nonsense", "train", "{}", "must be a TypedStruct"),
    ],
)
def test_a_pipeline_that_cannot_be_tried_out_is_refused(
    tmp_path: Path, kind: str, template: str, value: str, words: str
) -> None:
    code, said = tried(tmp_path, "-f", str(document(tmp_path, "train", template, kind, value)))
    assert code == 2
    assert words in said


def test_of_several_pipelines_one_is_named(tmp_path: Path) -> None:
    document(tmp_path, "one")
    document(tmp_path, "two")
    code, said = tried(tmp_path, "-f", str(tmp_path))
    assert code == 2
    assert "one, two" in said
    code, said = tried(tmp_path, "three", "-f", str(tmp_path))
    assert code == 2
    assert "which pipeline?" in said


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    code, said = tried(tmp_path, "-f", str(tmp_path / "none.yaml"))
    assert code != 0
    assert "none.yaml" in said


def test_a_pipeline_in_python_runs_by_its_yaml() -> None:
    code, said = tried(ROOT, "-f", "examples/authored/converge/pipeline.yaml", "-p", "target=10")
    assert code == 0, said
    assert "ok       rounded" in said
