"""The servers that keep resources: ours, MLflow's and etcd.  Each alone on one core, on a disk, each write fsynced."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from api.cli.airflow_env import process, without_airflow
from api.cli.platform import sessions
from api.config import Config
from benchmarks.systems.processes import Usage, free_ports, started, usage, wait_until
from benchmarks.systems.servers import SERVER_CORE, TOKEN, asked


@dataclass(frozen=True)
class Keeping:
    """A server that keeps resources.  ports: `http` and `grpc`, 0 where it has none; ready_s: from start to answer."""

    http: int
    grpc: int
    session: int
    ready_s: float

    def usage(self) -> Usage:
        """Return what it has used since it started."""
        return usage(sessions.members([self.session]))


@contextlib.contextmanager
def ours(home: Path, *, tokens_file: Path | None = None) -> Iterator[Keeping]:
    """Run `python -m api.server` on `home`, without the rest of the platform."""
    grpc, http, airflow, serving = free_ports(4)
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    config = Config(
        home=home,
        projects_root=home,
        api_port=grpc,
        api_http_port=http,
        airflow_port=airflow,
        serving_port=serving,
        token=TOKEN,
    )
    environ = {**without_airflow(os.environ), **config.environ(), **process()}
    if tokens_file is not None:
        environ["MA_TOKENS_FILE"] = str(tokens_file)
    log, begun = home / "server.log", time.monotonic()
    argv = [sys.executable, "-P", "-m", "api.server"]
    with started(argv, environ=environ, log=log, core=SERVER_CORE) as server:
        wait_until(lambda: asked(http, "GET", "/healthz")[0] == 200, process=server, log=log)
        yield Keeping(http, grpc, server.pid, time.monotonic() - begun)


@contextlib.contextmanager
def mlflow(folder: Path) -> Iterator[Keeping]:
    """Run MLflow's server on SQLite, one worker."""
    (port,) = free_ports(1)
    environ = {**without_airflow(os.environ), **process(), "MLFLOW_DISABLE_TELEMETRY": "true"}
    log, begun = folder / "mlflow.log", time.monotonic()
    argv = [
        *(str(Path(sys.executable).parent / "mlflow"), "server", "--workers", "1"),
        *("--backend-store-uri", f"sqlite:///{folder}/mlflow.db", "--default-artifact-root", str(folder / "artifacts")),
        *("--host", "127.0.0.1", "--port", str(port)),
    ]
    with started(argv, environ=environ, log=log, core=SERVER_CORE) as server:
        wait_until(lambda: asked(port, "GET", "/health")[0] == 200, process=server, log=log)
        yield Keeping(port, 0, server.pid, time.monotonic() - begun)


@contextlib.contextmanager
def etcd(folder: Path) -> Iterator[Keeping]:
    """Run one member of etcd; every put is fsynced."""
    client, peer = free_ports(2)
    binary = shutil.which("etcd", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")
    if binary is None:
        raise FileNotFoundError("etcd is not installed: run `make setup`")
    address, log, begun = f"http://127.0.0.1:{client}", folder / "etcd.log", time.monotonic()
    argv = [
        *(binary, "--data-dir", str(folder / "etcd"), "--listen-client-urls", address),
        *("--advertise-client-urls", address, "--listen-peer-urls", f"http://127.0.0.1:{peer}"),
        *("--initial-advertise-peer-urls", f"http://127.0.0.1:{peer}"),
        *("--initial-cluster", f"default=http://127.0.0.1:{peer}", "--log-level", "error"),
    ]
    with started(argv, environ=dict(os.environ), log=log, core=SERVER_CORE) as server:
        wait_until(lambda: asked(client, "GET", "/health")[0] == 200, process=server, log=log)
        yield Keeping(0, client, server.pid, time.monotonic() - begun)
