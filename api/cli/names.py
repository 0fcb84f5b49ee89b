"""What people call kinds and objects on the command line, and what they mean.  Reads the registry only."""

from __future__ import annotations

import difflib

from api.cli.exits import USAGE, Failure
from api.kinds import Kind, kinds


def kind(text: str) -> Kind:
    """Return the kind of `pipelineruns`, `pipeline_run`, `PipelineRun`, `pr` ...  Raises Failure with the nearest."""
    known = _spellings()
    wanted = text.lower().replace("-", "").replace("_", "")
    if wanted in known:
        return known[wanted]
    near = difflib.get_close_matches(wanted, known, n=1, cutoff=0.5)
    hint = f": did you mean {known[near[0]].plural}?" if near else ""
    raise Failure(f"unknown kind {text[:64]!r}{hint}", f"kinds: {', '.join(k.plural for k in _all())}", code=USAGE)


def _all() -> list[Kind]:
    return list(kinds().values())


def _spellings() -> dict[str, Kind]:
    """Every name of every kind; initials (`pr`) where one kind alone has them."""
    found: dict[str, Kind] = {}
    initials: dict[str, list[Kind]] = {}
    for item in _all():
        short = "".join(char for char in item.name if char.isupper()).lower()
        initials.setdefault(short, []).append(item)
        for name in (item.name, item.singular, item.plural):
            found[name.lower().replace("_", "")] = item
    return {short: items[0] for short, items in initials.items() if len(items) == 1 and len(short) > 1} | found
