"""One step of a pipeline written in Python, as an Airflow task.  Decides where it runs; `authoring.execute` runs it.

A `local` step without an environment of its own runs in the Airflow task's process; everything else is a job of an
engine.  An XCom holds a reference to what a step returned, with the position of its instance in its loops.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException

from api.code_store import CodeStore
from api.config import load
from api.demands import numbers
from api.evidence import read as read_evidence
from operators.authoring.execute import execute
from operators.authoring.graph import Graph, Step
from operators.authoring.params import completed
from operators.authoring.resolve import SKIPPED, Index, Resolver, Skip
from operators.engines.base import JobResult, JobSpec
from operators.errors import UserError
from operators.job import JobOperator, job_id, run_of, taken_over
from operators.jobs.evidence import recorded
from operators.jobs.run import SPEC
from operators.task_cache import CACHE, TaskCache
from operators.task_process import TaskProcess
from operators.values.references import Reference
from operators.values.store import Values, values_at
from operators.xcom_results import XComResults

AUTHORED = "authored"
"""Under which name a DAG keeps its graph: among the macros, which Airflow does not serialize."""
PROGRAM = "python_task"
RUN_VARIABLE = "MA_PIPELINE_RUN"


@dataclass(frozen=True)
class Authored:
    """What a DAG is made of.  `code`: SHA-256 of its packed files."""

    graph: Graph
    code: str


def stored_values() -> Values:
    """Return the values of this platform's artifact store."""
    return values_at(load().values_url)


def resolver_of(context: Any, index: Index, item: Mapping[str, Any] | None) -> Resolver:
    """Return what knows the values of a run: its parameters, and what earlier tasks left as XComs."""
    graph = authored_of(context).graph
    given = {name: context["params"][name] for name in graph.params.get("properties", {}) if name in context["params"]}
    results = XComResults(graph, context["ti"], index, item)
    return Resolver(graph, completed(graph.params, given), results, stored_values())


def authored_of(context: Any) -> Authored:
    """Return what the DAG of a task is made of."""
    found: Authored = context["dag"].user_defined_macros[AUTHORED]
    return found


class ItemsOperator(BaseOperator):
    """Lists the items of a loop, over which Airflow maps the steps of the loop.  No step of the pipeline itself."""

    ui_color = "#f4f4f4"

    def execute(self, context: Any) -> list[dict[str, Any]]:
        """Return an entry for each instance: its position, and a reference to its item."""
        if (taken := taken_over(context)) is not None:
            return list(taken["value"])
        try:
            found = resolver_of(context, (), None).expand(authored_of(context).graph.loop(self.task_id))
        except UserError as error:
            _give_verdict(context, "user", str(error))
            raise AirflowFailException(str(error)) from error
        if found is SKIPPED:
            raise AirflowSkipException("what it goes over was skipped")
        return [{"index": list(index), **item.to_json()} for index, item in found.items()]


class PythonTaskOperator(JobOperator):
    """Runs the step of its name.  `entry`: of the instance of a step in a loop, from ItemsOperator."""

    template_fields: Sequence[str] = ()
    custom_operator_name = "@task"

    def __init__(self, *, entry: Mapping[str, Any] | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.multiple_outputs = False
        self.entry = entry
        self._process = TaskProcess()
        self._inputs: Mapping[str, Any] = {}
        # Why the cache had nothing; empty if it was not asked in this process.
        self._why = ""

    def execute(self, context: Any) -> Any:
        """Run the step, unless its condition does not hold or what it needs was skipped."""
        if (taken := taken_over(context)) is not None:
            return taken
        step = self._step(context)
        try:
            found = resolver_of(context, self._index, self.entry).inputs(step, self._index)
        except UserError as error:
            _give_verdict(context, "user", str(error))
            raise AirflowFailException(str(error)) from error
        if isinstance(found, Skip):
            context["ti"].xcom_push(key="skipped", value=found.message)
            raise AirflowSkipException(found.message)
        self._inputs = found
        if step.cache is not None:
            kept = self._cache(context, step).ask(context["dag_run"].conf or {}, context["ti"].try_number)
            if kept.output is not None:
                context["ti"].xcom_push(key="inputs", value=dict(found))
                return {**self._output(kept.output.to_json()), CACHE: kept.to_json()}
            self._why = kept.why
        if is_job(step):
            return super().execute(context)
        context["ti"].xcom_push(key="inputs", value=dict(found))
        return self._here(context, step)

    def _here(self, context: Any, step: Step) -> dict[str, Any]:
        spec, values = self.job(context), stored_values()
        folder, root = load().jobs_path / spec.job_id, spec.args["run"]["root_dir"]
        _write_spec(folder, spec)
        sys.path.insert(0, root)
        os.environ[RUN_VARIABLE] = f"{spec.args['run']['project']}/{spec.args['run']['pipeline_run']}"
        try:
            with recorded(folder, root=root, job=step.name), self._process.working():
                outcome = execute(step, self._inputs, values)
        except UserError as error:
            _give_verdict(context, "user", str(error), folder)
            raise AirflowFailException(str(error)) from error
        except Exception as error:
            kind = "user" if is_users(error, root) else "system"
            _give_verdict(context, kind, f"{type(error).__name__}: {error}", folder)
            raise
        return self._kept(context, self._output(outcome.output.to_json()))

    def finish(self, context: Any, job_id: str) -> dict[str, Any]:
        """Show the job's log, keep and return its output."""
        return self._kept(context, super().finish(context, job_id))

    def _kept(self, context: Any, output: dict[str, Any]) -> dict[str, Any]:
        """Keep the output of a step that succeeded, and return it with why it had to be made."""
        step = self._step(context)
        if step.cache is None:
            return output
        if not self._why:
            # The task waited for its job outside of a worker: this is another process.
            found = resolver_of(context, self._index, self.entry).inputs(step, self._index)
            self._inputs = {} if isinstance(found, Skip) else found
            self._why = self._cache(context, step).ask(context["dag_run"].conf or {}, context["ti"].try_number).why
        self._cache(context, step).keep(Reference.from_json(output))
        return {**output, CACHE: {"hit": False, "why": self._why}}

    def _cache(self, context: Any, step: Step) -> TaskCache:
        run, authored = run_of(context), authored_of(context)
        root = unpacked(run["project"], authored.code)
        return TaskCache(step, self._inputs, root=root, run=run, pipeline=authored.graph.name, values=stored_values())

    def job(self, context: Any) -> JobSpec:
        """Return the step as a job."""
        step, run = self._step(context), run_of(context)
        run["root_dir"] = str(unpacked(run["project"], authored_of(context).code))
        # An engine on another machine unpacks it there.
        run["code"] = authored_of(context).code
        resources = numbers(step.resources)
        return JobSpec(
            job_id(context),
            PROGRAM,
            {"run": run, "step": asdict(step), "inputs": dict(self._inputs)},
            step.timeout_s or 0,
            int(resources.get("memory", 0)),
            resources,
            step.environment,
        )

    def outputs(self, result: JobResult) -> Any:
        """Return the reference that the program gave."""
        return self._output({"digest": result.outputs["digest"], "format": result.outputs["format"]})

    def on_kill(self) -> None:
        """End the step's work: its job, or what it started and this process."""
        if self._process.is_working:
            self._process.end()
        else:
            super().on_kill()

    @property
    def position(self) -> str:
        """How pages name an instance: its place in its loops, as in `[1][0]`."""
        return "".join(f"[{place}]" for place in self._index)

    def _output(self, reference: Mapping[str, str]) -> dict[str, Any]:
        return {**reference, **({"index": list(self._index)} if self._index else {})}

    def _step(self, context: Any) -> Step:
        return authored_of(context).graph.step(self.task_id)

    @property
    def _index(self) -> Index:
        return tuple(self.entry["index"]) if self.entry is not None else ()


def is_job(step: Step) -> bool:
    """Whether a step needs a process of its own."""
    return step.engine != "local" or bool(step.environment)


def unpacked(project: str, code: str) -> Path:
    """Return the folder of a run's code.  Raises AirflowFailException if it is not in the artifact store."""
    config = load()
    try:
        return CodeStore(config.artifacts_url).unpacked(project, code, config.home / "code")
    except (ValueError, FileNotFoundError) as error:
        told = f"the code {code[:12]} of this run is not in the artifact store: `ma pipeline apply -f` puts it there"
        raise AirflowFailException(told) from error


def is_users(error: BaseException, root: str) -> bool:
    """Whether an exception came out of the user's own code."""
    traceback = error.__traceback__
    while traceback is not None:
        if traceback.tb_frame.f_code.co_filename.startswith(f"{root}{os.sep}"):
            return True
        traceback = traceback.tb_next
    return False


def _write_spec(folder: Path, spec: JobSpec) -> None:
    """Leave what was asked for where a replay of the step looks for it."""
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"job_id": spec.job_id, "program": spec.program, "args": dict(spec.args)})
    (folder / SPEC).write_text(text)


def _give_verdict(context: Any, kind: str, message: str, folder: Path | None = None) -> None:
    told = {"kind": kind, "message": message[:2000], "evidence": read_evidence(folder) if folder else {}}
    context["ti"].xcom_push(key="verdict", value=told)
