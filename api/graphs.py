"""The graph of a pipeline that was written in Python, as JSON: every fault with its place.  Pure; runs no user code.

    {"version": 1, "name", "doc", "params": JSON Schema, "loops": [LOOP], "steps": [STEP], "result": VALUE}
    LOOP  {"name", "over": VALUE, "within": loop, "when": [VALUE]}
    STEP  {"name", "task": "module:function", "engine", "resources", "retries", "timeout_s", "environment", "cache",
           "code", "source", "inputs": {argument: VALUE}, "needs": [step], "foreach": loop, "when": [VALUE], "group"}
    VALUE one of {"const": JSON}, {"param": name}, {"step": name}, {"item": loop}, {"list": [VALUE]},
          {"dict": {key: VALUE}}, {"get": [VALUE, key]}, {"compare": [operator, VALUE, VALUE]}, {"not": VALUE},
          {"all": [VALUE]}, {"any": [VALUE]}, {"last": [VALUE]}, {"matrix": {name: VALUE}}, {"each": [loop, VALUE]},
          {"if": [VALUE, VALUE, VALUE]}, of which the last may be left out

What each means when the pipeline runs stands in `operators.authoring.resolve`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from api.demands import brief, demand_faults
from api.errors import FieldViolation

VERSION = 1
MOST_STEPS = 10_000
MOST_INSTANCES = 10_000
"""Of one step: what its loops, one within the other, may come to."""
DEEPEST_VALUE = 64
# Hints cost more than the checks: beyond this many names, or faults, there are none.
MOST_HINTED = 500
MOST_HINTS = 20
MOST_FAULTS = 1000
NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,249}\Z")
TASK = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*\Z")
FORMS = (
    *("const", "param", "step", "item", "list", "dict", "get", "compare", "not", "all", "any", "last", "matrix"),
    *("each", "if"),
)
OPERATORS = ("==", "!=", "<", "<=", ">", ">=", "in")
GRAPH_KEYS = ("version", "name", "doc", "params", "loops", "steps", "result")
LOOP_KEYS = ("name", "over", "within", "when")
STEP_KEYS = (
    *("name", "task", "engine", "resources", "retries", "timeout_s", "environment", "cache", "code", "source"),
    *("inputs", "needs", "foreach", "when", "group"),
)
HIDDEN_PARAM = "ma"


def graph_faults(graph: Any, path: str = "") -> list[FieldViolation]:
    """Return the faults of a graph, at most MOST_FAULTS of them; `graph` is whatever JSON was given."""
    found: list[FieldViolation] = []
    for fault in _Reader(path).faults(graph):
        found.append(fault)
        if len(found) == MOST_FAULTS:
            break
    return found


def children(value: Mapping[str, Any]) -> Iterable[Any]:
    """Return the VALUEs directly in a VALUE."""
    form, content = next(iter(value.items()))
    if form in ("list", "all", "any", "last", "if"):
        return list(content)
    if form in ("dict", "matrix"):
        return list(content.values())
    if form in ("compare", "get"):
        return [content[1], content[2]] if form == "compare" else [content[0]]
    if form == "each":
        return [content[1]]
    return [content] if form == "not" else []


def references(value: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield (form, name) of each param, step, item and loop ("each") that a VALUE names."""
    form, content = next(iter(value.items()))
    if form in ("param", "step", "item"):
        yield form, content
    elif form == "each":
        yield form, content[0]
    for child in children(value):
        yield from references(child)


def static_size(value: Mapping[str, Any]) -> int | None:
    """Return how many items a VALUE is known to have before the pipeline runs; nothing is expanded."""
    form, content = next(iter(value.items()))
    if form == "list" or (form == "const" and isinstance(content, list)):
        return len(content)
    if form == "matrix":
        sizes = [static_size(each) for each in content.values()]
        return math.prod(size for size in sizes if size is not None)
    return None


def step_needs(step: Mapping[str, Any]) -> set[str]:
    """Return the names of the steps, and of the loops, that come before a step."""
    values = [*(step.get("inputs") or {}).values(), *(step.get("when") or [])]
    found = _named(values)
    return found | set(step.get("needs") or ()) | ({step["foreach"]} if step.get("foreach") else set())


def loop_needs(loop: Mapping[str, Any]) -> set[str]:
    """Return the names of the steps, and of the loops, that come before a loop's items are known."""
    found = _named([loop["over"], *(loop.get("when") or [])])
    return found | ({loop["within"]} if loop.get("within") else set())


def _named(values: Iterable[Mapping[str, Any]]) -> set[str]:
    return {name for value in values for form, name in references(value) if form != "param"}


def circle_of(needs: Mapping[str, Sequence[str]]) -> list[str]:
    """Return the names along one circle, the first repeated at the end; empty if there is none."""
    done: set[str] = set()
    for start in needs:
        path: dict[str, Iterator[str]] = {start: iter(needs[start])} if start not in done else {}
        while path:
            name, rest = next(reversed(path.items()))
            following = next(rest, None)
            if following is None:
                done.add(name)
                del path[name]
            elif following in path:
                names = list(path)
                return [*names[names.index(following) :], following]
            elif following not in done:
                path[following] = iter(needs[following])
    return []


class _Reader:
    def __init__(self, path: str) -> None:
        self._path = path
        self._hints = MOST_HINTS
        self._broken = False
        self._params: Mapping[str, Any] = {}
        self._loops: Mapping[str, Any] = {}
        self._steps: Mapping[str, Any] = {}

    def faults(self, graph: Any) -> Iterator[FieldViolation]:
        if not isinstance(graph, Mapping):
            yield FieldViolation(self._path or "graph", "must be an object", brief(graph))
            return
        if graph.get("version") != VERSION:
            told = f"must be {VERSION}: the graph was written by another release"
            yield FieldViolation(self._at("version"), told, brief(graph.get("version")))
            return
        yield from self._unknown(graph, GRAPH_KEYS, self._path)
        if not isinstance(graph.get("name"), str) or not NAME.match(graph["name"]):
            yield _bad_name(self._at("name"), graph.get("name"))
        params = graph.get("params") or {}
        if not isinstance(params, Mapping) or not isinstance(params.get("properties", {}), Mapping):
            yield FieldViolation(self._at("params"), "must be the JSON Schema of an object", brief(params))
            params = {}
        self._params = params.get("properties", {})
        if HIDDEN_PARAM in self._params:
            told = "is a name that the platform keeps for itself"
            yield FieldViolation(self._at(f"params.properties.{HIDDEN_PARAM}"), told, HIDDEN_PARAM, "BAD_NAME")
        steps, loops = graph.get("steps"), graph.get("loops") or []
        wrong = list(self._sizes(steps, loops))
        yield from wrong or self._content(graph, steps or [], loops)

    def _sizes(self, steps: Any, loops: Any) -> Iterator[FieldViolation]:
        if not isinstance(steps, list) or not steps:
            yield FieldViolation(self._at("steps"), "needs at least one step", reason="NO_STEPS")
        for name, found in (("steps", steps), ("loops", loops)):
            if isinstance(found, list) and len(found) > MOST_STEPS:
                told = f"has {len(found)} {name}, at most {MOST_STEPS} are allowed"
                yield FieldViolation(self._at(name), told, reason="TOO_MANY")
        if not isinstance(loops, list):
            yield FieldViolation(self._at("loops"), "must be a list", brief(loops))

    def _content(
        self, graph: Mapping[str, Any], steps: Sequence[Any], loops: Sequence[Any]
    ) -> Iterator[FieldViolation]:
        self._loops = {name: loop for loop in loops if (name := _name(loop))}
        self._steps = {name: step for step in steps if (name := _name(step))}
        self._hints = MOST_HINTS if len(steps) <= MOST_HINTED else 0
        seen: set[str] = set()
        for kind, items, check in (("loops", loops, self._loop), ("steps", steps, self._step)):
            for position, item in enumerate(items):
                here = self._at(f"{kind}[{position}]")
                if not isinstance(item, Mapping):
                    yield self._break(FieldViolation(here, "must be an object", brief(item)))
                    continue
                yield from self._named(item, here, seen)
                yield from check(item, here)
        if graph.get("result") is not None:
            yield from self._value(graph["result"], self._at("result"), "")
        # Only what refers to what there is can be walked along.
        if not self._broken:
            yield from self._circle()
        if not self._broken:
            yield from self._fan_out(loops)
            yield from self._scopes(graph)

    def _named(self, item: Mapping[str, Any], path: str, seen: set[str]) -> Iterator[FieldViolation]:
        name = _name(item)
        if not name:
            yield self._break(_bad_name(f"{path}.name", item.get("name")))
        elif name in seen:
            told = f"{name!r} is the name of an earlier one too"
            yield self._break(FieldViolation(f"{path}.name", told, name, "DUPLICATE_STEP"))
        seen.add(name)

    def _loop(self, loop: Mapping[str, Any], path: str) -> Iterator[FieldViolation]:
        yield from self._unknown(loop, LOOP_KEYS, path)
        yield from self._known_loop(loop.get("within"), f"{path}.within")
        yield from self._value(loop.get("over"), f"{path}.over", "")
        yield from self._conditions(loop, path, "")

    def _step(self, step: Mapping[str, Any], path: str) -> Iterator[FieldViolation]:
        yield from self._unknown(step, STEP_KEYS, path)
        yield from demand_faults(step, path)
        if not isinstance(step.get("task"), str) or not TASK.match(step["task"]):
            yield FieldViolation(f"{path}.task", 'must be "module:function"', brief(step.get("task")), "BAD_TASK")
        yield from self._known_loop(step.get("foreach"), f"{path}.foreach")
        name = _name(step)
        for key, wanted in (("inputs", Mapping), ("needs", list)):
            if step.get(key) is not None and not isinstance(step[key], wanted):
                yield self._break(FieldViolation(f"{path}.{key}", "has the wrong form", brief(step[key])))
                return
        for argument, value in (step.get("inputs") or {}).items():
            yield from self._value(value, f"{path}.inputs.{brief(argument)}", name)
        yield from self._conditions(step, path, name)
        for position, need in enumerate(step.get("needs") or []):
            yield from self._known_step(need, f"{path}.needs[{position}]", name)

    def _conditions(self, item: Mapping[str, Any], path: str, owner: str) -> Iterator[FieldViolation]:
        conditions = item.get("when") or []
        if not isinstance(conditions, list):
            yield self._break(FieldViolation(f"{path}.when", "has the wrong form", brief(conditions)))
            return
        for position, value in enumerate(conditions):
            yield from self._value(value, f"{path}.when[{position}]", owner)

    def _value(self, value: Any, path: str, owner: str, depth: int = 0) -> Iterator[FieldViolation]:
        if not isinstance(value, Mapping) or len(value) != 1 or next(iter(value)) not in FORMS:
            told = f"must be an object with one of {', '.join(FORMS)}"
            yield self._break(FieldViolation(path, told, brief(value), "BAD_VALUE"))
            return
        form, content = next(iter(value.items()))
        if depth > DEEPEST_VALUE:
            yield self._break(FieldViolation(path, f"is deeper than {DEEPEST_VALUE}", reason="TOO_DEEP"))
        elif form == "param":
            if not isinstance(content, str) or content not in self._params:
                told = f"names the parameter {brief(content)!r}, which the pipeline has not"
                yield FieldViolation(path, told + self._hint(content, self._params), reason="UNKNOWN_PARAM")
        elif form == "step":
            yield from self._known_step(content, path, owner)
        elif form == "item":
            yield from self._known_loop(content or None, path, needed=True)
        elif not _is_formed(form, content):
            yield self._break(FieldViolation(path, f"{form} has the wrong form", brief(content), "BAD_VALUE"))
        else:
            if form == "each":
                yield from self._known_loop(content[0], path, needed=True)
            for child in children(value):
                yield from self._value(child, path, owner, depth + 1)

    def _known_step(self, name: Any, path: str, owner: str) -> Iterator[FieldViolation]:
        if owner and name == owner:
            yield self._break(FieldViolation(path, f"{name!r} needs itself: {name} -> {name}", name, "CYCLE"))
        elif not isinstance(name, str) or name not in self._steps:
            told = f"names {brief(name)!r}, which is no step{self._hint(name, self._steps)}"
            yield self._break(FieldViolation(path, told, brief(name), "UNKNOWN_STEP"))

    def _known_loop(self, name: Any, path: str, *, needed: bool = False) -> Iterator[FieldViolation]:
        if (name or needed) and (not isinstance(name, str) or name not in self._loops):
            told = f"names {brief(name)!r}, which is no loop{self._hint(name, self._loops)}"
            yield self._break(FieldViolation(path, told, brief(name), "UNKNOWN_STEP"))

    def _circle(self) -> Iterator[FieldViolation]:
        needs = {name: sorted(step_needs(step)) for name, step in self._steps.items()}
        needs |= {name: sorted(loop_needs(loop)) for name, loop in self._loops.items()}
        circle = circle_of(needs)
        if circle:
            told = "form a circle: " + " -> ".join(circle[:20]) + (" -> …" if len(circle) > 20 else "")
            yield self._break(FieldViolation(self._at("steps"), told, reason="CYCLE"))

    def _fan_out(self, loops: Sequence[Mapping[str, Any]]) -> Iterator[FieldViolation]:
        for position, loop in enumerate(loops):
            sizes = (static_size(self._loops[name]["over"]) for name in self._around(loop["name"]))
            size = math.prod(each for each in sizes if each is not None)
            if size > MOST_INSTANCES:
                told = f"comes to {size} instances of a step, at most {MOST_INSTANCES} are allowed"
                yield FieldViolation(self._at(f"loops[{position}].over"), told, reason="TOO_MANY")

    def _scopes(self, graph: Mapping[str, Any]) -> Iterator[FieldViolation]:
        """Yield each item, and each output of a step, that is read outside of its loop."""
        for kind, items, inside in (("loops", self._loops, "within"), ("steps", self._steps, "foreach")):
            for position, item in enumerate(items.values()):
                here, around = self._at(f"{kind}[{position}]"), self._around(item.get(inside) or "")
                for argument, value in (item.get("inputs") or {}).items():
                    yield from self._scope(value, around, f"{here}.inputs.{argument}")
                for number, value in enumerate(item.get("when") or []):
                    yield from self._scope(value, around, f"{here}.when[{number}]")
                if kind == "loops":
                    yield from self._scope(item["over"], around, f"{here}.over")
        if graph.get("result") is not None:
            yield from self._scope(graph["result"], [], self._at("result"))

    def _scope(self, value: Mapping[str, Any], around: Sequence[str], path: str) -> Iterator[FieldViolation]:
        form, content = next(iter(value.items()))
        wanted: Sequence[str] = []
        if form == "step":
            wanted = self._around(self._steps[content].get("foreach") or "")
        elif form == "item":
            wanted = self._around(content)
        elif form == "each":
            wanted = self._around(self._loops[content[0]].get("within") or "")
            around = self._around(content[0]) if around[: len(wanted)] == wanted else around
        if around[: len(wanted)] != wanted:
            told = f"is read outside of the loop {wanted[-1]!r}: only what foreach returns can be"
            yield FieldViolation(path, told, wanted[-1], "OUTSIDE_LOOP")
            return
        for child in children(value):
            yield from self._scope(child, around, path)

    def _around(self, loop: str) -> list[str]:
        """Return the loops from the outermost to this one."""
        found: list[str] = []
        while loop:
            found.insert(0, loop)
            loop = self._loops[loop].get("within") or ""
        return found

    def _unknown(self, item: Mapping[str, Any], known: Sequence[str], path: str) -> Iterator[FieldViolation]:
        for key in item:
            if key not in known:
                yield FieldViolation(f"{path}.{brief(key)}" if path else brief(key), "is unknown")

    def _break(self, fault: FieldViolation) -> FieldViolation:
        self._broken = True
        return fault

    def _hint(self, name: Any, known: Iterable[str]) -> str:
        if self._hints <= 0 or not isinstance(name, str):
            return ""
        import difflib

        self._hints -= 1
        close = difflib.get_close_matches(name[:80], list(known), 1)
        return f": did you mean {close[0]!r}?" if close else ""

    def _at(self, name: str) -> str:
        return f"{self._path}.{name}" if self._path else name


def _is_formed(form: str, content: Any) -> bool:
    if form in ("list", "all", "any", "last"):
        return isinstance(content, list) and (bool(content) or form == "list")
    if form in ("dict", "matrix"):
        return isinstance(content, Mapping) and (bool(content) or form == "dict")
    if form == "each":
        return isinstance(content, list) and len(content) == 2 and isinstance(content[0], str)
    if form == "if":
        return isinstance(content, list) and len(content) in (2, 3)
    if form == "get":
        return isinstance(content, list) and len(content) == 2 and isinstance(content[1], str | int)
    if form == "compare":
        return isinstance(content, list) and len(content) == 3 and content[0] in OPERATORS
    return True


def _name(item: Any) -> str:
    """Return the name of a step or loop, empty if it has none that can be used."""
    name = item.get("name") if isinstance(item, Mapping) else None
    return name if isinstance(name, str) and NAME.match(name) else ""


def _bad_name(path: str, name: Any) -> FieldViolation:
    told = "must be letters, digits, '_', '-' and '.', at most 250, and begin with a letter, a digit or '_'"
    return FieldViolation(path, told, brief(name), "BAD_NAME")
