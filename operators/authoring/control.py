"""What a pipeline's body has beside calls: foreach, when, loop, matrix.  Each only records; nothing runs here."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from api.graphs import MOST_INSTANCES
from operators.authoring.errors import PipelineError
from operators.authoring.graph import Value
from operators.authoring.tracing import Output, required, value_of

MOST_ROUNDS = 1000


class Matrix:
    """Every combination of the items of some lists."""

    def __init__(self, axes: Mapping[str, Any]) -> None:
        self.axes = axes


def matrix(**axes: Any) -> Matrix:
    """Return every combination, for foreach: each item is a dict of one item of each list."""
    if not axes:
        raise PipelineError("a matrix needs at least one list: matrix(alpha=[0.1, 1.0])")
    return Matrix(axes)


def foreach(body: Callable[..., Any], items: Any, /, **fixed: Any) -> Output:
    """Run a task, a pipeline or a function once for each item, and return the list of what each returned.

    items: a list, a range, an output that will be a list, or a matrix, whose names become arguments.
    fixed: arguments that are the same for all.  Instances that were skipped are not in the list.
    """
    tracer = required("foreach")
    label = _label(body, "each")
    over = _over(items)
    with tracer.inside(over, label) as name:
        item = Output({"item": name})
        with _grouped(body, label):
            result = body(**_arguments(body, item, items, fixed))
    return Output({"each": [name, value_of(result)]})


def when(condition: Any, then: Callable[[], Any], otherwise: Callable[[], Any] | None = None) -> Output:
    """Run what `then` calls if the condition holds, else what `otherwise` calls, and return what the one returned.

    Steps of the other are skipped, and so is what needs them alone.
    """
    tracer = required("when")
    decided = value_of(condition)
    with tracer.guarded(decided):
        branches = [value_of(_called(then))]
    if otherwise is not None:
        with tracer.guarded({"not": decided}):
            branches.append(value_of(_called(otherwise)))
    return Output({"if": [decided, *branches]})


def loop(
    body: Callable[[Any], Any], start: Any, *, most: int, until: Callable[[Any], Any] | None = None, name: str = ""
) -> Output:
    """Run `body` on what it returned before, at most so many times, and return what it returned last.

    until: says of what the body returned whether it is the last; rounds after it are skipped.
    """
    tracer = required("loop")
    if isinstance(most, bool) or not isinstance(most, int) or not 1 <= most <= MOST_ROUNDS:
        raise PipelineError(f"most={most!r} must be a whole number from 1 to {MOST_ROUNDS}", reason="TOO_MANY")
    label = name or _label(body, "loop")
    state, rounds, ended = start, [], None
    for number in range(1, most + 1):
        with tracer.guarded(*([{"not": ended}] if ended is not None else [])):
            state = _round(body, state, f"{label}-{number}")
            made = value_of(state)
            rounds.append(made if ended is None else {"if": [{"not": ended}, made]})
            if until is not None and number < most:
                ended = value_of(until(state if isinstance(state, Output) else Output(made)))
    return Output(rounds[0] if len(rounds) == 1 else {"last": rounds})


def _round(body: Callable[[Any], Any], state: Any, label: str) -> Any:
    if hasattr(body, "options"):
        return body.options(name=label)(state)
    with required("loop").group(label):
        return body(state)


def _over(items: Any) -> Value:
    if isinstance(items, Matrix):
        return {"matrix": {name: _over(axis) for name, axis in items.axes.items()}}
    if isinstance(items, Output):
        return items.value
    if not isinstance(items, list | tuple | range):
        told = f"foreach goes over a list or an output, not over a {type(items).__name__}"
        raise PipelineError(told + (": use list(…)" if hasattr(items, "__iter__") else ""))
    if len(items) > MOST_INSTANCES:
        told = f"comes to {len(items)} instances of a step, at most {MOST_INSTANCES} are allowed"
        raise PipelineError(told, reason="TOO_MANY", field="loops")
    return value_of(list(items))


def _arguments(body: Callable[..., Any], item: Output, items: Any, fixed: Mapping[str, Any]) -> dict[str, Any]:
    """Return the item as the first argument that is not fixed; that of a matrix by its names, if the body has them."""
    names = [name for name in inspect.signature(body).parameters if name not in fixed]
    if isinstance(items, Matrix) and set(items.axes) <= set(names):
        return {**fixed, **{axis: item[axis] for axis in items.axes}}
    if not names:
        raise PipelineError(f"{_label(body, 'the body of foreach')} takes no argument for the item")
    return {**fixed, names[0]: item}


def _called(body: Callable[[], Any]) -> Any:
    if isinstance(body, Output):
        raise PipelineError("when takes what to call, not what was called: when(condition, lambda: task(x))")
    return body()


def _label(body: Any, other: str) -> str:
    name = getattr(body, "label", None) or getattr(body, "__name__", other)
    return other if name == "<lambda>" else str(name)


def _grouped(body: Any, label: str) -> Any:
    import contextlib

    is_function = inspect.isfunction(body) and body.__name__ != "<lambda>"
    return required("foreach").group(label) if is_function else contextlib.nullcontext()
