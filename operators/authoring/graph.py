"""The graph of a pipeline as typed values, from JSON and back.  Knows nothing but JSON: runs and imports no user code.

The form of the JSON, and what a VALUE is, stand in `api.graphs`, which checks it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from api.errors import InvalidArgument
from api.graphs import VERSION, graph_faults, loop_needs, references, step_needs

__all__ = ["Graph", "Loop", "Step", "Value", "read", "references"]

Value = Mapping[str, Any]


@dataclass(frozen=True)
class Loop:
    """Its steps run once for each item of `over`, and that once for each item of the loop `within`.

    when: all must hold, or there are no items.
    """

    name: str
    over: Value
    within: str = ""
    when: Sequence[Value] = ()


@dataclass(frozen=True)
class Step:
    """One call of a task.  `task`: module:function; `foreach`: the innermost loop it is in; `when`: all must hold.

    resources: cpu (cores), gpu (count), memory ("2Gi"); cache: None, or {"version", "ttl_s"}; code: what the task's
    behaviour is made of, as a digest; needs: steps that only come before; group: dotted, a prefix of the name.
    """

    name: str
    task: str
    engine: str = "local"
    resources: Mapping[str, Any] = field(default_factory=dict)
    retries: int = 0
    timeout_s: float | None = None
    environment: Any = None
    cache: Mapping[str, Any] | None = None
    code: str = ""
    source: Mapping[str, Any] = field(default_factory=dict)
    inputs: Mapping[str, Value] = field(default_factory=dict)
    needs: Sequence[str] = ()
    foreach: str = ""
    when: Sequence[Value] = ()
    group: str = ""


@dataclass(frozen=True)
class Graph:
    """A pipeline.  `params`: JSON Schema of an object; `result`: what the pipeline returns, None for nothing."""

    name: str
    steps: Sequence[Step]
    loops: Sequence[Loop] = ()
    params: Mapping[str, Any] = field(default_factory=dict)
    doc: str = ""
    result: Value | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "_steps", {step.name: step for step in self.steps})
        object.__setattr__(self, "_loops", {loop.name: loop for loop in self.loops})

    def step(self, name: str) -> Step:
        """Return a step by its name.  Raises KeyError."""
        found: Step = self.__dict__["_steps"][name]
        return found

    def loop(self, name: str) -> Loop:
        """Return a loop by its name.  Raises KeyError."""
        found: Loop = self.__dict__["_loops"][name]
        return found

    def around(self, loop: str) -> tuple[str, ...]:
        """Return the names of the loops from the outermost to `loop` itself; none for the empty name."""
        found: list[str] = []
        while loop:
            found.append(loop)
            loop = self.loop(loop).within
        return tuple(reversed(found))

    def needs(self, name: str) -> set[str]:
        """Return the steps and loops that must be done before a step, or before the items of a loop are known."""
        if name in self.__dict__["_loops"]:
            return loop_needs(_written(self.loop(name)))
        return step_needs(_written(self.step(name)))

    def order(self) -> list[str]:
        """Return the names of steps and loops so that each comes after what it needs; as written where that is free."""
        done: dict[str, None] = {}
        for name in [*self.__dict__["_loops"], *self.__dict__["_steps"]]:
            pending = [] if name in done else [name]
            while pending:
                missing = [need for need in sorted(self.needs(pending[-1])) if need not in done]
                if missing:
                    pending.extend(missing)
                else:
                    done[pending.pop()] = None
        return list(done)

    def to_json(self) -> dict[str, Any]:
        """Return the graph as JSON values; what has its default is left out."""
        return {
            "version": VERSION,
            "name": self.name,
            **({"doc": self.doc} if self.doc else {}),
            "params": dict(self.params),
            **({"loops": [_written(loop) for loop in self.loops]} if self.loops else {}),
            "steps": [_written(step) for step in self.steps],
            **({"result": self.result} if self.result is not None else {}),
        }


def read(graph: Any) -> Graph:
    """Return the graph of JSON values.  Raises InvalidArgument with every fault and its path."""
    found = graph_faults(graph)
    if found:
        told = "; ".join(f"{fault.field}: {fault.description}" for fault in found[:3])
        raise InvalidArgument(told, reason=found[0].reason, violations=found)
    return Graph(
        name=graph["name"],
        doc=graph.get("doc", ""),
        params=graph.get("params") or {},
        loops=tuple(Loop(**_present(loop)) for loop in graph.get("loops", ())),
        steps=tuple(Step(**_present(step)) for step in graph["steps"]),
        result=graph.get("result"),
    )


def _written(item: Step | Loop) -> dict[str, Any]:
    found = {each.name: getattr(item, each.name) for each in fields(item)}
    kept = {name: value for name, value in found.items() if name in ("name", "task") or _says(value)}
    return {name: list(value) if isinstance(value, tuple) else value for name, value in kept.items()}


def _says(value: Any) -> bool:
    return value not in (None, "", 0, (), {}, [])


def _present(item: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in item.items() if value is not None}
