"""The cache of steps around one Airflow task: asked before its work, and given what the task made.  Runs no user code.

It is asked in the task's own process before the user's code is loaded, with the platform's token, which that code never
sees; a job of an engine is not submitted for a hit.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from api.client import Client
from api.config import load
from api.reuse import FIRST_TRY, OWN, REUSE
from operators.authoring.graph import Step
from operators.cache.cached_outputs import CachedOutputs
from operators.cache.step_cache import Found, StepCache, parts_of
from operators.values.references import Reference
from operators.values.store import Values

CACHE = "cache"
"""Under which key a task's return value holds what the cache said."""
TIMEOUT_S = 5.0
TRIED_AGAIN = "not asked for its output: it is tried again"
GOES_ON = "not asked for its output: the run goes on from another, and does this step again"

T = TypeVar("T")


class TaskCache:
    """Of one instance of a step.  inputs: trees; root: the run's code; run: as `run_of` says; pipeline: its name."""

    def __init__(
        self,
        step: Step,
        inputs: Mapping[str, Any],
        *,
        root: Path,
        run: Mapping[str, str],
        pipeline: str,
        values: Values,
    ) -> None:
        self._step = step
        self._parts = parts_of(step, inputs, root)
        self._run = run
        self._pipeline = pipeline
        self._values = values

    def ask(self, conf: Mapping[str, Any], try_number: int) -> Found:
        """Return the kept output, or why there is none.  What is done again on request is done."""
        if try_number > FIRST_TRY:
            return Found(None, TRIED_AGAIN)
        own = conf.get(OWN)
        if isinstance(own, dict) and REUSE in own:
            return Found(None, GOES_ON)
        return self._with(lambda cache: cache.lookup())

    def keep(self, output: Reference) -> None:
        """Keep what the step made."""
        self._with(lambda cache: cache.keep(output))

    def _with(self, use: Callable[[StepCache], T]) -> T:
        config = load()
        with Client.of(config, timeout_s=TIMEOUT_S) as api:
            entries = CachedOutputs(api, self._run["project"], config.values_url)
            cache = StepCache(
                self._step,
                self._parts,
                entries,
                self._values,
                pipeline=self._pipeline,
                run=self._run.get("pipeline_run", ""),
            )
            return use(cache)
