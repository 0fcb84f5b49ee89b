"""The two servers that answer predictions of one registered model: ours and MLflow's.  Neither is told the other's."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from api.cli.airflow_env import process, without_airflow
from api.cli.platform import sessions
from api.config import Config
from benchmarks.systems.flights import MODEL, Registered
from benchmarks.systems.processes import Usage, free_ports, started, usage, wait_until

TOKEN = "a-token-of-the-benchmarks"
SERVER_CORE = 0
CLIENT_CORE = 1
TIMEOUT_S = 5.0


@dataclass(frozen=True)
class Answering:
    """A server that answers on a loopback port; `session` holds all its processes."""

    port: int
    session: int

    def usage(self) -> Usage:
        """Return what it has used since it started."""
        return usage(sessions.members([self.session]))


@contextlib.contextmanager
def ours(home: Path, model: Registered) -> Iterator[Answering]:
    """Run `python -m serving.server` on `home` with the model deployed."""
    serving, unused = free_ports(2)
    config = Config(home=home, projects_root=home, serving_port=serving, api_http_port=unused, token=TOKEN)
    environ = {**without_airflow(os.environ), **config.environ(), **process()}
    log = home / "serving.log"
    argv = [sys.executable, "-m", "serving.server"]
    with started(argv, environ=environ, log=log, core=SERVER_CORE) as server:
        wait_until(lambda: asked(serving, "GET", "/v2/health/ready")[0] == 200, process=server, log=log)
        _deploy(serving, model, server, log)
        yield Answering(serving, server.pid)


def _deploy(port: int, model: Registered, server: subprocess.Popen[bytes], log: Path) -> None:
    path = f"/admin/deployments/{MODEL}"
    wanted = {"revision": model.uri.rpartition("/")[2], "artifact_uri": model.artifact_uri, "generation": 1}
    asked(port, "PUT", path, wanted)
    wait_until(lambda: asked(port, "GET", path)[1].get("state") == "READY", process=server, log=log)


@contextlib.contextmanager
def mlflow(folder: Path, model: Registered) -> Iterator[Answering]:
    """Run `mlflow models serve --env-manager local` with the same model version."""
    (port,) = free_ports(1)
    environ = {
        **without_airflow(os.environ),
        **process(),
        "MLFLOW_TRACKING_URI": model.tracking_uri,
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }
    command = Path(sys.executable).parent / "mlflow"
    argv = [str(command), "models", "serve", "-m", model.uri, "--env-manager", "local", "-p", str(port)]
    log = folder / "mlflow.log"
    with started([*argv, "-h", "127.0.0.1"], environ=environ, log=log, core=SERVER_CORE) as server:
        wait_until(lambda: asked(port, "GET", "/ping")[0] == 200, process=server, log=log)
        yield Answering(port, server.pid)


def asked(port: int, method: str, path: str, body: Any = None) -> tuple[int, Any]:
    """Return status and document; 0 if nothing answers yet."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT_S)
    try:
        content = None if body is None else json.dumps(body).encode()
        connection.request(method, path, content, {"Authorization": f"Bearer {TOKEN}"})
        answer = connection.getresponse()
        text = answer.read()
        return answer.status, json.loads(text) if text.startswith(b"{") else {}
    except (OSError, http.client.HTTPException):
        return 0, {}
    finally:
        connection.close()
