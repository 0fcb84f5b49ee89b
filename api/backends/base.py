"""The port of a serving backend: apply, observe, delete."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class Target:
    """What should answer.  `deployment`: `{project}.{name}`; `generation` grows with every change of mind."""

    deployment: str
    revision: str
    artifact_uri: str
    generation: int


@dataclass(frozen=True)
class Observed:
    """What answers.  `state`: LOADING, READY, FAILED; `current` and `candidate` are revisions, empty for none.

    generation: of the target that the state speaks of.
    """

    state: str
    current: str
    candidate: str
    reason: str = ""
    message: str = ""
    generation: int = 0


class ServingBackend(Protocol):
    """Every method raises Unavailable when the backend does not answer."""

    async def apply(self, target: Target) -> None:
        """Begin to roll `target` out; returns before it is done.  Doing it again changes nothing."""
        ...

    async def observe(self, deployment: str) -> Observed | None:
        """Return the state of a deployment, None if the backend does not know it."""
        ...

    async def delete(self, deployment: str) -> None:
        """Drain a deployment and forget it.  Doing it again changes nothing."""
        ...

    async def healthy(self) -> bool:
        """Whether the backend answers."""
        ...

    def url(self) -> str:
        """Return the base URL of predictions."""
        ...
