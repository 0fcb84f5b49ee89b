"""What a run takes over from an earlier one (`spec.resume`), as the conf of its DAG run.  Does no work itself."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from api.controllers.platform import Platform
from api.controllers.steps import flat
from api.errors import NotFound, Unavailable
from api.gen.michelangelo.api.v2 import pipeline_run_pb2 as wire
from api.reuse import OWN, REUSE, SKIP, not_asked_for, reached
from api.store.base import Key
from api.workflows import plain

LARGEST_BYTES = 256 * 1024
WITH_RESULT = (wire.PIPELINE_RUN_STEP_STATE_SUCCEEDED, wire.PIPELINE_RUN_STEP_STATE_SKIPPED)


class CannotResume(Exception):
    """What is to be taken over cannot be.  `reason`: in CamelCase, as conditions have it."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message


class Resumes:
    """Finds what there is to be taken over."""

    def __init__(self, platform: Platform) -> None:
        self._platform = platform

    async def conf(self, dag_id: str, run: Any, conf: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the conf of a run with what it takes over.  Raises CannotResume, Unavailable."""
        if not run.spec.HasField("resume"):
            return conf
        resume = run.spec.resume
        source = resume.pipeline_run
        earlier = await self._platform.resources.find(
            Key("PipelineRun", source.namespace or run.metadata.namespace, source.name)
        )
        if earlier is None:
            raise CannotResume("ResumeSourceGone", f"PipelineRun {source.name!r}, from which it resumes, was deleted")
        try:
            follows = await self._platform.airflow.follows(dag_id)
        except NotFound as error:
            raise Unavailable(f"Airflow does not know DAG {dag_id} yet", reason="EngineNotReady") from error
        taken = taken_over(earlier, resume.resume_from, follows)
        skipped = not_asked_for(_tasks(earlier, resume.resume_up_to, follows), follows)
        # Without parameters of its own it goes on with those of the run before.
        given = {} if run.spec.HasField("input") else _parameters(earlier)
        whole = {**given, **conf, OWN: {**conf[OWN], REUSE: taken, SKIP: sorted(skipped)}}
        size = len(json.dumps(whole))
        if size > LARGEST_BYTES:
            raise CannotResume("ResumeTooLarge", f"what it takes over has {size} bytes, at most {LARGEST_BYTES}")
        return whole


def taken_over(
    earlier: Any, resume_from: Iterable[str], follows: Mapping[str, Iterable[str]]
) -> dict[str, dict[str, Any]]:
    """Return the outputs of the steps that a run need not do: those with a result, before which nothing is done again.

    resume_from: steps, tasks and groups that are done again whatever their result.
    """
    wished = set(resume_from)
    leaves = [step for step in flat(earlier.status.steps) if not step.sub_steps]
    known = {step.activity_id for step in leaves}
    again = {step.activity_id for step in leaves if not _has_result(step) and not _was_left_out(step)}
    again |= _tasks(earlier, wished, follows) | (set(follows) - known)
    below = reached((each for task in again for each in follows.get(task, ())), follows)
    return {
        step.name: {"outputs": plain(step.output), "from": earlier.metadata.name}
        for step in leaves
        if _has_result(step) and step.activity_id not in below and not _is_wished(step, wished)
    }


def _has_result(step: Any) -> bool:
    """Whether a step did its work, or had taken over its outputs itself."""
    return step.state in WITH_RESULT and (bool(step.output.fields) or step.state == WITH_RESULT[0])


def _was_left_out(step: Any) -> bool:
    """Whether a step was skipped for good: it decides for itself again."""
    return bool(step.state == wire.PIPELINE_RUN_STEP_STATE_SKIPPED and step.message)


def _is_wished(step: Any, wished: set[str]) -> bool:
    return bool(wished & {step.name, step.activity_id}) or any(
        step.activity_id.startswith(f"{group}.") for group in wished
    )


def _tasks(earlier: Any, names: Iterable[str], follows: Mapping[str, Iterable[str]]) -> set[str]:
    """Return the tasks that names of steps, tasks and groups mean."""
    wanted = set(names)
    steps = {step.activity_id for step in flat(earlier.status.steps) if not step.sub_steps and _is_wished(step, wanted)}
    return steps | {task for task in follows if task in wanted or any(task.startswith(f"{name}.") for name in wanted)}


def _parameters(earlier: Any) -> dict[str, Any]:
    given = earlier.spec.input.fields
    return dict(plain(given["kw_args"].struct_value)) if "kw_args" in given else {}
