"""The fake Airflow behind a network of which the seed decides: late, lost, doubled and refused messages, outages.

Requests take the product's own client up to the HTTP message, and the fake's own answers from there.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any
from urllib.parse import unquote

from starlette.datastructures import QueryParams
from starlette.exceptions import HTTPException

from api.airflow import TIMEOUT_S, Airflow
from api.errors import AlreadyExists, InvalidArgument, NotFound, Unavailable
from tests.robustness.fakes.airflow import FakeAirflow, FakeRun
from tests.robustness.fakes.airflow_book import run_json
from tests.simulation.virtual import WHO, Dead, VirtualLoop, deliver

REFUSALS = {404: NotFound, 409: AlreadyExists, 400: InvalidArgument, 422: InvalidArgument}


class Weather:
    """What the network does to a message.  `down`: nobody answers; `bad`: how many messages of a hundred suffer."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self.down = False
        self.bad = 0.0

    def fate(self) -> str:
        if self.down:
            return "refused"
        if self._rng.random() >= self.bad / 100:
            return "fine"
        return self._rng.choice(("error", "request lost", "answer lost", "late"))


class SimulatedAirflow(FakeAirflow):
    """Answers requests without HTTP, and runs its DAG runs by itself at random speed.

    said: what was done, for the trace.
    """

    def __init__(self, loop: VirtualLoop, rng: random.Random, said: Callable[[str], None], **paths: Any) -> None:
        super().__init__(**paths)
        self._loop, self._rng, self._said = loop, rng, said

    def begin(self, dag_id: str, run_id: str, conf: dict[str, Any] | None = None) -> FakeRun:
        run = super().begin(dag_id, run_id, conf)
        self._said(f"begin {run_id}")
        fail = self._rng.choice(("", "", "", "first", "second"))
        verdict = self._rng.choice((None, {"kind": "user", "message": "no"}, {"kind": "system", "message": "disk"}))
        # One in eight never ends by itself.
        if self._rng.random() > 1 / 8:
            self._loop.outside(self._rng.uniform(0.1, 20), lambda: self._go_on(run, fail, verdict))
        return run

    def _go_on(self, run: FakeRun, fail: str, verdict: Any) -> None:
        if run.state in ("queued", "running") and (run.dag_id, run.run_id) in self.runs:
            self.advance(run, fail=fail, verdict=verdict)
            self._said(f"{run.run_id} {run.state} {[task.state for task in run.tasks.values()]}")
            self._loop.outside(self._rng.uniform(0.5, 90), lambda: self._go_on(run, fail, verdict))

    def answer(self, method: str, path: str, sent: Mapping[str, Any]) -> Any:
        """Do what a request asks.  Raises what the client would make of the answer."""
        parts = [unquote(part) for part in path.strip("/").split("/")]
        names = dict(zip(("", "dag", "", "run", "", "task", "", "key"), parts, strict=False))
        params = [
            (name, str(one))
            for name, value in (sent.get("params") or {}).items()
            for one in (value if isinstance(value, list) else [value])
        ]
        request: Any = SimpleNamespace(path_params=names | {"token": parts[-1]}, query_params=QueryParams(params))
        if parts[-1] in ("details", "dags") or method == "PUT":
            self.look_for_files()
        try:
            return self._work(method, parts)(request, sent.get("json") or {})
        except HTTPException as refusal:
            raise REFUSALS.get(refusal.status_code, Unavailable)(
                f"Airflow answered {refusal.status_code}: {refusal.detail}"
            ) from None

    def _work(self, method: str, parts: list[str]) -> Callable[[Any, Any], Any]:
        last = parts[-1] if len(parts) % 2 else "*"
        table: Mapping[tuple[str, str], Callable[[Any, Any], Any]] = {
            ("GET", "dags1"): self._list_dags,
            ("GET", "details3"): lambda request, _: self._dag_json(self._dag(request), details=True),
            ("PATCH", "*2"): self._patch_dag,
            ("DELETE", "*2"): self._delete_dag,
            ("PUT", "*2"): self._parse_file,
            ("GET", "dagRuns3"): self._list_runs,
            ("POST", "dagRuns3"): self._post_run,
            ("GET", "*4"): lambda request, _: run_json(self._run(request)),
            ("PATCH", "*4"): self._patch_run,
            ("DELETE", "*4"): self._delete_run,
            ("GET", "taskInstances5"): self._list_tasks,
            ("GET", "*8"): self._log if "logs" in parts[6:7] else self._xcom,
            ("GET", "eventLogs1"): self._events,
            ("GET", "tries7"): self._tries,
            ("POST", "clearTaskInstances3"): self._clear_tasks,
            ("GET", "tasks3"): self._dag_tasks,
            ("GET", "*2"): self._pool,
        }
        return table[method, f"{last}{len(parts)}"]


class Client(Airflow):
    """The product's client of a simulated Airflow."""

    def __init__(self, airflow: SimulatedAirflow, weather: Weather, loop: VirtualLoop, rng: random.Random) -> None:
        self._url = "http://airflow"
        self._airflow, self._weather, self._loop, self._rng = airflow, weather, loop, rng

    async def _call(self, method: str, path: str, **sent: Any) -> Any:
        who = WHO.get()
        if who is not None and who.dead:
            raise Dead
        fate = self._weather.fate()
        answer: asyncio.Future[Any] = self._loop.create_future()

        def arrive() -> None:
            try:
                result, error = self._airflow.answer(method, path, sent), None
            except Exception as raised:
                result, error = None, raised
            if fate in ("fine", "late"):
                self._loop.outside(self._rng.uniform(0.001, 0.05), lambda: deliver(answer, result, error))

        if fate in ("refused", "error"):
            await asyncio.sleep(0.01)
            raise Unavailable("Airflow does not answer" if fate == "refused" else "Airflow answered 503")
        if fate != "request lost":
            late_s = self._rng.uniform(0.5, 60) if fate == "late" else self._rng.uniform(0.001, 0.05)
            self._loop.outside(late_s, arrive)
        try:
            async with asyncio.timeout(TIMEOUT_S):
                return await answer
        except TimeoutError:
            raise Unavailable("Airflow does not answer in time") from None
