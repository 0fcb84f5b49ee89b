"""Runs one instance of a task, the same in every place: in this process, in an Airflow task, on an engine.

It repeats nothing and knows no order: that is the place's part.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from api.errors import FailedPrecondition, InvalidArgument, NotFound, PermissionDenied
from operators.authoring.graph import Step
from operators.authoring.timeouts import limited
from operators.authoring.types import converted
from operators.errors import UserError
from operators.values.references import Reference
from operators.values.store import Values
from operators.values.trees import digest_of, written


@dataclass(frozen=True)
class Outcome:
    """output: what the task returned; inputs: the digest of its arguments.

    cached: why it was not run, because the cache had its output; empty if it ran.
    """

    output: Reference
    inputs: str
    cached: str = ""


class Cache(Protocol):
    """What was made of the same parts before.  Parts: code, inputs, environment, version: texts."""

    def lookup(self, parts: Mapping[str, str]) -> tuple[Reference | None, str]:
        """Return the kept output and what matched, or None and what did not."""
        ...

    def keep(self, parts: Mapping[str, str], output: Reference) -> None:
        """Keep an output."""
        ...


def execute(
    step: Step,
    inputs: Mapping[str, Any],
    values: Values,
    *,
    cache: Cache | None = None,
    function: Callable[..., Any] | None = None,
    on_start: Callable[[str], None] = lambda why: None,
) -> Outcome:
    """Load the arguments, call the task, store what it returns.

    inputs: trees by argument, from `Resolver.inputs`; function: the task's own, loaded by its name if it is not given;
    on_start: told, before the task is called, why the cache has nothing for it.
    Raises what the task raises, as it was raised; TaskTimeout; ValueRefused for an output that cannot be stored.
    """
    digest = digest_of(written(dict(inputs)))
    parts, why = {}, ""
    if cache is not None and step.cache is not None:
        parts = cache_parts(step, digest)
        kept, why = cache.lookup(parts)
        if kept is not None:
            return Outcome(kept, digest, why or "the cache had its output")
    called = function or load(step.task)
    arguments = converted(called, {name: values.decode(tree) for name, tree in inputs.items()})
    on_start(why)
    with limited(step.timeout_s, step.name):
        returned = called(**arguments)
    try:
        output = values.put(returned)
    except UserError as error:
        raise type(error)(f"step {step.name!r} returned what cannot be stored: {error}") from error
    if cache is not None and step.cache is not None:
        cache.keep(parts, output)
    return Outcome(output, digest)


def cache_parts(step: Step, inputs: str) -> dict[str, str]:
    """Return what a kept output is found by."""
    environment = digest_of(written(step.environment)) if step.environment else ""
    version = str((step.cache or {}).get("version", ""))
    return {"code": step.code, "inputs": inputs, "environment": environment, "version": version}


def load(task: str) -> Callable[..., Any]:
    """Return the function of "module:function".  Raises UserError if it is not there."""
    module, _, name = task.partition(":")
    try:
        found: Any = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name and (module == error.name or module.startswith(f"{error.name}.")):
            raise UserError(
                f"the task {task} is not there: no module {error.name!r} in the code of this run"
            ) from error
        raise
    for part in name.split("."):
        found = getattr(found, part, None)
    called = getattr(found, "function", found)
    if not callable(called):
        raise UserError(f"the task {task} is not there: {module} has no task {name!r}")
    return called  # type: ignore[no-any-return]


def may_help(error: BaseException) -> bool:
    """Whether a step that failed so may succeed when it is run again."""
    return not isinstance(error, UserError | InvalidArgument | NotFound | FailedPrecondition | PermissionDenied)
