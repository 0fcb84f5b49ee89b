"""The API server as a process that is killed with SIGKILL and started again on the same store."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import grpc

from api.cli.platform import probes
from api.config import AuthConfig, Config
from api.kinds import kinds
from tests.free_ports import free_ports

START_S = 30.0
CALL_S = 10.0
OPTIONS = (
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.initial_reconnect_backoff_ms", 20),
    ("grpc.min_reconnect_backoff_ms", 20),
    ("grpc.max_reconnect_backoff_ms", 200),
)


class KilledServer:
    """One server at a time; use as a context manager.  Its address stays the same over its lives.

    home: several servers may share it, and with it the store; called: names its log; environ: more variables.
    """

    def __init__(self, home: Path, *, called: str = "api", environ: Mapping[str, str] = MappingProxyType({})) -> None:
        api, http_port, airflow, serving = free_ports(4)
        self.config = Config(home, home, api, http_port, airflow, serving, "secret", auth=AuthConfig(on=False))
        self._log = home / f"{called}.log"
        self._environ = dict(environ)
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> KilledServer:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def start(self, failpoints: str = "") -> None:
        """Start, and wait until the server says that it is ready.  failpoints: where it is to die in this life."""
        environ = {**os.environ, **self.config.environ(), **self._environ, "MA_FAILPOINTS": failpoints}
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "api.server"], env=environ, stdout=log, stderr=log, start_new_session=True
            )
        deadline = time.monotonic() + START_S
        while not self._ready():
            assert self._process.poll() is None, self._log.read_text()[-2000:]
            assert time.monotonic() < deadline
            time.sleep(0.02)

    def _ready(self) -> bool:
        return probes.fetch(self.config.api_http_port, "/readyz")[0] == 200

    def kill(self) -> None:
        """Kill -9, as the machine's memory killer would."""
        if self._process is not None:
            # One that died by itself and was waited for is not killed: its number may be another's by now.
            if self._process.returncode is None:
                os.kill(self._process.pid, signal.SIGKILL)
                self._process.wait()
            self._process = None

    @property
    def pid(self) -> int:
        """Return the process id of the present life."""
        assert self._process is not None
        return self._process.pid

    def said(self) -> str:
        """Return what it logged in all its lives."""
        return self._log.read_text()

    def wait_for_death(self, timeout_s: float) -> int | None:
        """Return the exit status of a server that dies by itself, None if it lives on."""
        assert self._process is not None
        try:
            return self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return None

    def connect(self) -> Connection:
        """Return a new connection."""
        return Connection(self.config.api_address, self.config.token)


class Connection:
    """Calls without retries: an error leaves open whether the call had an effect."""

    def __init__(self, address: str, token: str) -> None:
        # A channel that shares nothing: the pool of another one would still wait for the killed server.
        self._channel = grpc.insecure_channel(address, options=OPTIONS)
        self._metadata = (("authorization", f"Bearer {token}"),)

    def close(self) -> None:
        """Close the connection."""
        self._channel.close()

    def call(self, kind: str, verb: str, *, request_id: str = "", **fields: Any) -> Any:
        """Call a method; raises grpc.RpcError.  `request_id`: a UUID under which a repeat has one effect."""
        described = kinds()[kind]
        method: Any = described.method(verb)
        sent: Any = self._channel.unary_unary(
            f"/{described.service.full_name}/{method.name}",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=method.output_type._concrete_class.FromString,
        )
        named = (("x-request-id", request_id),) if request_id else ()
        return sent(method.input_type._concrete_class(**fields), timeout=CALL_S, metadata=(*self._metadata, *named))
