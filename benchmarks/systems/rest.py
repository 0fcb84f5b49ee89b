"""Airflow's REST API for the sides that use plain Airflow: what a user without the platform would call, kept alive."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Mapping
from datetime import datetime
from typing import Any
from urllib.parse import quote

TIMEOUT_S = 30.0
IDLE_S = 3.0
"""Airflow's server closes a connection that was idle for 5 s: ours is opened anew before that."""
LOOK_S = 0.005
STATE_LOOK_S = 0.05
"""Between two looks at a run: a server that is asked all the time would have less time for its tasks."""
TERMINAL = ("success", "failed")


class Refused(Exception):
    """Airflow answered something else than was asked for."""


class PlainAirflow:
    """One connection to Airflow's API server on a loopback port."""

    def __init__(self, port: int) -> None:
        self._http = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT_S)
        self._used = time.monotonic()
        self._headers = {"Content-Type": "application/json"}
        token = self._ask("GET", "/auth/token")["access_token"]
        self._headers["Authorization"] = f"Bearer {token}"

    def close(self) -> None:
        """Close the connection."""
        self._http.close()

    def dag(self, dag_id: str) -> Mapping[str, Any] | None:
        """Return a DAG, None if Airflow does not show it."""
        try:
            found: Mapping[str, Any] = self.get(f"/dags/{quote(dag_id)}")
        except Refused:
            return None
        return found

    def trigger(self, dag_id: str, run_id: str, conf: Mapping[str, Any]) -> None:
        """Create a run."""
        body = {"dag_run_id": run_id, "logical_date": None, "conf": dict(conf)}
        self._ask("POST", f"/api/v2/dags/{quote(dag_id)}/dagRuns", body)

    def pause(self, dag_id: str) -> None:
        """Pause a DAG: its runs are accepted and do not begin."""
        self._ask("PATCH", f"/api/v2/dags/{quote(dag_id)}", {"is_paused": True})

    def run(self, dag_id: str, run_id: str) -> Mapping[str, Any]:
        """Return a run."""
        found: Mapping[str, Any] = self.get(_path(dag_id, run_id))
        return found

    def run_if_there(self, dag_id: str, run_id: str) -> Mapping[str, Any] | None:
        """Return a run, None if there is none (yet)."""
        try:
            return self.run(dag_id, run_id)
        except Refused:
            return None

    def asset_event(self, asset: int, extra: Mapping[str, Any]) -> None:
        """Tell that an asset was updated."""
        self._ask("POST", "/api/v2/assets/events", {"asset_id": asset, "extra": dict(extra)})

    def ended(self, dag_id: str, run_id: str) -> None:
        """Wait until a run has ended."""

        def over() -> bool:
            try:
                return self.run(dag_id, run_id)["state"] in TERMINAL
            except TimeoutError:
                # It stands still for longer than one waits for an answer, now and then; the run goes on.
                self._http.close()
                return False

        until(over, look_s=STATE_LOOK_S)

    def first_start(self, dag_id: str, run_id: str) -> str:
        """Return when the first task of a run started, ISO 8601.  Raises ValueError if none has."""
        tasks = self.get(f"{_path(dag_id, run_id)}/taskInstances")["task_instances"]
        return str(min(task["start_date"] for task in tasks if task["start_date"]))

    def ends(self, dag_id: str, run_id: str) -> dict[str, float]:
        """Return when each task of a run ended, by its name, and the run, by an empty one, in seconds since 1970."""
        tasks = self.get(f"{_path(dag_id, run_id)}/taskInstances")["task_instances"]
        return {
            **{task["task_id"]: epoch(task["end_date"]) for task in tasks if task["end_date"]},
            "": epoch(self.run(dag_id, run_id)["end_date"]),
        }

    def get(self, path: str) -> Any:
        """GET below `/api/v2`.  Raises Refused."""
        return self._ask("GET", f"/api/v2{path}")

    def _ask(self, method: str, path: str, body: Any = None) -> Any:
        if time.monotonic() - self._used > IDLE_S:
            self._http.close()
        self._http.request(method, path, None if body is None else json.dumps(body), self._headers)
        answer = self._http.getresponse()
        text = answer.read()
        self._used = time.monotonic()
        if answer.status >= 300:
            raise Refused(f"{method} {path}: {answer.status} {text[:300]!r}")
        return json.loads(text) if text else None


def _path(dag_id: str, run_id: str) -> str:
    return f"/dags/{quote(dag_id)}/dagRuns/{quote(run_id, safe='')}"


def until(condition: Any, *, timeout_s: float = 120.0, look_s: float = LOOK_S) -> Any:
    """Wait for a true value and return it.  Raises TimeoutError."""
    deadline = time.monotonic() + timeout_s
    while not (found := condition()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"still not after {timeout_s:.0f} s")
        time.sleep(look_s)
    return found


def epoch(text: str) -> float:
    """Return an instant of Airflow's, ISO 8601, in seconds since 1970."""
    return datetime.fromisoformat(text).timestamp()
