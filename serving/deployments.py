"""Deployments: which revision answers, which one is coming.  A candidate that fails leaves the old one answering.

A revision is loaded and checked in a thread; the switch is one assignment in the event loop, so that every request is
answered by the old one or the new one.  The old one is freed when the last request that holds it is answered.
"""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import Callable
from dataclasses import dataclass

from api.errors import Conflict
from operators.features.artifact import ArtifactError
from serving.background import in_background
from serving.models import Model

LOAD_S = 120.0
LOADING, READY, FAILED = "LOADING", "READY", "FAILED"

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Target:
    """What should answer."""

    revision: str
    artifact_uri: str
    generation: int

    def same(self, revision: str, artifact_uri: str) -> bool:
        """Whether it is this revision of this artifact."""
        return (self.revision, self.artifact_uri) == (revision, artifact_uri)


@dataclass(frozen=True)
class Serving:
    """What answers."""

    revision: str
    artifact_uri: str
    model: Model


@dataclass(frozen=True)
class Failure:
    """Why a candidate does not answer.  `reason`: stable UPPER_SNAKE."""

    reason: str
    message: str


class Deployment:
    """One deployment.  Belongs to the event loop."""

    def __init__(self, name: str, open_model: Callable[[str], Model], *, load_s: float = LOAD_S) -> None:
        self.name = name
        self.generation = 0
        self.current: Serving | None = None
        self.candidate: Target | None = None
        self.failure: Failure | None = None
        self._open_model = open_model
        self._load_s = load_s
        self._loading: asyncio.Task[None] | None = None

    @property
    def state(self) -> str:
        """LOADING, READY or FAILED."""
        if self.failure is not None:
            return FAILED
        return LOADING if self.candidate is not None or self.current is None else READY

    def apply(self, target: Target) -> None:
        """Pursue a target.  The same one again changes nothing; one of a newer generation retries what failed.

        Raises Conflict for a generation that is older than one already seen.
        """
        if target.generation < self.generation:
            text = f"generation {target.generation} of {self.name} is older than {self.generation}"
            raise Conflict(text, reason="STALE_GENERATION")
        newer = target.generation > self.generation
        self.generation = target.generation
        if self.candidate is not None and self.candidate.same(target.revision, target.artifact_uri):
            if self.failure is None or not newer:
                return
        elif self.current is not None and target.same(self.current.revision, self.current.artifact_uri):
            self.stop()
            return
        self.stop()
        self.candidate = target
        self._loading = asyncio.create_task(self._load(target))

    def stop(self) -> None:
        """Give up the candidate; what answers goes on."""
        if self._loading is not None:
            self._loading.cancel()
        self._loading = None
        self.candidate = None
        self.failure = None

    async def _load(self, target: Target) -> None:
        try:
            opening = in_background(functools.partial(self._open_model, target.artifact_uri), name=f"load-{self.name}")
            model = await asyncio.wait_for(opening, self._load_s)
        except ArtifactError as error:
            self._fail(target, Failure(error.reason, error.message))
        except TimeoutError:
            self._fail(target, Failure("LOAD_TIMEOUT", f"the model was not loaded within {self._load_s:g} s"))
        except MemoryError:
            self._fail(target, Failure("OUT_OF_MEMORY", "the model does not fit into memory"))
        except Exception as error:
            log.exception("%s: revision %s cannot be loaded", self.name, target.revision)
            self._fail(target, Failure("LOAD_FAILED", f"the model cannot be loaded: {type(error).__name__}"))
        else:
            self.current = Serving(target.revision, target.artifact_uri, model)
            self.candidate = None
            log.info("%s: revision %s answers", self.name, target.revision)

    def _fail(self, target: Target, failure: Failure) -> None:
        self.failure = failure
        log.warning("%s: revision %s failed: %s %s", self.name, target.revision, failure.reason, failure.message)


class Deployments:
    """All deployments by name, `{project}.{deployment}`.  open_model: loads and checks a model; runs in a thread."""

    def __init__(self, open_model: Callable[[str], Model]) -> None:
        self._open_model = open_model
        self._by_name: dict[str, Deployment] = {}

    def find(self, name: str) -> Deployment | None:
        """Return a deployment."""
        return self._by_name.get(name)

    def every(self) -> list[Deployment]:
        """Return all, by name."""
        return [self._by_name[name] for name in sorted(self._by_name)]

    def apply(self, name: str, target: Target) -> Deployment:
        """Pursue a target.  Raises Conflict."""
        found = self._by_name.get(name)
        if found is None:
            found = self._by_name[name] = Deployment(name, self._open_model)
        found.apply(target)
        return found

    def delete(self, name: str) -> bool:
        """Forget a deployment; requests that it is answering are answered.  Return whether there was one."""
        found = self._by_name.pop(name, None)
        if found is not None:
            found.stop()
        return found is not None

    def stop(self) -> None:
        """Give up every candidate."""
        for deployment in self._by_name.values():
            deployment.stop()
