"""An artifact is loaded whole and unchanged, or refused with the reason."""

import json
from pathlib import Path

import pytest

from operators.features import artifact

FILES = dict.fromkeys(artifact.REQUIRED, b"{}")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "model"
    artifact.write(made, FILES, name="late", created="2026-01-01T00:00:00+00:00")
    return made


def reason(folder: Path) -> str:
    with pytest.raises(artifact.ArtifactError) as refused:
        artifact.load(str(folder))
    return refused.value.reason


@pytest.mark.parametrize("prefix", ["", "file://"])
def test_what_was_written_is_loaded(folder: Path, prefix: str) -> None:
    loaded = artifact.load(f"{prefix}{folder}")
    assert (loaded.name, dict(loaded.files)) == ("late", FILES)


def test_a_changed_byte_is_noticed(folder: Path) -> None:
    (folder / "model.onnx").write_bytes(b"{ }")
    assert reason(folder) == "DIGEST_MISMATCH"


@pytest.mark.parametrize("name", artifact.REQUIRED)
def test_a_missing_file_is_noticed(folder: Path, name: str) -> None:
    (folder / name).unlink()
    assert reason(folder) == "MALFORMED_ARTIFACT"


def test_a_file_that_nobody_listed_is_noticed(folder: Path) -> None:
    (folder / "extra.json").write_text("{}")
    assert reason(folder) == "MALFORMED_ARTIFACT"


@pytest.mark.parametrize("name", ["model.pkl", "MODEL.PKL", "weights.pt", "a/b.joblib", "c.npy"])
def test_a_format_that_can_run_code_is_refused_before_anything_is_read(folder: Path, name: str) -> None:
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_bytes(b"cos\nsystem\n(S'touch /tmp/never'\ntR.")
    assert reason(folder) == "UNSAFE_FORMAT"


def test_an_address_without_anything_is_said(tmp_path: Path) -> None:
    assert reason(tmp_path / "nowhere") == "ARTIFACT_NOT_FOUND"


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": 9}', '{"format": 1, "name": "x", "created": "y"}'])
def test_a_manifest_that_is_none_is_refused(folder: Path, text: str) -> None:
    (folder / artifact.MANIFEST).write_text(text)
    assert reason(folder) == "MALFORMED_ARTIFACT"


def test_writing_again_replaces_and_leaves_nothing_behind(folder: Path) -> None:
    artifact.write(folder, {**FILES, "graph.json": b"[]"}, name="late", created="later")
    assert artifact.load(str(folder)).files["graph.json"] == b"[]"
    assert [path.name for path in folder.parent.iterdir()] == ["model"]
    assert json.loads((folder / artifact.MANIFEST).read_text())["created"] == "later"
