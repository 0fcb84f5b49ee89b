"""Runs a pipeline in this process, one step after the other, with what it means elsewhere.  Starts no process.

A step that fails ends what needs it; the rest goes on, as in Airflow.  A repeated step does not wait before it.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from operators.authoring.environments import differences
from operators.authoring.execute import Cache, Outcome, execute, may_help
from operators.authoring.graph import Graph, Step
from operators.authoring.params import completed
from operators.authoring.resolve import SKIPPED, Absent, Index, Resolver, Skip
from operators.authoring.sources import users_own
from operators.values.references import Reference
from operators.values.store import Values, passing_values

if TYPE_CHECKING:
    from operators.authoring.decorators import Pipeline, Traced

RUNNING, RETRYING, SUCCEEDED, FAILED = "RUNNING", "RETRYING", "SUCCEEDED", "FAILED"
SKIP, UPSTREAM_FAILED = "SKIPPED", "UPSTREAM_FAILED"
NO_ITEMS = "there is nothing to go over"

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Event:
    """What happened to one instance of a step.  digest: of its output; two events are equal whatever time they took."""

    step: str
    index: Index
    state: str
    attempt: int = 0
    digest: str = ""
    message: str = ""
    seconds: float = field(default=0.0, compare=False)


@dataclass
class Report:
    """How a run went.  result: what the pipeline returned; error: what the first step that failed raised."""

    graph: Graph
    params: Mapping[str, Any]
    events: list[Event] = field(default_factory=list)
    result: Any = None
    error: BaseException | None = None

    def states(self) -> dict[tuple[str, Index], str]:
        """Return the last state of each instance."""
        return {(event.step, event.index): event.state for event in self.events}

    def digests(self) -> dict[tuple[str, Index], str]:
        """Return the digest of each output."""
        return {(event.step, event.index): event.digest for event in self.events if event.digest}


def run(pipeline: Pipeline, given: Mapping[str, Any]) -> Any:
    """Run a pipeline and return what it returns.  Raises InvalidArgument for parameters, and what a task raised."""
    report = run_here(pipeline, given)
    if report.error is not None:
        raise report.error
    return report.result


def run_here(
    pipeline: Pipeline,
    given: Mapping[str, Any],
    *,
    values: Values | None = None,
    cache: Cache | None = None,
    on_event: Callable[[Event], None] = lambda event: None,
) -> Report:
    """Run a pipeline and return how it went.  values: where outputs are kept; without it they go with the run."""
    traced = pipeline.trace(digests=cache is not None)
    params = completed(traced.graph.params, given)
    if values is not None:
        return _Run(traced, params, values, cache, on_event).report()
    with passing_values() as passing:
        return _Run(traced, params, passing, cache, on_event).report()


class _Run:
    def __init__(
        self,
        traced: Traced,
        params: Mapping[str, Any],
        values: Values,
        cache: Cache | None,
        on_event: Callable[[Event], None],
    ) -> None:
        self._graph, self._tasks = traced.graph, traced.tasks
        self._values, self._cache, self._on_event = values, cache, on_event
        self._outputs: dict[tuple[str, Index], Reference] = {}
        self._items: dict[str, Mapping[Index, Reference] | Absent] = {}
        self._failed: set[str] = set()
        self._report = Report(traced.graph, params)
        self._resolver = Resolver(traced.graph, params, self, values)

    def output(self, step: str, index: Index) -> Reference | Absent:
        """Return what an instance returned."""
        return self._outputs.get((step, index), SKIPPED)

    def items(self, loop: str) -> Mapping[Index, Reference] | Absent:
        """Return the items of a loop."""
        return self._items[loop]

    def report(self) -> Report:
        """Run everything."""
        loops = {loop.name for loop in self._graph.loops}
        for step in self._graph.steps:
            if other := list(differences(step.environment)):
                log.warning(
                    "step %s runs in this process, %s: on the platform it has its environment",
                    step.name,
                    ", ".join(other),
                )
        for name in self._graph.order():
            if self._graph.needs(name) & self._failed:
                self._failed.add(name)
                if name not in loops:
                    self._say(name, (), UPSTREAM_FAILED)
            elif name in loops:
                self._expand(name)
            else:
                self._step(self._graph.step(name))
        if self._report.error is None and self._graph.result is not None:
            tree = self._resolver.tree(self._graph.result)
            self._report.result = None if tree is SKIPPED else self._values.decode(tree)
        return self._report

    def _expand(self, name: str) -> None:
        try:
            self._items[name] = self._resolver.expand(self._graph.loop(name))
        except Exception as error:
            self._fail(name, error)

    def _step(self, step: Step) -> None:
        indices: Sequence[Index] = [()]
        if step.foreach:
            items = self._items[step.foreach]
            indices = [] if isinstance(items, Absent) else list(items)
            if not indices:
                self._say(step.name, (), SKIP, message=NO_ITEMS)
        for index in indices:
            self._instance(step, index)

    def _instance(self, step: Step, index: Index) -> None:
        begun = time.perf_counter()
        try:
            inputs = self._resolver.inputs(step, index)
        except Exception as error:
            self._say(step.name, index, FAILED, message=_told(error))
            self._fail(step.name, error)
            return
        if isinstance(inputs, Skip):
            self._say(step.name, index, SKIP, message=inputs.message)
            return
        for attempt in range(1, step.retries + 2):
            self._say(step.name, index, RUNNING, attempt)
            outcome = self._attempt(step, inputs)
            seconds = time.perf_counter() - begun
            if isinstance(outcome, Outcome):
                self._outputs[step.name, index] = outcome.output
                state = SKIP if outcome.cached else SUCCEEDED
                self._say(step.name, index, state, attempt, outcome.output.digest, outcome.cached, seconds)
                return
            if attempt > step.retries or not may_help(outcome):
                self._say(step.name, index, FAILED, attempt, message=_told(outcome), seconds=seconds)
                self._fail(step.name, outcome)
                return
            self._say(step.name, index, RETRYING, attempt, message=_told(outcome), seconds=seconds)

    def _attempt(self, step: Step, inputs: Mapping[str, Any]) -> Outcome | BaseException:
        function = self._tasks[step.task].function
        try:
            if step.engine == "spark":
                _begin_spark()
            return execute(step, inputs, self._values, cache=self._cache, function=function)
        except (Exception, SystemExit) as error:
            # Who debugs and quits wants to be out of everything.
            if type(error).__name__ == "BdbQuit":
                raise
            return error

    def _fail(self, name: str, error: BaseException) -> None:
        self._failed.add(name)
        if self._report.error is None:
            self._report.error = error.with_traceback(users_own(error.__traceback__))

    def _say(
        self,
        step: str,
        index: Index,
        state: str,
        attempt: int = 0,
        digest: str = "",
        message: str = "",
        seconds: float = 0.0,
    ) -> None:
        event = Event(step, index, state, attempt, digest, message, seconds)
        self._report.events.append(event)
        self._on_event(event)


def _begin_spark() -> None:
    """Have a session of Spark in this process, as a step on Spark has one.  Raises NotProvided."""
    from operators.hooks import spark

    spark.current()


def _told(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"[:2000]
