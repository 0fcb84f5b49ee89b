"""Whether a component answers: small blocking HTTP checks with a short limit.  Decides nothing."""

from __future__ import annotations

import http.client
import json
import ssl
from collections.abc import Callable
from datetime import datetime
from typing import Any

from api.config import LOOPBACK, Config

TIMEOUT_S = 3.0
Probe = Callable[[float], bool]
"""Given when its process started (epoch seconds), tells whether the component is healthy."""


def answers(port: int, path: str, *, host: str = LOOPBACK, tls: ssl.SSLContext | None = None) -> Probe:
    """Return a probe: HTTP 200 on a port of this machine."""

    def probe(_: float) -> bool:
        return fetch(port, path, host=host, tls=tls)[0] == 200

    return probe


def airflow_part(config: Config, part: str) -> Probe:
    """Return a probe of one of Airflow's daemons: its heartbeat as Airflow's API server reports it.

    A heartbeat from before the process started is that of an earlier one and does not count.
    """

    def probe(started: float) -> bool:
        status, text = fetch(config.airflow_port, "/api/v2/monitor/health")
        report = _json(text).get(part) or {} if status == 200 else {}
        beat = report.get(f"latest_{part}_heartbeat")
        return report.get("status") == "healthy" and isinstance(beat, str) and _epoch(beat) >= started

    return probe


def fetch(port: int, path: str, *, host: str = LOOPBACK, tls: ssl.SSLContext | None = None) -> tuple[int, str]:
    """GET from a port of this machine.  Returns status and text; status 0 if nothing answers."""
    if tls is None:
        connection = http.client.HTTPConnection(host, port, timeout=TIMEOUT_S)
    else:
        connection = http.client.HTTPSConnection(host, port, timeout=TIMEOUT_S, context=tls)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read(1_000_000).decode("utf-8", "replace")
    except (OSError, http.client.HTTPException):
        return 0, ""
    finally:
        connection.close()


def _json(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _epoch(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()
