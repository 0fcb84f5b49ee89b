"""`@task.local`, `@task.ray`, `@task.spark`, `@task.kubernetes_job` for plain DAG files, found through the provider.

    from airflow.sdk import dag, task

    @task.ray(cpu=2, memory="4Gi", retries=1)
    def fit(rows): ...

Arguments and results are stored by content; an XCom holds references only.  A function on an engine is sent as its
source: it imports what it needs itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from typing import Any

from airflow.sdk.bases.decorator import DecoratedOperator, task_decorator_factory
from airflow.sdk.exceptions import AirflowFailException

from api.config import load
from api.demands import demand_faults, numbers, seconds_of, timeout_faults
from api.engine_settings import unconfigured
from operators.engines.base import JobResult, JobSpec
from operators.job import JobOperator, job_id, run_of
from operators.task_process import TaskProcess
from operators.values.store import referring, values_at

FUTURE = "from __future__ import annotations\n"


class FunctionOperator(DecoratedOperator, JobOperator):
    """Calls a function of a DAG file: in the task's own process, or on an engine.

    cpu: cores; gpu: count; memory: such as "2Gi"; timeout: seconds, or such as "10m"; image: of a pod, pinned.
    """

    template_fields: Sequence[str] = ("op_args", "op_kwargs")
    custom_operator_name = "@task.local"

    def __init__(
        self,
        *,
        engine: str = "local",
        cpu: float | str = 1,
        gpu: int = 0,
        memory: str | None = None,
        timeout: float | str | None = None,
        image: str | None = None,
        **kwargs: Any,
    ) -> None:
        asked = {"cpu": cpu, "gpu": gpu, **({"memory": memory} if memory is not None else {})}
        faults = [
            *demand_faults({"engine": engine, "resources": asked, "environment": image and {"image": image}}),
            *(timeout_faults(timeout) if timeout is not None else ()),
        ]
        if faults:
            raise ValueError("; ".join(f"{fault.field} {fault.description}" for fault in faults))
        if timeout is not None:
            kwargs["execution_timeout"] = timedelta(seconds=seconds_of(timeout) or 0)
        # A reference is one value; and JobOperator says of itself how many it returns.
        kwargs.pop("multiple_outputs", None)
        super().__init__(engine=engine, **kwargs)
        self.multiple_outputs = False
        self.demands = numbers(asked)
        self.image = image
        self._process = TaskProcess()

    def execute(self, context: Any) -> Any:
        """Call the function, or submit it; return a reference to what it returned."""
        if self.engine != "local":
            return JobOperator.execute(self, context)
        values = values_at(load().values_url)
        with self._process.working():
            found = self.python_callable(*values.decode(list(self.op_args)), **values.decode(dict(self.op_kwargs)))
        return referring(values.put(found))

    def job(self, context: Any) -> JobSpec:
        """Return the call as a job."""
        if self.python_callable.__name__ == "<lambda>":
            raise AirflowFailException(f"{self.task_id}: a lambda has no source that can be sent: use def")
        source = self.get_python_source()  # type: ignore[no-untyped-call]
        args = {
            "run": run_of(context),
            "source": f"{FUTURE}{source}",
            "function": self.python_callable.__name__,
            "args": list(self.op_args),
            "kwargs": dict(self.op_kwargs),
        }
        limit_s = self.execution_timeout.total_seconds() if self.execution_timeout else 0
        memory_mib = int(self.demands.get("memory", 0))
        environment = {"image": self.image} if self.image else None
        return JobSpec(job_id(context), "python_function", args, limit_s, memory_mib, self.demands, environment)

    def outputs(self, result: JobResult) -> Any:
        """Return the reference that the program gave."""
        return {"$ref": {"digest": result.outputs["digest"], "format": result.outputs["format"]}}

    def on_kill(self) -> None:
        """Stop the job, or what the function started and this process."""
        if self.engine != "local":
            JobOperator.on_kill(self)
        else:
            self._process.end()


class _OnRay(FunctionOperator):
    custom_operator_name = "@task.ray"


class _InPod(FunctionOperator):
    custom_operator_name = "@task.kubernetes_job"


class _OnSpark(FunctionOperator):
    custom_operator_name = "@task.spark"


def local_task(python_callable: Callable[..., Any] | None = None, **kwargs: Any) -> Any:
    """Call the function in the task's own process."""
    return _decorator(FunctionOperator, "local", python_callable, kwargs)


def ray_task(python_callable: Callable[..., Any] | None = None, **kwargs: Any) -> Any:
    """Call the function on Ray."""
    return _decorator(_OnRay, "ray", python_callable, kwargs)


def spark_task(python_callable: Callable[..., Any] | None = None, **kwargs: Any) -> Any:
    """Call the function beside a session of Spark.  Raises ValueError, with the way out, where there is no Spark."""
    if told := unconfigured("spark"):
        raise ValueError(f"@task.spark {told}")
    return _decorator(_OnSpark, "spark", python_callable, kwargs)


def kubernetes_job_task(python_callable: Callable[..., Any] | None = None, **kwargs: Any) -> Any:
    """Call the function in a pod.  Raises ValueError, with the way out, where there is no cluster."""
    if told := unconfigured("kubernetes_job"):
        raise ValueError(f"@task.kubernetes_job {told}")
    return _decorator(_InPod, "kubernetes_job", python_callable, kwargs)


def _decorator(
    operator: type[FunctionOperator], engine: str, function: Callable[..., Any] | None, kwargs: Mapping[str, Any]
) -> Any:
    for name in ("environment", "cache"):
        if name in kwargs:
            raise ValueError(f"{name} is for tasks of a @pipeline (from operators import pipeline, task): leave it out")
    return task_decorator_factory(
        python_callable=function,
        multiple_outputs=False,
        decorated_operator_class=operator,
        **{**kwargs, "engine": engine},
    )
