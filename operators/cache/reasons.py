"""Why a kept output is or is not what a step would make: what differs, part by part, in words.  Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from difflib import SequenceMatcher
from typing import TypeVar

from operators.cache.parts import Parts

MATCHED = "same code, inputs, environment and version"
NOTHING = "no earlier output of this step is kept"
MOST_TOLD = 10
SHOWN = 40
SECONDS = ((86_400, "d"), (3600, "h"), (60, "min"), (1, "s"))

T = TypeVar("T")


def differences(earlier: Parts, now: Parts, *, lines: bool = True) -> list[str]:
    """Return what changed, each part once; nothing if nothing did.  lines: count those of code that differ."""
    found = [*_inputs(earlier, now), *_code(earlier, now, lines), *_environment(earlier, now)]
    if earlier.version != now.version:
        found.append(f"declared version: {_shown(earlier.version)} -> {_shown(now.version)}")
    # What is read from the files says it better; this is what they do not show, such as a computed value.
    if earlier.traced != now.traced and earlier.code == now.code:
        found.append("code changed in a value that it computes when it is imported")
    return found


def _inputs(earlier: Parts, now: Parts) -> Iterator[str]:
    for name, what in _changed(earlier.inputs, now.inputs):
        yield f"inputs.{name} {what}"


def _code(earlier: Parts, now: Parts, lines: bool) -> Iterator[str]:
    for name, what in _changed(earlier.code, now.code):
        if what == "changed" and lines:
            count = changed_lines(earlier.code[name], now.code[name])
            what = f"changed ({count} line{'s' if count > 1 else ''})"
        yield f"code of {name} {what}"


def _environment(earlier: Parts, now: Parts) -> Iterator[str]:
    for name, what in _changed(earlier.environment, now.environment):
        if what == "changed":
            what = f"{_shown(earlier.environment[name])} -> {_shown(now.environment[name])}"
        yield f"environment: {name} {what}"


def _changed(earlier: Mapping[str, str], now: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    for name in sorted({*earlier, *now}):
        if name not in earlier:
            yield name, "is new"
        elif name not in now:
            yield name, "is gone"
        elif earlier[name] != now[name]:
            yield name, "changed"


def changed_lines(earlier: str, now: str) -> int:
    """Return how many lines differ: a line that was replaced counts once."""
    match = SequenceMatcher(None, earlier.splitlines(), now.splitlines(), autojunk=False)
    return sum(max(b - a, d - c) for what, a, b, c, d in match.get_opcodes() if what != "equal")


def nearest(candidates: Sequence[tuple[T, Parts]], now: Parts) -> T | None:
    """Return the candidate with the fewest differences, of equal ones the first; all parts are summaries."""
    return min(candidates, key=lambda each: len(differences(each[1], now, lines=False)), default=(None, now))[0]


def text(found: Sequence[str]) -> str:
    """Return differences in one line."""
    more = [f"and {len(found) - MOST_TOLD} more"] if len(found) > MOST_TOLD else []
    return "; ".join([*found[:MOST_TOLD], *more])


def expired(since: datetime, now: datetime) -> str:
    """Return that an entry was kept no longer than until `since`."""
    return f"expired {span(now - since)} ago"


def span(time: timedelta) -> str:
    """Return a time in its largest unit."""
    seconds = max(0, int(time.total_seconds()))
    length, unit = next(((each, name) for each, name in SECONDS if seconds >= each), (1, "s"))
    return f"{seconds // length} {unit}"


def _shown(value: str) -> str:
    return value if len(value) <= SHOWN else value[: SHOWN - 1] + "…"
