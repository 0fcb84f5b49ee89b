"""Pages of the documentation as their readers see them: blocks of code, each with the language that it is in."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(page: str) -> list[tuple[str, str]]:
    """Return the language and the text of each block.  page: its path below the repository's root."""
    return _BLOCK.findall((ROOT / page).read_text())


def blocks_in(language: str, page: str) -> list[str]:
    """Return the text of each block that is in a language."""
    return [text for of, text in blocks(page) if of == language]
