"""A server that is to die at a named place, and the caller who asks it again until it is answered."""

from __future__ import annotations

import signal
import uuid
from typing import Any

import grpc

from api.kinds import kinds
from tests.robustness.clients import LOST
from tests.robustness.killed_server import KilledServer
from tests.robustness.platforms import PROJECT, READY_S

# Passed by the leader's renewals too, from the start on.
PASSES = {"store.before_commit": 12, "store.after_commit": 12}


class Mortal:
    """A server that dies at a place once and is then started again."""

    def __init__(self, server: KilledServer) -> None:
        self._server = server
        self._waits = False

    def begin(self, point: str) -> None:
        """Start a life that ends at `point`."""
        self._server.kill()
        self._server.start(f"{point}=kill@{PASSES.get(point, 1)}")
        self._waits = True

    def die(self) -> None:
        """Wait for the death, if it has not been, and start a life without one."""
        if self._waits:
            assert self._server.wait_for_death(READY_S) == -signal.SIGKILL
            self._server.start()
            self._waits = False

    def submit(self, name: str) -> str:
        """Create a run, again until it is answered; return its uid."""
        run = kinds()["PipelineRun"].new(PROJECT, name)
        run.spec.pipeline.namespace, run.spec.pipeline.name = PROJECT, "train"
        named = str(uuid.uuid4())
        while True:
            connection = self._server.connect()
            try:
                made = connection.call("PipelineRun", "Create", request_id=named, pipeline_run=run)
                return str(made.pipeline_run.metadata.uid)
            except grpc.RpcError as error:
                lost: Any = error
                if lost.code() not in LOST:
                    raise
                self.die()
            finally:
                connection.close()
