"""How `ma` shows things: tables that fit the terminal, durations, JSON and YAML.  Knows no kind."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Sequence
from typing import Any

GAP = "  "
NARROWEST = 8


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print rows under a header.  On a terminal the widest columns are cut until a row fits; a pipe gets everything."""
    cells = [[_single_line(cell) for cell in row] for row in (header, *rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(header))]
    if sys.stdout.isatty():
        _narrow(widths, shutil.get_terminal_size((80, 24)).columns)
    for row in cells:
        shown = [_cut(cell, width).ljust(width) for cell, width in zip(row, widths, strict=True)]
        print(GAP.join(shown).rstrip())


def duration(seconds: float) -> str:
    """`0.4s`, `12s`, `3m05s`, `2h10m`, `4d03h`."""
    if seconds < 10:
        return f"{max(seconds, 0):.1f}s"
    whole = int(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    if whole < 86400:
        return f"{whole // 3600}h{whole % 3600 // 60:02d}m"
    return f"{whole // 86400}d{whole % 86400 // 3600:02d}h"


def as_json(value: Any) -> str:
    """Return JSON as people and `jq` like it."""
    return json.dumps(value, indent=2, ensure_ascii=False)


def as_yaml(value: Any) -> str:
    """Return YAML that `ma apply` reads back to the same value."""
    import yaml

    return str(yaml.safe_dump(value, sort_keys=False, allow_unicode=True, width=100)).rstrip("\n")


def _narrow(widths: list[int], room: int) -> None:
    while sum(widths) + len(GAP) * (len(widths) - 1) > room and max(widths) > NARROWEST:
        widths[widths.index(max(widths))] -= 1


def _cut(cell: str, width: int) -> str:
    return cell if len(cell) <= width else cell[: width - 1] + "~"


def _single_line(cell: str) -> str:
    """No control character of a stored text reaches the terminal."""
    return "".join(char if char.isprintable() else " " for char in cell)
