"""What docs/pipelines.md shows is true: its files are written, its commands are run, and they print what it says."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
PAGE = (ROOT / "docs" / "pipelines.md").read_text()
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
FILES = {text.splitlines()[0].removeprefix("# "): text for kind, text in BLOCKS if kind in ("python", "yaml")}
LOCAL = [
    (command.splitlines()[0], shown if kind == "text" else "")
    for (language, command), (kind, shown) in zip(BLOCKS, [*BLOCKS[1:], ("", "")], strict=True)
    if language == "sh" and command.startswith("ma pipeline test")
]
TIME = re.compile(r" +[0-9.]+ ms")
NEEDS_PLATFORM = [
    line.split("#")[0].split()
    for language, text in BLOCKS
    if language == "sh" and not text.startswith("ma pipeline test")
    for line in text.splitlines()
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    assert len(FILES) == len([kind for kind, _ in BLOCKS if kind in ("python", "yaml")])
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    return tmp_path


def ma(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "api.cli.main", *words],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={"PATH": "", "MA_HOME": str(folder / "home"), "MA_API_PORT": "1", "MA_API_HTTP_PORT": "1"},
    )


@pytest.mark.parametrize(("command", "shown"), LOCAL, ids=[command for command, _ in LOCAL])
def test_a_command_prints_what_the_guide_says(folder: Path, command: str, shown: str) -> None:
    words, _, said = command.partition("#")
    ended = ma(folder, *words.split()[1:])
    assert ended.returncode == (2 if "ends with 2" in said else 0), ended.stderr
    assert TIME.sub("", ended.stderr + ended.stdout) == TIME.sub("", shown)


@pytest.mark.parametrize("name", [name for name in FILES if name.endswith(".py")])
def test_a_file_runs(folder: Path, name: str) -> None:
    ended = subprocess.run([sys.executable, name], cwd=folder, capture_output=True, text=True, timeout=120, check=False)
    assert ended.returncode == 0, ended.stderr


@pytest.mark.parametrize("words", NEEDS_PLATFORM, ids=" ".join)
def test_what_needs_a_platform_is_understood_and_says_that_none_answers(folder: Path, words: list[str]) -> None:
    assert len(NEEDS_PLATFORM) == 3
    ended = ma(folder, *words[1:])
    assert ended.returncode == 3, ended.stderr
    assert "does not answer" in ended.stderr
