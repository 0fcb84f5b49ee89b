"""A page of the documentation, followed as its reader does: files written, commands run, in order.  Judges none."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from api.config import Config
from tests.pages import ROOT, blocks

PATIENCE_S = 600
_FILE = re.compile(r"^# (\S+\.(?:py|yaml))$", re.MULTILINE)


class Guide:
    """A page of docs/.  blocks: its code in order, each with the language that it is in."""

    def __init__(self, name: str) -> None:
        self.blocks: Sequence[tuple[str, str]] = blocks(f"docs/{name}")

    def begin_at(self, text: str) -> None:
        """Leave out the commands before the first that has this in it; files stay."""
        first = next(place for place, (kind, block) in enumerate(self.blocks) if kind == "sh" and text in block)
        self.blocks = [block for place, block in enumerate(self.blocks) if block[0] != "sh" or place >= first]

    def write(self, folder: Path) -> None:
        """Write every file of the page."""
        for _, text in self.blocks:
            _write(text, folder)

    def follow(self, config: Config, folder: Path, replaced: Mapping[str, str] | None = None) -> str:
        """Write each file and run each command when its turn comes; return what the commands printed.

        Python without a file's name is run too.  replaced: what the page says of ports that are this platform's own.
        """
        environ = {**os.environ, **config.environ(), "MA_TOKEN": "", "PYTHONPATH": str(ROOT)}
        environ["PATH"] = f"{Path(sys.executable).parent}:{environ['PATH']}"
        programs = {"sh": ["bash", "-euo", "pipefail", "-c"], "python": [sys.executable, "-c"]}
        told = ""
        for kind, text in self.blocks:
            if _write(text, folder) or kind not in programs:
                continue
            for said, ours in (replaced or {}).items():
                text = text.replace(said, ours)
            ended = subprocess.run(
                [*programs[kind], text],
                cwd=folder,
                env=environ,
                capture_output=True,
                text=True,
                timeout=PATIENCE_S,
                check=False,
            )
            assert ended.returncode == 0, f"{text}\n{ended.stdout}{ended.stderr}"
            told += ended.stdout
        return told


def _write(text: str, folder: Path) -> bool:
    """Write a block that names its file in a line; False if it names none."""
    found = _FILE.search(text)
    if found:
        (folder / found[1]).write_text(text)
    return bool(found)
