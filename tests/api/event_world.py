"""A real server with its broker, and what tests of events do on it.  Fakes nothing."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from api.broker.broker import Broker
from api.client import Client
from api.errors import Conflict
from api.gen.michelangelo.api.v2 import pipeline_run_pb2 as runs
from api.gen.michelangelo.platform.v1 import subscription_pb2 as wire
from api.kinds import kinds
from tests.api.running import Served
from tests.patience import soon

LOOK_S = 0.02


class EventWorld:
    """A server over a store of its own; brokers begin and end as leaders do."""

    def __init__(self, folder: Path) -> None:
        self.served = Served(folder / "store.db")
        self.api = Client(self.served.address)
        self.project = self.served.project()
        self.pipeline("train")
        self._broker: asyncio.Future[None] | None = None
        self.begin()

    def begin(self) -> None:
        """Let a broker that knows nothing of an earlier one lead."""
        self._broker = self.served.run(self._begun())

    async def _begun(self) -> asyncio.Task[None]:
        return asyncio.get_running_loop().create_task(Broker(self.served.resources).run())

    def end(self) -> None:
        """Stop the broker wherever it is."""
        if self._broker is not None:
            self.served.run(_ended(self._broker))
            self._broker = None

    def close(self) -> None:
        """Stop everything."""
        self.end()
        self.api.close()
        self.served.close()

    def pipeline(self, name: str, project: str = "") -> Any:
        """Create a pipeline."""
        new = kinds()["Pipeline"].new(project or self.project, name)
        new.spec.manifest.file_path = "train"
        return self.api.create(new)

    def subscription(self, name: str, *events: str | dict[str, Any], pipeline: str = "train", **spec: Any) -> Any:
        """Create a subscription to events, given by name or in full."""
        return self.api.create(subscription(self.project, name, *events, pipeline=pipeline, **spec))

    def publish(self, name: str, data: Any = None, key: str = "", **more: Any) -> Any:
        """Publish an event."""
        return self.api.publish(name, data, namespace=self.project, key=key, **more)

    def runs(self) -> list[Any]:
        """Return the runs that there are, oldest first."""
        found = self.api.list("PipelineRun", self.project)
        return sorted(found, key=lambda run: (run.metadata.creationTimestamp.ToNanoseconds(), run.metadata.name))

    def until_runs(self, count: int) -> list[Any]:
        """Return the runs as soon as there are so many."""
        found: list[Any] = until(lambda: all_ if len(all_ := self.runs()) >= count else None, f"{count} runs")
        return found

    def until_told(self, name: str, holds: Callable[[Any], bool]) -> Any:
        """Return a subscription whose status says something."""

        def look() -> Any:
            found = self.api.get("Subscription", self.project, name)
            return found if holds(found.status) else None

        return until(look, f"the status of {name}")

    def pause(self, name: str, *, paused: bool) -> None:
        """Pause a subscription or let it go on, whatever its status says meanwhile."""
        while True:
            stored = self.api.get("Subscription", self.project, name)
            stored.spec.paused = paused
            with contextlib.suppress(Conflict):
                self.api.update(stored)
                return

    def quiet(self) -> None:
        """Wait until all that was published was taken: an event behind it was."""
        name = f"quiet-{time.monotonic_ns()}"
        self.subscription(name, name)
        self.publish(name)
        run = self.until_told(name, lambda status: status.runs == 1).status.last_run.name
        self.api.delete("PipelineRun", self.project, run)
        self.api.delete("Subscription", self.project, name)

    def ended(self, run: Any, state: str = "SUCCEEDED", **outputs: Any) -> Any:
        """Let a run end as its controller would."""
        found = self.api.get("PipelineRun", run.metadata.namespace, run.metadata.name)
        found.status.state = runs.PipelineRunState.Value(f"PIPELINE_RUN_STATE_{state}")
        found.status.end_time.GetCurrentTime()
        for step, output in outputs.items():
            made = found.status.steps.add(name=step, state=runs.PIPELINE_RUN_STEP_STATE_SUCCEEDED)
            made.output.update(output)
        return self.served.run(self.served.resources.update_status(found))

    def run(self, name: str, pipeline: str = "train") -> Any:
        """Create a run by hand."""
        new = kinds()["PipelineRun"].new(self.project, name)
        new.spec.pipeline.namespace, new.spec.pipeline.name = self.project, pipeline
        return self.api.create(new)


def subscription(project: str, name: str, *events: str | dict[str, Any], pipeline: str = "train", **spec: Any) -> Any:
    """Return a subscription to events, given by name or in full."""
    from google.protobuf import json_format

    new = kinds()["Subscription"].new(project, name)
    new.spec.pipeline.name = pipeline
    listed = [{"name": event} if isinstance(event, str) else event for event in events]
    json_format.ParseDict({"events": listed, **spec}, new.spec)
    return new


def condition(path: str, operator: str, *values: Any) -> dict[str, Any]:
    """Return a comparison."""
    assert f"EVENT_OPERATOR_{operator}" in wire.EventOperator.DESCRIPTOR.values_by_name
    return {"path": path, "operator": f"EVENT_OPERATOR_{operator}", "values": list(values)}


def until(look: Callable[[], Any], what: str, promised_s: float = 6.0) -> Any:
    """Return what `look` finds, as soon as it finds something."""
    deadline = time.monotonic() + soon(promised_s)
    while True:
        if found := look():
            return found
        assert time.monotonic() < deadline, f"{what} did not come"
        time.sleep(LOOK_S)


async def _ended(task: asyncio.Future[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
