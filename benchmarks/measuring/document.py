"""Writes results into a document between markers; the text around them is people's and stays as it is.

A benchmark's place is `<!-- benchmark NAME -->` to `<!-- end NAME -->`.  One that has not been run keeps what is there.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from benchmarks.measuring.results import Result
from benchmarks.measuring.tables import markdown

PLACE = re.compile(r"<!-- benchmark (?P<name>[\w-]+) -->\n(?P<body>.*?)<!-- end (?P=name) -->", re.DOTALL)


def places(text: str) -> list[str]:
    """Return the benchmarks that a document has a place for."""
    return [match["name"] for match in PLACE.finditer(text)]


def filled(text: str, results: Iterable[Result]) -> str:
    """Return the document with the tables of `results`.  Raises ValueError for one without a place."""
    named = {result.name: result for result in results}
    missing = sorted(named.keys() - set(places(text)))
    if missing:
        raise ValueError(f"there is no place for {', '.join(missing)}: add <!-- benchmark {missing[0]} --> and its end")

    def table(match: re.Match[str]) -> str:
        name = match["name"]
        if name not in named:
            return match[0]
        return f"<!-- benchmark {name} -->\n\n{markdown(named[name])}\n\n<!-- end {name} -->"

    return PLACE.sub(table, text)


def fill(path: Path, results: Iterable[Result]) -> None:
    """Fill a file.  Raises ValueError, having changed nothing, for a result without a place."""
    path.write_text(filled(path.read_text(), results))
