"""The tables of an EvaluationReport, for a terminal.  Reads charts; other chart types are for the UI."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

Table = tuple[Sequence[str], Sequence[Sequence[str]]]


def tables(report: Any) -> Iterator[Table]:
    """Yield header and rows of every table, and the scalars together as one."""
    scalars = []
    for chart in report.spec.charts:
        if chart.HasField("scalar"):
            scalars.append((chart.scalar.scalar_name or chart.title, _cell(chart.scalar.cell_value)))
        for table in [*([chart.table] if chart.HasField("table") else []), *chart.table_collection.tables]:
            yield list(table.column_names), [_padded(row, len(table.column_names)) for row in table.rows]
    if scalars:
        yield ("METRIC", "VALUE"), scalars


def _padded(row: Any, width: int) -> list[str]:
    cells = [_cell(value) for value in row.values][:width]
    return cells + [""] * (width - len(cells))


def _cell(value: Any) -> str:
    return str(value.str_value) or f"{value.number:.4g}"
