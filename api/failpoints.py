"""Places where a test lets the process die, stand still or fail.  Nothing happens unless MA_FAILPOINTS is set.

MA_FAILPOINTS="trigger.before_post=kill@3;store.after_commit=sleep(0.05)": at the third pass the process gets SIGKILL,
and each commit is followed by 50 ms.  Without `@n` an action is taken at every pass.  `fail` raises Unavailable.
"""

from __future__ import annotations

import os
import re
import signal
import time
from collections import Counter
from collections.abc import Callable

from api.errors import Unavailable

VARIABLE = "MA_FAILPOINTS"
# Every name that stands in the code, and no other: `tests/robustness/test_failpoints.py` compares.
KNOWN = frozenset(
    {
        "store.before_commit",
        "store.after_commit",
        "trigger.before_post",
        "trigger.after_post",
        "status.before_write",
        "finalizer.before_removal",
        "notify.before_send",
        "notify.after_send",
        "event.after_publish",
        "event.before_run",
        "event.after_run",
        "event.before_position",
    }
)
RULE = re.compile(
    r"\s*(?P<name>[\w.]+)\s*=\s*(?P<action>kill|fail|sleep\((?P<s>\d+(?:\.\d+)?)\))(?:@(?P<n>[1-9]\d*))?\s*"
)


def parse(text: str) -> dict[str, Callable[[int], None]]:
    """Return what to do at each place, given how often it was passed.  Raises ValueError with the part it stands in."""
    rules: dict[str, Callable[[int], None]] = {}
    for part in filter(str.strip, text.split(";")):
        match = RULE.fullmatch(part)
        if match is None:
            raise ValueError(
                f"{VARIABLE}: {part.strip()!r} is not name=kill, name=fail or name=sleep(s), with or without @n"
            )
        if match["name"] not in KNOWN:
            raise ValueError(f"{VARIABLE}: there is no {match['name']!r}, only {', '.join(sorted(KNOWN))}")
        rules[match["name"]] = _rule(match["name"], match["action"], float(match["s"] or 0), int(match["n"] or 0))
    return rules


def _rule(name: str, action: str, pause_s: float, at: int) -> Callable[[int], None]:
    def act(passed: int) -> None:
        if at and passed != at:
            return
        if action == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        elif action == "fail":
            raise Unavailable(f"failpoint {name}")
        else:
            time.sleep(pause_s)

    return act


def armed(text: str) -> Callable[[str], None]:
    """Return the `hit` of a set variable."""
    rules, passed = parse(text), Counter[str]()

    def at(name: str) -> None:
        if (act := rules.get(name)) is not None:
            passed[name] += 1
            act(passed[name])

    return at


def off(name: str) -> None:
    """Do nothing."""


hit: Callable[[str], None] = armed(os.environ[VARIABLE]) if os.environ.get(VARIABLE) else off
