"""What a deferred task waits on: a job, a rollout, a trigger's next run.  Holds JSON only; never blocks the loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from airflow.triggers.base import BaseTrigger, TriggerEvent

from operators.engines import engine

ROLLOUT_LOOK_S = 0.5
TURN_LOOK_S = 2.0


class JobTrigger(BaseTrigger):
    """Fires when a job no longer runs.  Stops the job when a person kills the task, not when the triggerer restarts."""

    def __init__(self, *, engine: str, job_id: str) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.engine = engine
        self.job_id = job_id

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return class path and arguments."""
        return "operators.triggers.JobTrigger", {"engine": self.engine, "job_id": self.job_id}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Wait for the job."""
        found = await engine(self.engine).wait(self.job_id)
        yield TriggerEvent({"job_id": self.job_id, "state": found.state.value})  # type: ignore[no-untyped-call]

    async def on_kill(self) -> None:
        """Stop the job."""
        await asyncio.to_thread(engine(self.engine).cancel, self.job_id)


class RolloutTrigger(BaseTrigger):
    """Fires when a deployment serves a revision, or has refused it."""

    def __init__(self, *, namespace: str, deployment: str, revision: str) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.namespace = namespace
        self.deployment = deployment
        self.revision = revision

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return class path and arguments."""
        arguments = {"namespace": self.namespace, "deployment": self.deployment, "revision": self.revision}
        return "operators.triggers.RolloutTrigger", arguments

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Look until the rollout has ended."""
        from operators.hooks.michelangelo import rollout

        while True:
            done, message = await asyncio.to_thread(rollout, self.namespace, self.deployment, self.revision)
            if done is not None:
                yield TriggerEvent({"complete": done, "message": message})  # type: ignore[no-untyped-call]
                return
            await asyncio.sleep(ROLLOUT_LOOK_S)


class TurnTrigger(BaseTrigger):
    """Fires when the next run of a TriggerRun may be created, or when there is nothing more to wait for."""

    def __init__(self, *, namespace: str, name: str, uid: str, project: str, most: int, not_before: float) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.asked: dict[str, Any] = {
            "namespace": namespace,
            "name": name,
            "uid": uid,
            "project": project,
            "most": most,
            "not_before": not_before,
        }

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return class path and arguments."""
        return "operators.triggers.TurnTrigger", dict(self.asked)

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Look until it is its turn.  An API server that is away is waited for."""
        while True:
            if await asyncio.to_thread(self._look):
                yield TriggerEvent({"turn": True})  # type: ignore[no-untyped-call]
                return
            await asyncio.sleep(TURN_LOOK_S)

    def _look(self) -> bool:
        from api.errors import Unavailable
        from operators.hooks.michelangelo import client, is_turn

        try:
            with client() as api:
                return is_turn(api, **self.asked)
        except Unavailable:
            return False
