"""With which settings of access the server does not start, and where it listens: never unguarded beyond loopback."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import grpc
import psutil
import pytest

from api import server
from api.auth.static import digest
from api.cli.platform import probes
from api.client import Client
from api.config import Config, ConfigurationError, load
from tests.free_ports import free_ports
from tests.patience import PATIENCE_S
from tests.security.certificates import Authority

BAD_CONFIGURATION = 78
GUESSES = [
    "admin",
    "password",
    "secret",
    "token",
    "test",
    "root",
    "changeme",
    "default",
    "letmein",
    "12345678",
    "guest",
    "demo",
    "michelangelo",
    "airflow",
    "mlflow",
    "public",
    "anonymous",
    "system",
    "service",
    "bearer",
]


def variables(home: Path, **changes: str) -> dict[str, str]:
    """Return an environment for a server of its own."""
    api, http = free_ports(2)
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("MA_")}
    return {**inherited, "MA_HOME": str(home), "MA_API_PORT": str(api), "MA_API_HTTP_PORT": str(http), **changes}


def refused(home: Path, **changes: str) -> list[str]:
    """Return what keeps a server of these settings from starting."""
    try:
        return server.faults(load(variables(home, **changes)))
    except ConfigurationError as error:
        return list(error.faults)


class Started:
    """A server as a process of its own, ready to be called."""

    def __init__(self, home: Path, **changes: str) -> None:
        environ = variables(home, **changes)
        self._log = home / "server.log"
        with self._log.open("wb") as log:
            self.process = subprocess.Popen([sys.executable, "-m", "api.server"], env=environ, stdout=log, stderr=log)
        self.config: Config = load(environ)
        deadline = time.monotonic() + PATIENCE_S
        while not self._ready():
            assert self.process.poll() is None, self._log.read_text()
            assert time.monotonic() < deadline, self._log.read_text()
            time.sleep(0.05)
        self.config = load(environ)

    def _ready(self) -> bool:
        host, tls = self.config.api_reached_at, self.config.tls.client_context()
        return probes.fetch(self.config.api_http_port, "/readyz", host=host, tls=tls)[0] == 200

    def listens(self) -> set[str]:
        """Return the addresses that it listens at."""
        held = psutil.Process(self.process.pid).net_connections("tcp")
        return {one.laddr.ip for one in held if one.status == psutil.CONN_LISTEN}

    def __enter__(self) -> Started:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        self.process.wait(20)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """An authority that signs certificates."""
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
def test_beyond_this_machine_it_needs_access_and_tls(tmp_path: Path, host: str) -> None:
    lines = refused(tmp_path, MA_API_HOST=host, MA_AUTH="off")
    assert [line.split(": it needs ")[1] for line in lines] == ["MA_AUTH=on", "MA_TLS_CERT and MA_TLS_KEY"]
    (line,) = refused(tmp_path, MA_API_HOST=host)
    assert "MA_TLS_CERT" in line


def test_with_access_and_tls_it_serves_beyond(tmp_path: Path, authority: Authority) -> None:
    cert, key = authority.server("server")
    settings = {"MA_TLS_CERT": str(cert), "MA_TLS_KEY": str(key), "MA_TLS_CA": str(authority.cert)}
    with Started(tmp_path, MA_API_HOST="0.0.0.0", **settings) as started:
        assert started.listens() >= {"0.0.0.0"}
        with Client.of(started.config) as client:
            assert client.list("Project") == []
        plain: Any = grpc.insecure_channel(started.config.api_address).unary_unary("/grpc.health.v1.Health/Check")
        with pytest.raises(grpc.RpcError):
            plain(b"", timeout=3)


def test_by_default_it_listens_on_loopback_alone(tmp_path: Path) -> None:
    with Started(tmp_path) as started:
        # gRPC's sockets are of IPv6, with this machine's address of IPv4 in it.
        assert {address.removeprefix("::ffff:") for address in started.listens()} == {"127.0.0.1"}
        token = started.config.token_path
        assert token.stat().st_mode & 0o777 == 0o600
        assert len(token.read_text().strip()) >= 40
        with Client.of(started.config) as client:
            assert client.list("Project") == []
        assert [guess for guess in ["", *GUESSES] if _is_let_in(started, guess)] == []


def _is_let_in(started: Started, token: str) -> bool:
    channel = grpc.insecure_channel(started.config.api_address)
    metadata = (("authorization", f"Bearer {token}"),) if token else ()
    call: Any = channel.unary_unary("/michelangelo.api.v2.ProjectService/ListProject")
    try:
        call(b"", timeout=5, metadata=metadata)
    except grpc.RpcError:
        return False
    finally:
        channel.close()
    return True


def test_the_first_token_stays_the_same(tmp_path: Path) -> None:
    with Started(tmp_path) as started:
        first = started.config.token
    with Started(tmp_path) as again:
        assert again.config.token == first


def _tokens(**changed: Any) -> str:
    entry = {"name": "alice", "sha256": digest("x" * 40), **changed}
    return json.dumps({"tokens": [entry]})


SETTINGS: dict[str, tuple[Mapping[str, str], str]] = {
    "switch": ({"MA_AUTH": "maybe"}, "MA_AUTH is on or off, not 'maybe'"),
    "short token": ({"MA_TOKEN": "secret"}, "MA_TOKEN is shorter than 16 characters"),
    "one of three": ({"MA_AUTH_ISSUER": "https://id.example"}, "MA_AUTH_AUDIENCE is missing"),
    "keys without TLS": (
        {"MA_AUTH_ISSUER": "i", "MA_AUTH_AUDIENCE": "a", "MA_AUTH_JWKS": "http://id.example/keys"},
        "MA_AUTH_JWKS is read without TLS",
    ),
    "keys not there": (
        {"MA_AUTH_ISSUER": "i", "MA_AUTH_AUDIENCE": "a", "MA_AUTH_JWKS": "/no/such/file"},
        "MA_AUTH_JWKS /no/such/file cannot be read",
    ),
    "certificate alone": ({"MA_TLS_CERT": "/no/such/file"}, "MA_TLS_CERT is given without MA_TLS_KEY"),
    "key alone": ({"MA_TLS_KEY": "/no/such/file"}, "MA_TLS_KEY is given without MA_TLS_CERT"),
    "clients without TLS": ({"MA_TLS_CLIENT_CA": "/no/such/file"}, "MA_TLS_CLIENT_CA is given without MA_TLS_CERT"),
    "half a client": ({"MA_TLS_CLIENT_CERT": "/no/such/file"}, "MA_TLS_CLIENT_CERT and MA_TLS_CLIENT_KEY go together"),
    "host": ({"MA_API_HOST": "no.such.host.invalid"}, "MA_API_HOST 'no.such.host.invalid' is no address"),
}


@pytest.mark.parametrize("case", SETTINGS)
def test_a_wrong_setting_is_named(tmp_path: Path, case: str) -> None:
    changes, told = SETTINGS[case]
    assert any(told in line for line in refused(tmp_path, **changes))


FILES: dict[str, tuple[str, Callable[[], str], str]] = {
    "no JSON": ("MA_TOKENS_FILE", lambda: "{", "is no tokens file"),
    "a list": ("MA_TOKENS_FILE", lambda: "[1]", "is no tokens file"),
    "reserved": ("MA_TOKENS_FILE", lambda: _tokens(name="system:platform"), "tokens[0]: names and groups"),
    "reserved group": ("MA_TOKENS_FILE", lambda: _tokens(groups=["system:admins"]), "tokens[0]: names and groups"),
    "no hash": ("MA_TOKENS_FILE", lambda: _tokens(sha256="abc"), "is no tokens file"),
    "short hash": ("MA_TOKENS_FILE", lambda: _tokens(sha256="abcd"), "no SHA-256"),
    "empty token": ("MA_TOKENS_FILE", lambda: _tokens(sha256=digest("")), "anybody could guess"),
    "own name": ("MA_TOKENS_FILE", lambda: _tokens(sha256=digest("alice")), "anybody could guess"),
    "kind": ("MA_TOKENS_FILE", lambda: _tokens(kind="system"), "kind is user or service"),
    "expiry": ("MA_TOKENS_FILE", lambda: _tokens(expires="never"), "seconds since 1970"),
    "no keys": ("MA_AUTH_JWKS", lambda: '{"keys": []}', "has no key for RS256"),
    "no set": ("MA_AUTH_JWKS", lambda: "{}", "is no JWK set"),
    "private key": ("MA_AUTH_JWKS", lambda: "-----BEGIN PRIVATE KEY-----", "is no JWK set"),
}


@pytest.mark.parametrize("case", FILES)
def test_a_file_that_cannot_be_used_is_named(tmp_path: Path, case: str) -> None:
    name, make, told = FILES[case]
    path = tmp_path / "given"
    path.write_text(make())
    path.chmod(0o600)
    more = {"MA_AUTH_ISSUER": "i", "MA_AUTH_AUDIENCE": "a"} if name == "MA_AUTH_JWKS" else {}
    (line,) = refused(tmp_path / "home", **{name: str(path), **more})
    assert line.startswith(name)
    assert told in line


def test_a_tokens_file_that_others_may_write_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "tokens.json"
    path.write_text(_tokens())
    path.chmod(0o666)
    (line,) = refused(tmp_path / "home", MA_TOKENS_FILE=str(path))
    assert "run chmod 600" in line


def test_all_faults_are_told_at_once_and_end_the_start(tmp_path: Path) -> None:
    wrong = {"MA_API_HOST": "0.0.0.0", "MA_TOKEN": "x", "MA_TLS_KEY": "/no", "MA_TOKENS_FILE": "/etc/hostname"}
    ended = subprocess.run(
        [sys.executable, "-m", "api.server"],
        env=variables(tmp_path, **wrong),
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    lines = ended.stderr.splitlines()
    assert ended.returncode == BAD_CONFIGURATION, lines
    assert len(lines) == 4, lines
    assert all(line.startswith("api.server: ") for line in lines)


def test_a_key_that_others_may_read_is_refused(tmp_path: Path, authority: Authority) -> None:
    cert, key = authority.server("open")
    key.chmod(0o644)
    (line,) = refused(tmp_path, MA_TLS_CERT=str(cert), MA_TLS_KEY=str(key))
    assert "can be read by others" in line


def test_a_key_of_another_certificate_is_refused(tmp_path: Path, authority: Authority) -> None:
    (cert, _), (_, key) = authority.server("one"), authority.server("other")
    (line,) = refused(tmp_path, MA_TLS_CERT=str(cert), MA_TLS_KEY=str(key))
    assert "cannot be used together" in line


def test_a_taken_address_is_told_wherever_it_listens(tmp_path: Path) -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.2", 0))
        held.listen()
        port = str(held.getsockname()[1])
        (line,) = refused(tmp_path, MA_API_HOST="127.0.0.2", MA_API_PORT=port)
    assert line == f"port {port} is taken: stop what listens there or set MA_API_PORT"
