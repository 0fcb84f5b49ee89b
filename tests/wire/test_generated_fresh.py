"""`api/gen` is what `proto/generate.py` makes of `proto/` today.  It never writes into the repository."""

import importlib.util
import shutil
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]
GENERATED = ROOT / "api" / "gen"


@pytest.fixture
def generator(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The generator, with the protoc plugins of this interpreter's environment."""
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent), prepend=":")
    spec = importlib.util.spec_from_file_location("generate", ROOT / "proto" / "generate.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def contents(folder: Path) -> dict[str, bytes]:
    """Return the bytes of every source file below a folder by relative path."""
    sources = [*folder.rglob("*.py"), *folder.rglob("*.pyi")]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sources}


def test_generating_again_changes_no_byte(generator: ModuleType, tmp_path: Path) -> None:
    generator.generate(tmp_path / "gen")
    fresh, kept = contents(tmp_path / "gen"), contents(GENERATED)
    assert sorted(fresh) == sorted(kept)
    assert [path for path in fresh if fresh[path] != kept[path]] == []


def test_a_changed_contract_changes_its_module(
    generator: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(ROOT / "proto", tmp_path / "proto")
    source = tmp_path / "proto" / "michelangelo" / "api" / "v2" / "user.proto"
    source.write_text(source.read_text() + "\nmessage Extra {}\n")
    monkeypatch.setattr(generator, "PROTO", tmp_path / "proto")
    generator.generate(tmp_path / "gen")
    fresh, kept = contents(tmp_path / "gen"), contents(GENERATED)
    assert {path for path in fresh if fresh[path] != kept[path]} == {
        "michelangelo/api/v2/user_pb2.py",
        "michelangelo/api/v2/user_pb2.pyi",
    }


def test_what_stood_there_before_is_gone(generator: ModuleType, tmp_path: Path) -> None:
    stale = tmp_path / "gen" / "michelangelo" / "api" / "v2" / "retired_pb2.py"
    stale.parent.mkdir(parents=True)
    stale.write_text("")
    generator.generate(tmp_path / "gen")
    assert not stale.exists()
