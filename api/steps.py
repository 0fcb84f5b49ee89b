"""The graph of steps in a manifest: whether it can be built, every fault with its place.  Pure; knows no operator."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from api.admission import is_name
from api.errors import FieldViolation
from api.graphs import circle_of
from api.validation import nearest, shown

KEYS = ("name", "operator", "needs", "with", "retries")
MOST_STEPS = 10_000
MOST_RETRIES = 10
# Airflow's limit for the key of a task.
LONGEST_NAME = 250
# Hints cost more than the checks: beyond this many names, or faults, there are none.
MOST_HINTED = 500
MOST_HINTS = 20
REFERENCE = re.compile(r"\$\{steps\.([a-z0-9.-]+)\.outputs\.(\w+)\}\Z")


def step_faults(steps: Any, path: str) -> Iterator[FieldViolation]:
    """Yield the faults of a graph: `steps` is what stands in the manifest, whatever it is."""
    if not isinstance(steps, list) or not steps:
        yield FieldViolation(path, "needs at least one step")
    elif len(steps) > MOST_STEPS:
        told = f"has {len(steps)} steps, at most {MOST_STEPS} are allowed"
        yield FieldViolation(path, told, reason="TOO_MANY")
    else:
        yield from _Graph(steps, path).faults()


class _Graph:
    def __init__(self, steps: Sequence[Any], path: str) -> None:
        self._steps, self._path = steps, path
        self._names = [_name(step) for step in steps]
        self._known = frozenset(name for name in self._names if name)
        self._hints = MOST_HINTS if len(steps) <= MOST_HINTED else 0

    def faults(self) -> Iterator[FieldViolation]:
        seen: set[str] = set()
        for position, (step, name) in enumerate(zip(self._steps, self._names, strict=True)):
            here = f"{self._path}[{position}]"
            if not isinstance(step, dict):
                yield FieldViolation(here, f"must be an object with {', '.join(KEYS)}", shown(step))
                continue
            yield from self._own(step, here)
            if name in seen:
                yield FieldViolation(f"{here}.name", f"{shown(name)!r} is the name of an earlier step too")
            seen.add(name)
            yield from self._needs(step, name, here)
        circle = self._circle()
        if circle:
            told = "form a circle: " + " -> ".join(circle[:20]) + (" -> …" if len(circle) > 20 else "")
            yield FieldViolation(self._path, told, reason="CYCLE")

    def _own(self, step: Mapping[str, Any], path: str) -> Iterator[FieldViolation]:
        name = step.get("name", "")
        if not isinstance(name, str) or not is_name(name) or len(name) > LONGEST_NAME:
            told = f"must be lower-case letters, digits, '-' and '.', at most {LONGEST_NAME} characters"
            yield FieldViolation(f"{path}.name", told, shown(name))
        operator = step.get("operator")
        if not isinstance(operator, str) or not operator:
            yield FieldViolation(
                f"{path}.operator", "names the operator of the step, for example train", shown(operator)
            )
        retries = step.get("retries", 0)
        if isinstance(retries, bool) or not isinstance(retries, int) or not 0 <= retries <= MOST_RETRIES:
            yield FieldViolation(f"{path}.retries", f"must be from 0 to {MOST_RETRIES}", shown(retries))
        if not isinstance(step.get("with") or {}, dict):
            yield FieldViolation(f"{path}.with", "must be an object: arguments by name", shown(step["with"]))
        for key in step:
            if key not in KEYS:
                yield FieldViolation(f"{path}.{shown(key)}", f"is unknown{self._hint(key, KEYS)}")

    def _needs(self, step: Mapping[str, Any], name: str, path: str) -> Iterator[FieldViolation]:
        given = step.get("needs") or []
        if not isinstance(given, list) or not all(isinstance(need, str) for need in given):
            yield FieldViolation(f"{path}.needs", "must be a list of names of steps", shown(given))
            given = []
        for at, need in [("needs", need) for need in given] + [("with", need) for need in _referred(step.get("with"))]:
            if need == name:
                yield FieldViolation(f"{path}.{at}", f"{shown(name)!r} needs itself", reason="CYCLE")
            elif need not in self._known:
                hint = self._hint(need, self._names)
                yield FieldViolation(f"{path}.{at}", f"names {shown(need)!r}, which is no step{hint}")

    def _hint(self, name: str, known: Sequence[str]) -> str:
        if self._hints <= 0:
            return ""
        self._hints -= 1
        return nearest(name[:LONGEST_NAME], known)

    def _circle(self) -> list[str]:
        """Return the names along one circle, the first repeated at the end; empty if there is none."""
        needs = {
            name: [need for need in _all_needs(step) if need in self._known and need != name]
            for step, name in zip(self._steps, self._names, strict=True)
            if name
        }
        return circle_of(needs)


def _name(step: Any) -> str:
    name = step.get("name", "") if isinstance(step, dict) else ""
    return name if isinstance(name, str) else ""


def _all_needs(step: Mapping[str, Any]) -> Iterator[str]:
    given = step.get("needs")
    if isinstance(given, list):
        yield from (need for need in given if isinstance(need, str))
    yield from _referred(step.get("with"))


def _referred(value: Any) -> Iterator[str]:
    """Yield the steps whose outputs an argument takes: `${steps.NAME.outputs.KEY}`."""
    if isinstance(value, str) and (match := REFERENCE.match(value)):
        yield match[1]
    elif isinstance(value, dict):
        for item in value.values():
            yield from _referred(item)
    elif isinstance(value, list):
        for item in value:
            yield from _referred(item)
