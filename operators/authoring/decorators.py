"""`@task` and `@pipeline`: what is declared is checked here, at once.  Runs nothing; imports no engine."""

from __future__ import annotations

import functools
import inspect
import re
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, is_dataclass, replace
from types import SimpleNamespace
from typing import Any, overload

from api.demands import brief, demand_faults, seconds_of, timeout_faults
from api.errors import FieldViolation
from api.graphs import graph_faults
from operators.authoring import types
from operators.authoring.environments import declared
from operators.authoring.errors import PipelineError
from operators.authoring.graph import Graph, Step, Value
from operators.authoring.sources import code_digest, here
from operators.authoring.tracing import Output, current, traced, value_of

Function = Callable[..., Any]


@dataclass(frozen=True)
class Cache:
    """Outputs are kept and used again: of the same code, inputs, environment and version.  ttl: "7d", None for ever."""

    version: str = "1"
    ttl: str | float | None = None


@dataclass(frozen=True)
class Settings:
    """What a task asks for.  `name`: of its steps, its own name if empty; after: outputs that only come before."""

    engine: str = "local"
    cpu: float | str | None = None
    memory: str | None = None
    gpu: int | None = None
    retries: int = 0
    timeout: str | float | None = None
    environment: Any = None
    cache: bool | Cache = False
    name: str = ""
    after: Sequence[Any] = ()

    def resources(self) -> dict[str, Any]:
        """Return cpu, gpu and memory, those that were given."""
        found = {"cpu": self.cpu, "gpu": self.gpu, "memory": self.memory}
        return {name: value for name, value in found.items() if value is not None}

    def kept(self) -> dict[str, Any] | None:
        """Return how outputs are kept, None if they are not."""
        if not self.cache:
            return None
        cache = self.cache if isinstance(self.cache, Cache) else Cache()
        return {"version": cache.version, "ttl_s": None if cache.ttl is None else seconds_of(cache.ttl)}

    def faults(self) -> list[FieldViolation]:
        """Return everything that is wrong."""
        asked = {
            "engine": self.engine,
            "resources": self.resources(),
            "environment": self.environment,
            "retries": self.retries,
        }
        found = [replace(fault, field=fault.field.removeprefix("resources.")) for fault in demand_faults(asked)]
        cache: Any = self.cache
        if not isinstance(cache, bool | Cache):
            found.append(
                FieldViolation("cache", "must be True, False or Cache(version=…, ttl=…)", brief(cache), "BAD_CACHE")
            )
        if self.timeout is not None:
            found += timeout_faults(self.timeout)
        if isinstance(self.cache, Cache) and self.cache.ttl is not None and not (seconds_of(self.cache.ttl) or 0) > 0:
            told = 'must be more than 0: seconds, or a text such as "12h", "7d"'
            found.append(FieldViolation("cache.ttl", told, brief(self.cache.ttl), "BAD_CACHE"))
        return found


class Task:
    """A function that is a step wherever a pipeline's body calls it.  Called elsewhere it is the function."""

    def __init__(self, function: Function, settings: Settings, source: Mapping[str, Any]) -> None:
        self.function = function
        self.settings = settings
        self._source = source
        functools.update_wrapper(self, function)
        self.label = settings.name or function.__name__
        kinds = {parameter.kind for parameter in inspect.signature(function).parameters.values()}
        if inspect.Parameter.VAR_POSITIONAL in kinds or inspect.Parameter.POSITIONAL_ONLY in kinds:
            raise PipelineError(f"task {self.label!r}: its arguments need names: no *args, no /", source=source)
        if inspect.iscoroutinefunction(function) or inspect.isgeneratorfunction(function):
            raise PipelineError(
                f"task {self.label!r}: a task is a plain function that returns its output", source=source
            )
        try:
            self.settings = settings = replace(
                settings, environment=declared(settings.environment, function, settings.engine)
            )
        except PipelineError as error:
            raise PipelineError(
                f"task {self.label!r}: {error.violations[0].description}",
                reason=error.reason,
                field="environment",
                source=source,
            ) from None
        faults = settings.faults()
        if faults:
            told = "; ".join(f"{fault.field} {fault.description}" for fault in faults)
            raise PipelineError(
                f"task {self.label!r}: {told}", reason=faults[0].reason or "BAD_TASK", source=source, violations=faults
            )

    def options(self, **settings: Any) -> Task:
        """Return the task with other settings, for one call: `fit.options(cpu=4, name="fit-all")(rows)`."""
        return Task(self.function, _settings(self.settings, settings), here())

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Record a step in a pipeline's body, call the function elsewhere."""
        tracer = current()
        if tracer is None:
            return self.function(*args, **kwargs)
        try:
            bound = inspect.signature(self.function).bind(*args, **kwargs)
        except TypeError as error:
            raise PipelineError(f"task {self.label!r}: {error}") from None
        inputs: dict[str, Value] = {}
        for name, given in bound.arguments.items():
            kind = bound.signature.parameters[name].kind
            inputs |= {
                key: value_of(each) for key, each in (given if kind is kind.VAR_KEYWORD else {name: given}).items()
            }
        step = self._step(tracer.named(self.label), inputs)
        tracer.add(step, self)
        return Output({"step": step.name}, _returned(self.function))

    def _step(self, name: str, inputs: Mapping[str, Value]) -> Step:
        settings = self.settings
        qualified = self.function.__qualname__.replace("<locals>.", "")
        return Step(
            name=name,
            task=f"{self.function.__module__}:{qualified}".replace("<lambda>", "lambda_"),
            engine=settings.engine,
            resources=settings.resources(),
            retries=settings.retries,
            timeout_s=None if settings.timeout is None else seconds_of(settings.timeout),
            environment=settings.environment,
            cache=settings.kept(),
            source=here(),
            inputs=inputs,
            needs=tuple(_step_named(each) for each in settings.after),
        )


class EngineTasks:
    """Makes tasks that run on one engine: `@task.ray`, or with settings, `@task.ray(cpu=4, memory="8Gi")`."""

    def __init__(self, engine: str) -> None:
        self._engine = engine

    @overload
    def __call__(self, function: Function, /) -> Task: ...

    @overload
    def __call__(self, /, **settings: Any) -> Callable[[Function], Task]: ...

    def __call__(self, function: Function | None = None, /, **settings: Any) -> Any:
        """Make a task of a function."""
        source = here()
        found = _settings(Settings(self._engine), settings)

        def decorate(decorated: Function) -> Task:
            return Task(decorated, found, source)

        return decorate if function is None else decorate(function)


class Tasks(EngineTasks):
    """`@task`, which is `@task.local`, in the process of the step; and a job on another engine."""

    local = EngineTasks("local")
    ray = EngineTasks("ray")
    spark = EngineTasks("spark")
    kubernetes_job = EngineTasks("kubernetes_job")


task = Tasks("local")


@dataclass(frozen=True)
class Traced:
    """A pipeline's graph, and the tasks that its steps name."""

    graph: Graph
    tasks: Mapping[str, Task]


class Pipeline:
    """A function whose calls of tasks are the steps of a graph."""

    def __init__(self, function: Function, name: str, source: Mapping[str, Any]) -> None:
        self.function = function
        self.name = self.label = name or function.__name__
        self._source = source
        functools.update_wrapper(self, function)
        self._config, self._fields = self._parameters()
        self.params = self._schema()

    def run(self, *config: Any, **params: Any) -> Any:
        """Run the pipeline in this process and return what it returns.  Raises what a task of it raised.

        params: by name, as JSON or as their types; or the one dataclass of the pipeline.
        """
        from operators.authoring.local_run import run

        return run(self, self.given(*config, **params))

    def given(self, *config: Any, **params: Any) -> dict[str, Any]:
        """Return parameters as JSON values, neither completed nor judged."""
        if config and not (self._config and len(config) == 1 and isinstance(config[0], self._config)):
            raise TypeError(f"{self.name}.run takes its parameters by name: {', '.join(self._fields) or 'it has none'}")
        return {
            **(types.plain(config[0]) if config else {}),
            **{name: types.plain(each) for name, each in params.items()},
        }

    def trace(self, *, digests: bool = True) -> Traced:
        """Return the graph.  digests: say in it what each task's code is.  Raises PipelineError."""
        with traced() as tracer:
            symbols = {name: Output({"param": name}, hint) for name, (hint, _) in self._fields.items()}
            result = self.function(*self._arguments(symbols)) if self._config else self.function(**symbols)
        codes = {name: code_digest(each.function) for name, each in tracer.tasks.items()} if digests else {}
        graph = Graph(
            name=self.name,
            doc=inspect.getdoc(self.function) or "",
            params=self.params,
            loops=tuple(tracer.loops),
            steps=tuple(replace(step, code=codes[step.task]) for step in tracer.steps)
            if digests
            else tuple(tracer.steps),
            result=None if result is None else value_of(result),
        )
        faults = graph_faults(graph.to_json())
        if faults:
            told = "; ".join(f"{fault.field}: {fault.description}" for fault in faults[:3])
            raise PipelineError(
                f"pipeline {self.name!r}: {told}", reason=faults[0].reason, source=self._source, violations=faults
            )
        return Traced(graph, tracer.tasks)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Put the pipeline's steps into the one whose body calls it, as a group."""
        tracer = current()
        if tracer is None:
            raise PipelineError(f"{self.name} is a pipeline: run it here with {self.name}.run(…)")
        with tracer.group(self.label):
            return self.function(*args, **kwargs) if not self._config else self.function(*self._symbols(args, kwargs))

    def _symbols(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Sequence[Any]:
        """Return what a body with one dataclass is given by another pipeline."""
        if len(args) == 1 and not kwargs:
            return args
        defaults = {name: default for name, (_, default) in self._fields.items() if default is not ...}
        found = {**defaults, **kwargs}
        missing = [name for name in self._fields if name not in found]
        unknown = [name for name in found if name not in self._fields]
        if args or missing or unknown:
            raise PipelineError(
                f"{self.name} takes {', '.join(self._fields)}: {', '.join([*missing, *unknown])} is wrong"
            )
        return self._arguments(found)

    def _arguments(self, symbols: Mapping[str, Any]) -> Sequence[Any]:
        return [SimpleNamespace(**symbols)]

    def _parameters(self) -> tuple[Any, dict[str, tuple[Any, Any]]]:
        signature = inspect.signature(self.function)
        try:
            hints = typing.get_type_hints(self.function, include_extras=True)
        except NameError as error:
            raise self._refused(f"a type is unknown: {error}; import it where the pipeline is defined") from error
        found: dict[str, tuple[Any, Any]] = {}
        for name, parameter in signature.parameters.items():
            if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD, parameter.POSITIONAL_ONLY):
                raise self._refused(f"parameter {name!r} needs a name and a type: no *args, no **kwargs, no /", name)
            default = ... if parameter.default is parameter.empty else parameter.default
            if name not in hints:
                raise self._refused(f"parameter {name!r} has no type: write for example {name}: int", name)
            found[name] = (hints[name], default)
        if len(found) == 1:
            ((config, default),) = found.values()
            if is_dataclass(config) and default is ...:
                return config, types.fields_of(config)
        return None, found

    def _schema(self) -> dict[str, Any]:
        try:
            found = types.object_of(self._fields)
        except types.NoSchema as error:
            raise self._refused(f"parameter {error}", str(error).partition(":")[0]) from error
        told = described(inspect.getdoc(self._config) or "") if self._config else {}
        told |= described(inspect.getdoc(self.function) or "")
        for name, said in found["properties"].items():
            if name in told:
                said.setdefault("description", told[name])
            said.setdefault("title", name.replace("_", " ").capitalize())
        return found

    def _refused(self, told: str, name: str = "") -> PipelineError:
        field = f"params.{name}" if name else "params"
        return PipelineError(
            f"pipeline {self.name!r}: {told}", reason="BAD_PARAM_TYPE", field=field, source=self._source
        )


@overload
def pipeline(function: Function, /) -> Pipeline: ...


@overload
def pipeline(*, name: str = "") -> Callable[[Function], Pipeline]: ...


def pipeline(function: Function | None = None, /, *, name: str = "") -> Any:
    """Make a pipeline of a function; its signature, or its one dataclass, is its parameters."""
    source = here()

    def decorate(decorated: Function) -> Pipeline:
        return Pipeline(decorated, name, source)

    return decorate if function is None else decorate(function)


_DESCRIBED = re.compile(r"^(?:[-*] |:param )?`{0,2}(\w+)`{0,2}(?: \([^)]*\))?(?::| --) +(\S.*)$")


def described(doc: str) -> dict[str, str]:
    """Return what a docstring says of each name: lines `name: text`, with the lines below that are indented more."""
    found: dict[str, str] = {}
    name, depth = "", 0
    for line in doc.splitlines():
        text, indent = line.strip(), len(line) - len(line.lstrip())
        match = _DESCRIBED.match(text)
        if name and text and indent > depth:
            found[name] += f" {text}"
        elif match:
            name, depth = match[1], indent
            found[name] = match[2]
        else:
            name = ""
    return found


def _settings(before: Settings, given: Mapping[str, Any]) -> Settings:
    known = [name for name in Settings.__dataclass_fields__ if name != "engine"]
    unknown = [name for name in given if name not in known]
    if unknown:
        import difflib

        close = difflib.get_close_matches(unknown[0], known, 1)
        hint = f"did you mean {close[0]}?" if close else f"use {', '.join(known)}"
        raise PipelineError(f"a task has no setting {unknown[0]!r}: {hint}", reason="BAD_TASK", field=unknown[0])
    return replace(before, **given)


def _step_named(output: Any) -> str:
    name = output.value.get("step") if isinstance(output, Output) else None
    if not isinstance(name, str):
        raise PipelineError("after= takes outputs of tasks: after=[model]")
    return name


def _returned(function: Function) -> Any:
    """Return the type that a task says it returns, if it can be read."""
    try:
        return typing.get_type_hints(function).get("return")
    except Exception:  # an annotation may name what is imported for type checkers only
        return None
