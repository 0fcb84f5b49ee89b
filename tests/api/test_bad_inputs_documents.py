"""What `ma apply` reads and sends: each bad value is named with its line, and one bad file spoils no other."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from api.cli import documents, exits
from api.cli.main import main
from api.kinds import kinds
from tests.api.running import Served
from tests.patience import soon

FILES = 1_000
HEAD = "apiVersion: michelangelo.api/v2\nkind: {kind}\nmetadata: {{name: {name}, namespace: {project}}}\nspec:\n"
FAMILY = HEAD + "  name: {family}\n"
Ma = Callable[..., tuple[int, str, str]]


@pytest.fixture
def ma(served: Served, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Ma:
    """Run `ma` in this process against the server; returns code, output and errors."""
    home = tmp_path / "home"
    home.mkdir()
    for name, value in {"MA_HOME": str(home), "MA_API_PORT": served.address.rsplit(":", 1)[1]}.items():
        monkeypatch.setenv(name, value)

    def run(*arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        code = main(arguments)
        shown = capsys.readouterr()
        return code, shown.out, shown.err

    return run


def family(project: str, name: str) -> str:
    return FAMILY.format(kind="ModelFamily", name=name, project=project, family="family")


BAD: Mapping[int, Callable[[str, str], str]] = {
    17: lambda project, text: "not: [closed",
    500: lambda project, text: family(project, "Bad Name"),
    999: lambda project, text: text + "  descripton: x\n",
}


def test_three_bad_files_of_a_thousand_leave_the_others(served: Served, project: str, ma: Ma, tmp_path: Path) -> None:
    folder = tmp_path / "files"
    folder.mkdir()
    for number in range(FILES):
        text = family(project, f"m-{number}")
        if number in BAD:
            text = BAD[number](project, text)
        (folder / f"{number:04}.yaml").write_text(text)
    code, out, err = ma("apply", "-f", str(folder))
    assert code == exits.REFUSED
    assert "0017.yaml:" in err
    assert "0500.yaml:1: ModelFamily Bad Name refused" in err
    assert "0999.yaml:6: spec.descripton: unknown field: did you mean description?" in err
    assert "Traceback" not in err
    assert out.splitlines()[-1] == f"{FILES - 3} of {FILES} documents applied"
    assert len(served.run(served.resources.list("ModelFamily")).items) == FILES - 3


RUN = HEAD.format(kind="PipelineRun", name="run", project="shop")
MODEL = HEAD.format(kind="Model", name="model", project="shop")


@pytest.mark.parametrize(
    ("text", "line", "path"),
    [
        (RUN + "  input: {kw_args: {rate: .nan}}\n", 5, "spec.input"),
        (RUN + "  input:\n    kw_args: {rates: [1, -.inf]}\n", 6, "spec.input"),
        (RUN + "  input: {kw_args: {rate: 1e400}}\n", 5, "spec.input"),
        (RUN + f"  input: {{kw_args: {{rows: {'9' * 5_000}}}}}\n", 5, "spec.input"),
        (MODEL + f"  revision_id: {'9' * 5_000}\n", 5, "spec.revision_id"),
        (MODEL + "  revision_id: 2147483648\n", 5, "spec.revision_id"),
        (MODEL + "  revision_id: 9007199254740993\n", 5, "spec.revision_id"),
        (MODEL + '  description: "\\ud800"\n', 5, "spec.description"),
        (MODEL + "  algorithm: {}\n", 5, "spec.algorithm"),
        (MODEL + "  kind: LINEAR\n", 5, "spec.kind"),
        (MODEL + "  owner: me\n", 5, "spec.owner"),
    ],
)
def test_a_value_that_cannot_be_sent_is_named_with_its_line(tmp_path: Path, text: str, line: int, path: str) -> None:
    (tmp_path / "file.yaml").write_text(text)
    began = time.monotonic()
    (document,) = documents.load([str(tmp_path / "file.yaml")])
    assert time.monotonic() - began < soon(0.5)
    (fault,) = document.faults
    assert fault.startswith(f"{tmp_path}/file.yaml:{line}: {path}")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('{"a": 1} trailing', "not YAML"),
        ('{"a": 1}\n{"b": 2}', "not YAML"),
        ('{"kind": "Project", "kind": "Model"}', "is given twice"),
        ("[" * 100_000, "nested deeper"),
        ("{a: " * 10_000, "nested deeper"),
        ("a: " + "x" * 5 * 2**20, "larger than 4 MiB"),
    ],
    ids=["trailing text", "two values", "a key twice", "deep list", "deep fields", "5 MiB"],
)
def test_a_text_that_is_no_document_is_refused_in_time(tmp_path: Path, text: str, told: str) -> None:
    (tmp_path / "file.yaml").write_text(text)
    began = time.monotonic()
    (document,) = documents.load([str(tmp_path / "file.yaml")])
    assert time.monotonic() - began < soon(2)
    assert told in document.faults[0]


def test_a_nul_character_is_refused_by_the_server(served: Served, project: str, ma: Ma, tmp_path: Path) -> None:
    (tmp_path / "file.yaml").write_text(family(project, "nul") + '  description: "a\\0b"\n')
    before = served.log()
    code, _, err = ma("apply", "-f", str(tmp_path / "file.yaml"))
    assert code == exits.REFUSED
    assert "BAD_TEXT" in err
    assert "spec.description" in err
    assert served.log() == before


def test_json_is_read_as_yaml_is(served: Served, project: str, ma: Ma, tmp_path: Path) -> None:
    made = {
        "apiVersion": "michelangelo.api/v2",
        "kind": "ModelFamily",
        "metadata": {"name": "json", "namespace": project, "labels": {"on": "no", "empty": ""}},
        "spec": {"description": 'größe \U0001f600 "quoted" \\ back'},
    }
    (tmp_path / "file.yaml").write_text(json.dumps(made, ensure_ascii=False))
    code, _, err = ma("apply", "-f", str(tmp_path / "file.yaml"))
    assert code == exits.OK, err
    stored = served.get("ModelFamily", project, "json")
    assert stored.spec.description == 'größe \U0001f600 "quoted" \\ back'
    assert stored.metadata.labels["on"] == "no"


def test_a_dry_run_of_many_documents_writes_nothing(served: Served, project: str, ma: Ma, tmp_path: Path) -> None:
    text = "---\n".join(family(project, f"dry-{number}") for number in range(20))
    (tmp_path / "file.yaml").write_text(text)
    before = served.log()
    code, out, _ = ma("apply", "--dry-run", "-f", str(tmp_path / "file.yaml"))
    assert code == exits.OK
    assert "20 of 20" in out
    assert served.log() == before


@pytest.mark.parametrize("kind", sorted(kinds()))
def test_every_kind_can_be_applied_empty_or_says_what_it_needs(
    served: Served, project: str, ma: Ma, tmp_path: Path, kind: str
) -> None:
    name = project if kind == "Project" else "empty"
    head = HEAD.format(kind=kind, name=name, project=project).replace(
        "michelangelo.api/v2", kinds()[kind].group_version
    )
    (tmp_path / "file.yaml").write_text(head + "  {}\n")
    code, out, err = ma("apply", "-f", str(tmp_path / "file.yaml"))
    assert "Traceback" not in err
    assert "INTERNAL" not in err
    if code != exits.OK:
        assert code == exits.REFUSED
        assert "refused" in err
        assert "spec." in err or "metadata." in err
    else:
        assert out.split()[-1] in ("created", "unchanged")
