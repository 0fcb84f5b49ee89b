"""An exception as plain data: its chain, the lines of source it went through, and the last line of the user's own code.

Holds no values of variables: they may be rows of data or secrets.
"""

from __future__ import annotations

import linecache
import re
import traceback
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from api.evidence import is_users

STACKS = "stacks"
STACK_BEGINS = "(most recent call first)"
STACK_LINE = re.compile(r'  File "(?P<file>[^"]*)", line (?P<line>\d+) in (?P<function>.*)')
MOST_LINKS = 5
MOST_FRAMES = 12
LONGEST_MESSAGE = 1000
LONGEST_LINE = 200
AROUND = 2
# The interpreter writes to them for as long as the process lives.
_open: list[IO[str]] = []


def described(error: BaseException, root: str = "") -> dict[str, Any]:
    """Return {"chain", "at"}: the exceptions from the raised one to its first cause, and where user code stood.

    root: folder of the user's code.  at: {"file", "line", "function", "source"}, without it if no line was the user's.
    """
    chain = [_link(one) for one in _chain(error)]
    places = [place for link in reversed(chain) for place in reversed(link["frames"]) if is_users(place["file"], root)]
    found: dict[str, Any] = {"chain": chain}
    if places:
        found["at"] = {**places[0], "source": _around(places[0])}
    return found


def _chain(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    one: BaseException | None = error
    while one is not None and id(one) not in seen and len(seen) < MOST_LINKS:
        seen.add(id(one))
        yield one
        if isinstance(one, BaseExceptionGroup):
            one = one.exceptions[0]
        else:
            one = one.__cause__ or (None if one.__suppress_context__ else one.__context__)


def _link(error: BaseException) -> dict[str, Any]:
    link: dict[str, Any] = {
        "type": _name(type(error)),
        "bases": [_name(base) for base in type(error).__mro__[1:-2]],
        "message": _message(error),
        "frames": _frames(error),
    }
    for name in ("errno", "name", "code"):
        value = getattr(error, name, None)
        if isinstance(value, int | str) and not isinstance(value, bool):
            link[name] = value
    return link


def _message(error: BaseException) -> str:
    try:
        return str(error)[:LONGEST_MESSAGE]
    except Exception as broken:
        return f"(its text cannot be made: {type(broken).__name__})"


def _name(kind: type) -> str:
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def _frames(error: BaseException) -> list[dict[str, Any]]:
    frames = [
        {
            "file": frame.filename,
            "line": frame.lineno or 0,
            "function": frame.name,
            "text": (frame.line or "")[:LONGEST_LINE],
        }
        for frame in traceback.extract_tb(error.__traceback__)
        if "importlib._bootstrap" not in frame.filename
    ]
    if isinstance(error, SyntaxError) and error.filename:
        text = (error.text or "").strip()[:LONGEST_LINE]
        frames.append({"file": error.filename, "line": error.lineno or 0, "function": "<module>", "text": text})
    return frames[-MOST_FRAMES:]


def _around(place: Mapping[str, Any]) -> list[str]:
    """Return the lines around a place, each with its number."""
    linecache.checkcache(place["file"])
    first = max(1, place["line"] - AROUND)
    lines = linecache.getlines(place["file"])[first - 1 : place["line"] + AROUND]
    return [f"{number:>4} {line.rstrip()[:LONGEST_LINE]}" for number, line in enumerate(lines, first)]


def stack_in(path: Path, root: str = "") -> list[dict[str, Any]]:
    """Return the frames that `stacks_to` left, innermost first; `users`: whether a line is the user's own."""
    try:
        text = path.read_text(errors="replace")
    except OSError:
        return []
    frames: list[dict[str, Any]] = []
    for line in text.rpartition(STACK_BEGINS)[2].splitlines()[1:]:
        match = STACK_LINE.match(line)
        if match is None:
            break
        number = int(match["line"])
        text = linecache.getline(match["file"], number).strip()[:LONGEST_LINE]
        frames.append({"file": match["file"], "line": number, "function": match["function"], "text": text})
    return [{**frame, "users": is_users(frame["file"], root)} for frame in frames[:MOST_FRAMES]]


def stacks_to(path: Path) -> None:
    """Write where this process stands to `path` when a signal of death or SIGUSR2 comes."""
    import faulthandler
    import signal

    file = path.open("w")
    faulthandler.enable(file, all_threads=False)
    if hasattr(faulthandler, "register"):
        faulthandler.register(signal.SIGUSR2, file, all_threads=False)
    _open.append(file)
