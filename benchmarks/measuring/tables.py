"""Figures as a table of 80 columns for terminals, and as Markdown.  Computes nothing that a figure does not say."""

from __future__ import annotations

import statistics
import textwrap
from collections.abc import Sequence

from benchmarks.measuring.figures import Figure, Goal, Ratio
from benchmarks.measuring.results import Result

WIDTH = 80
GAP = "  "
HEADER = ("median of rounds", "ours", "peer", "times better (95 %)", "goal")
NONE = "-"


def text(result: Result) -> str:
    """Return the result for a terminal: no line is longer than 80 columns."""
    rows = _rows(result)
    widths = [max(len(row[place]) for row in rows) for place in range(len(rows[0]))]
    widths[0] = min(widths[0], WIDTH - sum(widths[1:]) - len(GAP) * (len(widths) - 1))
    lines = [result.title, f"peer: {result.peer}", ""]
    lines += [GAP.join(_fit(cell, width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    lines += ["", _loads(result), *_warning(result), *result.notes]
    return "\n".join(part for line in lines for part in _wrapped(line))


def markdown(result: Result) -> str:
    """Return the result as a Markdown table with the conditions under which it was measured."""
    header, *rows = _rows(result)
    rule = ["---", *("---:" for _ in header[1:])]
    lines = [f"Peer: {result.peer}.", ""]
    lines += ["| " + " | ".join(_escaped(cell) for cell in row) + " |" for row in (header, rule, *rows)]
    machine = result.machine
    where = (
        f"{result.measured_at[:10]}, revision `{result.revision}`, {machine.cores} cores of {machine.processor}, "
        f"{machine.memory_gib:g} GiB, Python {machine.python}"
    )
    lines += ["", f"`{result.command}`: {where}. {_loads(result)}"]
    lines += [f"**{line}**" for line in _warning(result)]
    if result.notes:
        lines += ["", *(f"- {note}" for note in result.notes)]
    return "\n".join(lines)


def _rows(result: Result) -> list[list[str]]:
    """Return header and rows, without the columns in which no figure has anything."""
    rows = [cells(figure) for figure in result.figures]
    kept = [place for place in range(len(HEADER)) if any(row[place] != NONE for row in rows)]
    return [[row[place] for place in kept] for row in (HEADER, *rows)]


def _escaped(cell: str) -> str:
    """Return a cell of Markdown: what is indented in a terminal is so there too."""
    indent = len(cell) - len(cell.lstrip())
    return "&nbsp;" * indent + cell.lstrip().replace("|", "\\|")


def cells(figure: Figure) -> tuple[str, ...]:
    """Return the cells of a figure's row."""
    peer = quantity(statistics.median(figure.peer), figure.unit) if figure.peer else NONE
    ours = quantity(statistics.median(figure.ours), figure.unit)
    return figure.name, ours, peer, _times(figure.ratio()), _goal(figure)


def quantity(value: float, unit: str) -> str:
    """Return a value with three significant digits and its unit: `0.0812 ms`, `5,210 /s`, `12.0 s`."""
    return f"{number(value)} {unit}".rstrip()


def number(value: float) -> str:
    """Return a value with three significant digits; whole from 100 on."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    if value == 0:
        return "0"
    digits = 2 - _magnitude(value)
    return f"{value:.{digits}f}"


def _magnitude(value: float) -> int:
    """Return the power of ten of the first digit, after rounding to three digits."""
    return int(f"{abs(value):.2e}".partition("e")[2])


def _times(ratio: Ratio | None) -> str:
    if ratio is None:
        return NONE
    if ratio.low is None or ratio.high is None:
        return f"{number(ratio.median)} (few rounds)"
    return f"{number(ratio.median)} ({number(ratio.low)}-{number(ratio.high)})"


def _goal(figure: Figure) -> str:
    if figure.goal is None:
        return NONE
    verdict = {True: "met", False: "missed", None: "?"}[figure.met()]
    return f"{_wanted(figure.goal, figure.unit)} {verdict}"


def _wanted(goal: Goal, unit: str) -> str:
    if goal.kind == "times":
        return f">={goal.value:g}x"
    return f"{'<=' if goal.kind == 'most' else '>='}{quantity_plain(goal.value, unit)}"


def quantity_plain(value: float, unit: str) -> str:
    """Return a round value with its unit: `1 s`."""
    return f"{value:g} {unit}".rstrip()


def _loads(result: Result) -> str:
    before, after = (", ".join(f"{value:.2f}" for value in loads) for loads in (result.load_before, result.load_after))
    return f"Load average before: {before}; after: {after}."


def _warning(result: Result) -> list[str]:
    if result.quiet:
        return []
    return ["The machine was busy before this began: these figures only show that it works."]


def _fit(cell: str, width: int) -> str:
    return (cell if len(cell) <= width else cell[: width - 1] + "~").ljust(width)


def _wrapped(line: str) -> Sequence[str]:
    return textwrap.wrap(line, WIDTH) if len(line) > WIDTH else [line]
