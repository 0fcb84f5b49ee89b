"""One step's cache: whether its output is kept already, and why not.  One that cannot be asked stops no step.

A failed step keeps nothing: only who has an output can keep it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from api.config import load
from api.errors import ApiError
from operators.authoring.graph import Step
from operators.cache.code import Code, code_of
from operators.cache.entries import Entries, Entry
from operators.cache.environment import environment_of
from operators.cache.parts import Parts, inputs_of, line_name
from operators.cache.reasons import MATCHED, NOTHING, differences, expired, nearest, text
from operators.errors import UserError
from operators.jobs.environments import packages_of
from operators.values.references import Reference
from operators.values.store import Values

UNKNOWN_CODE = "its code cannot be read, so that nobody could tell whether it changed"

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Found:
    """What the cache says of a step.  output: the kept one, None if the step has to run; why: in one line."""

    output: Reference | None
    why: str

    def to_json(self) -> dict[str, Any]:
        """Return what an XCom and a step's report hold."""
        return {"hit": self.output is not None, "why": self.why}


def parts_of(step: Step, inputs: Mapping[str, Any], root: Path) -> Parts:
    """Return what the output of an instance of a step is kept by.  inputs: trees; root: of the user's code."""
    try:
        code = code_of(root, step.task)
    except (SyntaxError, ValueError, RecursionError):
        code = Code()
    return Parts(
        code=code.parts,
        traced=step.code,
        inputs=inputs_of(inputs),
        environment=environment_of(code.libraries, _known(step.environment)),
        version=str((step.cache or {}).get("version", "")),
    )


def _known(environment: Any) -> Any:
    """Return a step's environment; of a named one also what is installed in it."""
    if not isinstance(environment, Mapping) or "named" not in environment:
        return environment
    return {**environment, "packages": packages_of(environment["named"], load().environments_path)}


class StepCache:
    """The cache of one instance.  pipeline, run: which it is part of; now: UTC."""

    def __init__(
        self,
        step: Step,
        parts: Parts,
        entries: Entries,
        values: Values,
        *,
        pipeline: str,
        run: str = "",
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._step = step
        self._parts = parts
        self._entries = entries
        self._values = values
        self._run = run
        self._now = now
        self._key, self._line = parts.key(), line_name(pipeline, step.name)
        self._is_known = bool(parts.code or parts.traced)

    def lookup(self) -> Found:
        """Return the kept output, or why there is none."""
        if not self._is_known:
            return Found(None, UNKNOWN_CODE)
        try:
            return self._lookup()
        except ApiError as error:
            log.warning("the cache cannot be asked: %s", error.message)
            return Found(None, f"the cache could not be asked: {error.message}")

    def _lookup(self) -> Found:
        kept = self._entries.find(self._line, self._key)
        if kept is not None:
            return self._judged(kept)
        candidates = [(entry, entry.parts) for entry in self._entries.of_line(self._line)]
        entry = nearest(candidates, self._parts.summary())
        return Found(None, NOTHING if entry is None else f"{text(self._differences(entry))} (since {_of(entry)})")

    def _judged(self, entry: Entry) -> Found:
        now = self._now()
        if entry.expires is not None and entry.expires <= now:
            return Found(None, f"{expired(entry.expires, now)} ({_of(entry)})")
        try:
            self._values.get(entry.output)
        except UserError:
            return Found(None, f"the output is no longer stored ({_of(entry)})")
        except ApiError:
            return Found(None, f"the stored output is damaged ({_of(entry)})")
        return Found(entry.output, f"taken over from {_of(entry)}: {MATCHED}")

    def _differences(self, entry: Entry) -> list[str]:
        try:
            earlier = Parts.from_json(self._values.get(entry.manifest))
        except (UserError, ApiError, KeyError, TypeError, ValueError):
            return differences(entry.parts, self._parts.summary(), lines=False)
        return differences(earlier, self._parts)

    def keep(self, output: Reference) -> None:
        """Keep the output of the step, which succeeded."""
        if not self._is_known:
            return
        made = self._now()
        ttl_s = (self._step.cache or {}).get("ttl_s")
        try:
            self._entries.add(
                Entry(
                    key=self._key,
                    line=self._line,
                    parts=self._parts.summary(),
                    manifest=self._values.put(self._parts.to_json()),
                    output=output,
                    made=made,
                    expires=None if ttl_s is None else made + timedelta(seconds=float(ttl_s)),
                    run=self._run,
                    step=self._step.name,
                )
            )
        except (ApiError, OverflowError) as error:
            log.warning("the output is not kept: %s", error)


def _of(entry: Entry) -> str:
    return f"{entry.run or 'a run'} of {entry.made:%Y-%m-%d %H:%M} UTC"
