"""A serving backend that keeps its book in memory.  Loads no model: a test says which artifacts are broken."""

from __future__ import annotations

from api.backends.base import Observed, Target
from api.errors import Unavailable


class FakeBackend:
    """Satisfies `ServingBackend`.  `broken`: artifact URIs that fail their checks; `slow`: those that stay loading."""

    def __init__(self) -> None:
        self.broken: set[str] = set()
        self.slow: set[str] = set()
        self.down = False
        self.applied: list[Target] = []
        self._current: dict[str, str] = {}
        self._wanted: dict[str, Target] = {}
        self._refused: set[Target] = set()

    def _answer(self) -> None:
        if self.down:
            raise Unavailable("the inference server does not answer")

    def url(self) -> str:
        """Return the base URL of predictions."""
        return "http://127.0.0.1:15568"

    async def apply(self, target: Target) -> None:
        """Begin a rollout."""
        self._answer()
        self.applied.append(target)
        self._wanted[target.deployment] = target
        self._refused.discard(target)

    async def observe(self, deployment: str) -> Observed | None:
        """Return the state of a deployment; what can be loaded is loaded by the second look."""
        self._answer()
        target = self._wanted.get(deployment)
        if target is None:
            return None
        current = self._current.get(deployment, "")
        if current == target.revision:
            return Observed("READY", current, "", generation=target.generation)
        if target.artifact_uri in self.broken:
            self._refused.add(target)
        if target in self._refused:
            failed = ("INTEGRITY_FAILED", "model.onnx differs")
            return Observed("FAILED", current, target.revision, *failed, generation=target.generation)
        if target.artifact_uri not in self.slow:
            self._current[deployment] = target.revision
        return Observed("LOADING", current, target.revision, generation=target.generation)

    async def delete(self, deployment: str) -> None:
        """Forget a deployment."""
        self._answer()
        self._wanted.pop(deployment, None)
        self._current.pop(deployment, None)

    async def healthy(self) -> bool:
        """Whether it answers."""
        return not self.down

    def restart(self) -> None:
        """Lose everything, as a server without memory of its own does."""
        self._wanted.clear()
        self._current.clear()
