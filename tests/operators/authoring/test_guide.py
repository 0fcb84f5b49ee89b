"""What the guides to pipelines in Python show is true: files are written, commands run, and they print what is said.

What needs a platform is only understood here; `tests/e2e/test_guides.py` runs it.
"""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import typer.main

from api.cli.main import app
from tests.pages import blocks


class Guide:
    """A page: its files, and the commands of `ma pipeline test` with what they print."""

    def __init__(self, name: str) -> None:
        self.name = name
        shown_on = blocks(f"docs/{name}.md")
        written = [text for kind, text in shown_on if kind in ("python", "yaml")]
        self.files = {text.splitlines()[0].removeprefix("# "): text for text in written}
        assert len(self.files) == len(written)
        self.local = [
            (command.splitlines()[0], shown if kind == "text" else "")
            for (language, command), (kind, shown) in zip(shown_on, [*shown_on[1:], ("", "")], strict=True)
            if language == "sh" and command.startswith("ma pipeline test")
        ]
        lines = [line.split("#")[0] for language, text in shown_on if language == "sh" for line in text.splitlines()]
        self.commands = [shlex.split(line) for line in lines if line.startswith("ma ")]

    def __str__(self) -> str:
        return self.name


GUIDES = [Guide("pipelines"), Guide("from-notebook")]
VARIES = {"pipelines": re.compile(r" +[0-9.]+ ms"), "from-notebook": re.compile(r" +[0-9.]+ ms|sha256:[0-9a-f]{12}")}
"""Times; and digests of tables, in which a release of pyarrow may change a byte."""


@pytest.fixture
def folder(tmp_path: Path, guide: Guide) -> Path:
    for name, text in guide.files.items():
        (tmp_path / name).write_text(text)
    return tmp_path


@pytest.mark.parametrize(
    ("guide", "command", "shown"), [(guide, *one) for guide in GUIDES for one in guide.local], ids=str
)
def test_a_command_prints_what_the_guide_says(guide: Guide, folder: Path, command: str, shown: str) -> None:
    words, _, said = command.partition("#")
    ended = subprocess.run(
        [sys.executable, "-m", "api.cli.main", *words.split()[1:]],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={"PATH": "", "MA_HOME": str(folder / "home"), "MA_API_PORT": "1", "MA_API_HTTP_PORT": "1"},
    )
    assert ended.returncode == (2 if "ends with 2" in said else 0), ended.stderr
    varies = VARIES[guide.name]
    assert varies.sub("", ended.stderr + ended.stdout) == varies.sub("", shown)


@pytest.mark.parametrize(
    ("guide", "name"),
    [(guide, name) for guide in GUIDES for name in guide.files if name.endswith(".py")],
    ids=str,
)
def test_a_file_runs(guide: Guide, folder: Path, name: str) -> None:
    ended = subprocess.run([sys.executable, name], cwd=folder, capture_output=True, text=True, timeout=120, check=False)
    assert ended.returncode == 0, ended.stderr


@pytest.mark.parametrize("guide", GUIDES, ids=str)
def test_every_command_is_understood(guide: Guide) -> None:
    assert len(guide.commands) > 4
    for words in guide.commands:
        command, rest = typer.main.get_command(app), words[1:]
        while hasattr(command, "commands"):
            command, rest = command.commands[rest[0]], rest[1:]
        assert command.make_context(words[0], rest).params
