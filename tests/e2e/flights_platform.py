"""What the tests of the flights share: the platform's books, and waiting for what they should say."""

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import httpx

from api.client import Client
from api.config import Config
from api.gen.michelangelo.api.v2 import pipeline_run_pb2

PROJECT = "flights"
SUCCEEDED = pipeline_run_pb2.PIPELINE_RUN_STATE_SUCCEEDED
ENDED = {
    SUCCEEDED,
    pipeline_run_pb2.PIPELINE_RUN_STATE_FAILED,
    pipeline_run_pb2.PIPELINE_RUN_STATE_KILLED,
    pipeline_run_pb2.PIPELINE_RUN_STATE_SKIPPED,
}


def eventually(look: Callable[[], Any], what: str, *, timeout_s: float = 60) -> Any:
    """Return what `look` finds, as soon as it finds something."""
    deadline = time.monotonic() + timeout_s
    while True:
        found = look()
        if found:
            return found
        assert time.monotonic() < deadline, f"{what} did not happen in {timeout_s:.0f} s"
        time.sleep(0.25)


@dataclass(frozen=True)
class Flights:
    """The example on a running platform.  `ma`: the command; `api`: a client; `first_run`: its first finished run."""

    ma: Callable[..., Any]
    config: Config
    api: Client
    first_run: str = ""

    def run(self, name: str) -> Any:
        """Return a PipelineRun."""
        return self.api.get("PipelineRun", PROJECT, name)

    def until_ended(self, name: str, *, timeout_s: float = 180) -> Any:
        """Return a PipelineRun that has ended."""
        return eventually(
            lambda: found if (found := self.run(name)).status.state in ENDED else None,
            f"the end of {name}",
            timeout_s=timeout_s,
        )

    def until_step(self, name: str, step: str, *, timeout_s: float = 180) -> None:
        """Wait until a step of a run works."""
        running = pipeline_run_pb2.PIPELINE_RUN_STEP_STATE_RUNNING

        def working() -> bool:
            steps = {item.name: item.state for item in self.run(name).status.steps}
            return steps.get(step) == running

        eventually(working, f"{step} of {name}", timeout_s=timeout_s)

    @contextlib.contextmanager
    def airflow(self) -> Iterator[httpx.Client]:
        """Give a client of Airflow's REST API."""
        with httpx.Client(base_url=self.config.airflow_url, timeout=20) as http:
            token = http.get("/auth/token").json()["access_token"]
            http.headers["Authorization"] = f"Bearer {token}"
            yield http

    def predict(self, request: dict[str, Any]) -> httpx.Response:
        """POST a request to the deployment."""
        url = f"{self.config.serving_url}/v2/models/{PROJECT}.late/infer"
        return httpx.post(url, json=request, timeout=20)
