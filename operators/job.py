"""The base of every stage that runs a job: submit or adopt, defer, read the verdict.  A subclass has two pure methods.

The job's id has no try number: a retry finds what an earlier try started, and only a lost or failed job is run again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import AirflowException, AirflowFailException, AirflowSkipException

from api.reuse import REUSED, message_of, reuse_of, stops_before
from api.run_names import adopted_name, job_name
from operators.engines import engine as engine_of
from operators.engines.base import Engine, JobResult, JobSpec, JobState
from operators.triggers import JobTrigger

MOST_LOG_LINES = 2000


class JobFailed(AirflowException):
    """The job failed for reasons of the system: a retry may help."""


class JobOperator(BaseOperator):
    """Runs `job(context)` on `engine` and returns `outputs(result)`: a flat mapping of URIs and ids, never data."""

    template_fields: Sequence[str] = ("engine",)
    ui_color = "#e8f1fb"

    def __init__(self, *, engine: str = "local", **kwargs: Any) -> None:
        # Each output is an XCom of its own too: `train.output["model_uri"]` is how a later stage names it.
        super().__init__(multiple_outputs=True, **kwargs)
        self.engine = engine
        self._killed = False
        self._given: Engine | None = None

    def run_on(self, engine: Engine) -> None:
        """Use this engine, whatever the task says: where there is no Airflow, a run brings its own."""
        self._given = engine

    def job(self, context: Any) -> JobSpec:
        """Return what to run.  Pure: no I/O."""
        raise NotImplementedError

    def outputs(self, result: JobResult) -> dict[str, str]:
        """Return what later stages get.  Pure: no I/O."""
        return dict(result.outputs)

    def execute(self, context: Any) -> dict[str, str]:
        """Submit the job, or find the one that an earlier try submitted, and wait for it outside of a worker."""
        if (taken := taken_over(context)) is not None:
            return taken
        spec = self.job(context)
        context["ti"].xcom_push(key="inputs", value={k: v for k, v in spec.args.items() if k != "run"})
        engine = self._engine()
        engine.submit(spec)
        if self._killed:
            engine.cancel(spec.job_id)
            raise AirflowFailException("the task was killed while it submitted its job")
        if engine.result(spec.job_id).state is JobState.RUNNING:
            self.log.info("job %s runs on engine %s", spec.job_id, self.engine)
            self.defer(trigger=JobTrigger(engine=self.engine, job_id=spec.job_id), method_name="resume")
        return self.finish(context, spec.job_id)

    def resume(self, context: Any, event: Mapping[str, Any]) -> dict[str, str]:
        """Go on when the job has ended."""
        return self.finish(context, event["job_id"])

    def finish(self, context: Any, job_id: str) -> dict[str, str]:
        """Show the job's log and return its outputs.  Raises AirflowFailException when a retry cannot help."""
        engine = self._engine()
        for line in engine.log(job_id).splitlines()[-MOST_LOG_LINES:]:
            self.log.info("%s", line)
        result = engine.result(job_id)
        if result.state is JobState.SUCCEEDED:
            outputs = self.outputs(result)
            engine.take(job_id)
            return outputs
        told = {"kind": result.kind or "system", "message": result.message, "evidence": engine.evidence(job_id)}
        context["ti"].xcom_push(key="verdict", value=told)
        if result.kind == "user":
            raise AirflowFailException(result.message)
        raise JobFailed(f"job {job_id} is {result.state.value}: {result.message}")

    def on_kill(self) -> None:
        """Stop the job of a killed task.  A signal's handler: `execute` goes on after it, and must start nothing."""
        from airflow.sdk import get_current_context

        self._killed = True
        self._engine().cancel(job_id(get_current_context()))

    def _engine(self) -> Engine:
        if self._given is not None:
            return self._given
        try:
            return engine_of(self.engine)
        except ValueError as error:
            raise AirflowFailException(str(error)) from error


def job_id(context: Any) -> str:
    """Return the id of a task's job: the same for every try."""
    ti = context["ti"]
    return job_name(ti.dag_id, ti.run_id, ti.task_id, ti.map_index)


def taken_over(context: Any) -> dict[str, Any] | None:
    """Return the outputs that a task takes over from an earlier run, None if it has to do its work.

    Every operator of ours asks before it begins.  Raises AirflowSkipException where the run stops before the task.
    """
    ti, conf = context["ti"], context["dag_run"].conf or {}
    if stops_before(conf, ti.task_id):
        raise AirflowSkipException("not asked for: the run stops before it")
    step = ti.task_id if ti.map_index < 0 else f"{ti.task_id}[{ti.map_index}]"
    entry = reuse_of(conf, step, ti.try_number)
    if entry is None:
        return None
    ti.xcom_push(key=REUSED, value={"from": entry.get("from"), "message": message_of(entry)})
    return dict(entry["outputs"])


def run_of(context: Any) -> dict[str, str]:
    """Return what a program is told about the run that it works for.  A bare template's run has no pipeline."""
    dag_run = context["dag_run"]
    owner = (dag_run.conf or {}).get("ma") or {}
    described = context["dag"].params.get("ma") or {}
    dag_id, pipeline = context["ti"].dag_id, str(described.get("pipeline", ""))
    adopted = adopted_name(dag_id, dag_run.run_id, dag_run.run_after) if pipeline else ""
    return {
        "project": str(described.get("project", "")),
        "pipeline": pipeline,
        "pipeline_run": str(owner.get("pipeline_run", "")) or adopted,
        "uid": str(owner.get("owner_uid", "")) or f"{dag_id}/{dag_run.run_id}",
        "dag_id": dag_id,
        "run_id": dag_run.run_id,
        "root_dir": str(described.get("root_dir", "")),
    }
