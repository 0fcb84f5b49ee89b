"""The rule of resuming: what a run takes over from an earlier one, and where it stops.  Pure; knows no Airflow.

A DAG run's conf holds, below `ma`: `reuse`, {step: {"outputs": {name: value}, "from": run}}, and `skip`, the tasks that
are not asked for.  A step is a task's id, with `[index]` for an instance of a mapped task.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

OWN = "ma"
REUSE = "reuse"
SKIP = "skip"
# Under which key a task pushes that it took over what an earlier run had done.
REUSED = "reused"
FIRST_TRY = 1


def reuse_of(conf: Mapping[str, Any], step: str, try_number: int) -> Mapping[str, Any] | None:
    """Return what a step takes over, None if it has to do its work: a step that is tried again always does."""
    entry = _own(conf).get(REUSE, {}).get(step) if try_number <= FIRST_TRY else None
    return entry if isinstance(entry, dict) and isinstance(entry.get("outputs"), dict) else None


def stops_before(conf: Mapping[str, Any], task_id: str) -> bool:
    """Whether a run goes up to a step before this one."""
    return task_id in _own(conf).get(SKIP, ())


def message_of(entry: Mapping[str, Any]) -> str:
    """Return the message of a step that takes over `entry`."""
    return f"taken over from {entry.get('from')}: it succeeded there, and nothing before it is done again"


def _own(conf: Mapping[str, Any]) -> Mapping[str, Any]:
    own = conf.get(OWN)
    return own if isinstance(own, dict) else {}


def done_again(unfinished: Iterable[str], again: Iterable[str], follows: Mapping[str, Iterable[str]]) -> set[str]:
    """Return the tasks that a resumed run has to do: those without result, those that are wished, all that follow.

    follows: which tasks come right after each.
    """
    return reached({*unfinished, *again}, follows)


def not_asked_for(up_to: Collection[str], follows: Mapping[str, Iterable[str]]) -> set[str]:
    """Return the tasks that none of `up_to` needs: everything that is neither one of them nor before one of them."""
    if not up_to:
        return set()
    before: dict[str, set[str]] = {}
    for task, after in follows.items():
        before.setdefault(task, set())
        for each in after:
            before.setdefault(each, set()).add(task)
    return set(before) - reached(up_to, before)


def reached(tasks: Iterable[str], follows: Mapping[str, Iterable[str]]) -> set[str]:
    """Return tasks and all that can be reached from them."""
    found: set[str] = set()
    waiting = list(tasks)
    while waiting:
        task = waiting.pop()
        if task not in found:
            found.add(task)
            waiting += follows.get(task, ())
    return found
