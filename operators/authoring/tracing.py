"""Records the calls in a pipeline's body as a graph.  Runs no task."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NoReturn

from api.graphs import DEEPEST_VALUE, MOST_STEPS, NAME
from operators.authoring import types
from operators.authoring.errors import PipelineError
from operators.authoring.graph import Loop, Step, Value

if TYPE_CHECKING:
    from operators.authoring.decorators import Task

_active: ContextVar[Tracer | None] = ContextVar("pipeline", default=None)
LATER = "is known only when the pipeline runs"


class Output:
    """What a step will return, or a parameter will be.  It can be given on, indexed and compared; no more."""

    def __init__(self, value: Value, hint: Any = None) -> None:
        self.value = value
        self._hint = hint

    def __getitem__(self, key: str | int) -> Output:
        if not isinstance(key, str | int) or isinstance(key, bool):
            raise PipelineError(f"an output is read by a name or a position, not by {type(key).__name__}")
        return Output({"get": [self.value, key]})

    def __getattr__(self, name: str) -> Output:
        import dataclasses

        if name.startswith("__") or not (isinstance(self._hint, type) and dataclasses.is_dataclass(self._hint)):
            raise AttributeError(f'an output {LATER}: it has no attribute {name!r}; use ["{name}"], or a task')
        hint, _ = types.fields_of(self._hint)[name]
        return Output({"get": [self.value, name]}, hint)

    def __iter__(self) -> Iterator[Output]:
        import typing

        hints = typing.get_args(self._hint) if typing.get_origin(self._hint) is tuple else ()
        if not hints or Ellipsis in hints:
            raise PipelineError(
                f"an output {LATER}: go over it with foreach(task, output); to unpack it, let the task "
                "say how many it returns: -> tuple[A, B]"
            )
        return iter([Output({"get": [self.value, position]}, hint) for position, hint in enumerate(hints)])

    def __eq__(self, other: object) -> Output:  # type: ignore[override]
        return self._compared("==", other)

    def __ne__(self, other: object) -> Output:  # type: ignore[override]
        return self._compared("!=", other)

    def __lt__(self, other: object) -> Output:
        return self._compared("<", other)

    def __le__(self, other: object) -> Output:
        return self._compared("<=", other)

    def __gt__(self, other: object) -> Output:
        return self._compared(">", other)

    def __ge__(self, other: object) -> Output:
        return self._compared(">=", other)

    def __and__(self, other: object) -> Output:
        return Output({"all": [self.value, value_of(other)]})

    def __or__(self, other: object) -> Output:
        return Output({"any": [self.value, value_of(other)]})

    def __invert__(self) -> Output:
        return Output({"not": self.value})

    def is_in(self, choices: Any) -> Output:
        """Whether the output is one of a list."""
        return self._compared("in", choices)

    def _compared(self, sign: str, other: object) -> Output:
        return Output({"compare": [sign, self.value, value_of(other)]})

    def __bool__(self) -> NoReturn:
        raise PipelineError(f"an output {LATER}: use when(condition, then, otherwise), and & | ~ for and, or, not")

    def _refused(self, *_: Any) -> NoReturn:
        raise PipelineError(f"an output {LATER}: compute with it in a task")

    __hash__ = None  # type: ignore[assignment]
    __len__ = __int__ = __float__ = __index__ = __str__ = __format__ = __contains__ = _refused
    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = __truediv__ = __rtruediv__ = _refused
    __floordiv__ = __mod__ = __pow__ = __neg__ = __abs__ = __matmul__ = __call__ = __setitem__ = _refused

    def __repr__(self) -> str:
        return f"<output {self.value}>"


class Tracer:
    """Collects the steps of one pipeline."""

    def __init__(self) -> None:
        self.steps: list[Step] = []
        self.loops: list[Loop] = []
        self.tasks: dict[str, Task] = {}
        self._names: set[str] = set()
        self._numbers: dict[str, int] = {}
        self._groups: tuple[str, ...] = ()
        self._guards: tuple[Value, ...] = ()
        self._loop = ""

    def add(self, step: Step, task: Task) -> None:
        """Record a call where the tracer stands."""
        if len(self.steps) == MOST_STEPS:
            raise PipelineError(f"a pipeline has at most {MOST_STEPS} steps", reason="TOO_MANY", field="steps")
        self.tasks[step.task] = task
        self.steps.append(
            replace(step, foreach=self._loop, when=self._guards, group=".".join(self._groups), source=dict(step.source))
        )

    def named(self, label: str) -> str:
        """Return a name in the present group that nothing else has."""
        if not NAME.match(label):
            raise PipelineError(f"{label!r} cannot be a name: use letters, digits, '_' and '-'", reason="BAD_NAME")
        full = found = ".".join([*self._groups, label])
        number = self._numbers.get(full, 1)
        while found in self._names:
            number += 1
            found = f"{full}-{number}"
        self._numbers[full] = number
        self._names.add(found)
        return found

    @contextlib.contextmanager
    def group(self, label: str) -> Iterator[None]:
        """Stand in a group of its own."""
        before = self._groups
        self._groups = (*before, self.named(label).rpartition(".")[2])
        try:
            yield
        finally:
            self._groups = before

    @contextlib.contextmanager
    def guarded(self, *conditions: Value) -> Iterator[None]:
        """Stand where all conditions hold."""
        before = self._guards
        self._guards = (*before, *conditions)
        try:
            yield
        finally:
            self._guards = before

    @contextlib.contextmanager
    def inside(self, over: Value, label: str) -> Iterator[str]:
        """Stand inside a loop, and yield its name.  Conditions around it are the loop's: without it no step runs."""
        before = self._loop, self._guards
        name = self.named(f"{label}.items")
        self.loops.append(Loop(name, over, self._loop, self._guards))
        self._loop, self._guards = name, ()
        try:
            yield name
        finally:
            self._loop, self._guards = before


def current() -> Tracer | None:
    """Return the tracer of the pipeline whose body runs, None outside of one."""
    return _active.get()


def required(what: str) -> Tracer:
    """Return the tracer; raises PipelineError outside of a pipeline's body."""
    tracer = _active.get()
    if tracer is None:
        raise PipelineError(f"{what} stands in the body of a pipeline: a function under @pipeline")
    return tracer


@contextlib.contextmanager
def traced() -> Iterator[Tracer]:
    """Record in a tracer of its own."""
    tracer = Tracer()
    token = _active.set(tracer)
    try:
        yield tracer
    finally:
        _active.reset(token)


def value_of(given: Any, depth: int = 0) -> Value:
    """Return what stands in a pipeline's body as a VALUE.  Raises PipelineError for what is no plain value."""
    if isinstance(given, Output):
        return given.value
    if depth > DEEPEST_VALUE - 4:
        raise PipelineError(f"a value in a pipeline's body is nested deeper than {DEEPEST_VALUE}", reason="TOO_DEEP")
    if isinstance(given, list | tuple):
        items = [value_of(item, depth + 1) for item in given]
        return {"const": [item["const"] for item in items]} if _are_constant(items) else {"list": items}
    if isinstance(given, dict) and all(isinstance(key, str) for key in given):
        parts = {key: value_of(item, depth + 1) for key, item in given.items()}
        constant = _are_constant(list(parts.values()))
        return {"const": {key: part["const"] for key, part in parts.items()}} if constant else {"dict": parts}
    if isinstance(given, float) and not math.isfinite(given):
        raise PipelineError(f"{given} is no number that a pipeline's body can hold: make it in a task")
    try:
        return {"const": types.plain(given)}
    except types.NoSchema as error:
        raise PipelineError(
            f"a {type(given).__name__} stands in a pipeline's body: it holds plain values and outputs of tasks; "
            "make it in a task"
        ) from error


def _are_constant(values: Sequence[Value]) -> bool:
    return all("const" in value for value in values)


Body = Callable[..., Any]
Fixed = Mapping[str, Any]
