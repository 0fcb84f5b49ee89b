"""A real inference server in a process of its own, and a raw keep-alive client."""

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from api.config import Config
from tests.patience import PATIENCE_S

ROOT = Path(__file__).resolve().parents[2]
TOKEN = "a-token-of-the-tests"
ID = "flights.late"
FLIGHT: Mapping[str, Any] = {
    "carrier": "AA",
    "origin": "JFK",
    "dest": "MIA",
    "tailnum": "N1",
    "scheduled_departure": "2013-12-31T13:00:00Z",
    "distance": 12,
}
PROGRAM = ("-m", "serving.server")
AT = "2013-12-31T12:00:00Z"
DATATYPES = {str: "BYTES", int: "INT64", float: "FP64", bool: "BOOL", type(None): "BYTES"}


def tensor(name: str, values: Sequence[Any], **changes: Any) -> dict[str, Any]:
    """Return an input of the protocol."""
    datatype = DATATYPES.get(type(next((value for value in values if value is not None), None)), "BYTES")
    return {"name": name, "datatype": datatype, "shape": [len(values)], "data": list(values), **changes}


def request(rows: int = 1, *, at: Any = AT, explain: bool = False, **changes: Any) -> dict[str, Any]:
    """Return a whole infer request for a flight."""
    inputs = [tensor(name, [value] * rows) for name, value in {**FLIGHT, **changes}.items()]
    return {"inputs": inputs, "parameters": {"event_timestamp": at, "explain_features": explain}}


class Answer:
    """Status, headers and document of an answer."""

    def __init__(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        self.status = status
        self.headers = headers
        self.body = body

    @property
    def document(self) -> Any:
        """The JSON body."""
        return json.loads(self.body)


class Server:
    """A running server."""

    def __init__(self, config: Config, process: "subprocess.Popen[bytes]", log: Path) -> None:
        self.config = config
        self.process = process
        self.log = log

    @property
    def port(self) -> int:
        """Its port."""
        return self.config.serving_port

    def call(
        self, method: str, path: str, body: Any = None, *, token: str = "", headers: Mapping[str, str] | None = None
    ) -> Answer:
        """Send one request on a connection of its own."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        sent = {"Authorization": f"Bearer {token}"} if token else {}
        content = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        try:
            connection.request(method, path, content, {**sent, **(headers or {})})
            answer = connection.getresponse()
            found: dict[str, str] = {}
            for name, value in answer.getheaders():
                found[name.lower()] = f"{found[name.lower()]}, {value}" if name.lower() in found else value
            return Answer(answer.status, found, answer.read())
        finally:
            connection.close()

    def infer(self, body: Any, name: str = ID) -> Answer:
        """Predict."""
        return self.call("POST", f"/v2/models/{name}/infer", body)

    def put(self, uri: str, revision: str, generation: int, name: str = ID) -> Answer:
        """Ask for a rollout."""
        body = {"revision": revision, "artifact_uri": uri, "generation": generation}
        return self.call("PUT", f"/admin/deployments/{name}", body, token=TOKEN)

    def state(self, name: str = ID) -> Any:
        """Return what the server says of a deployment."""
        return self.call("GET", f"/admin/deployments/{name}", token=TOKEN).document

    def settle(self, name: str = ID) -> Any:
        """Wait until a rollout has ended; return the state."""
        deadline = time.monotonic() + PATIENCE_S
        while (found := self.state(name))["state"] == "LOADING":
            assert time.monotonic() < deadline, found
            time.sleep(0.01)
        return found

    def deploy(self, uri: str, revision: str, generation: int, name: str = ID) -> Any:
        """Roll out and wait."""
        assert self.put(uri, revision, generation, name).status == 202
        return self.settle(name)

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Signal the server and wait for its end."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        return int(self.process.wait(timeout=20))


@contextlib.contextmanager
def port_of_its_own() -> Iterator[int]:
    """Hold a port of the tests' range: a server may listen on it, another test does not find it free."""
    start = 21000 + os.getpid() % 900
    for port in [*range(start, 22000), *range(21000, start)]:
        with socket.socket() as held:
            try:
                held.bind(("127.0.0.1", port))
            except OSError:
                continue
            held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            yield port
            return
    raise AssertionError("no port is free")


@contextlib.contextmanager
def running(home: Path, *, program: Sequence[str] = PROGRAM, api_http_port: int = 9) -> Iterator[Server]:
    """Start a server on `home`; it is stopped at the end."""
    home.mkdir(exist_ok=True)
    log = home / "serving.log"
    with port_of_its_own() as port:
        config = Config(home=home, projects_root=home, serving_port=port, api_http_port=api_http_port, token=TOKEN)
        with log.open("wb") as out:
            process = subprocess.Popen(
                [sys.executable, *program],
                cwd=ROOT,
                env={**os.environ, **config.environ()},
                stdout=out,
                stderr=out,
            )
        server = Server(config, process, log)
        try:
            deadline = time.monotonic() + PATIENCE_S
            while True:
                with contextlib.suppress(OSError):
                    if server.call("GET", "/v2/health/ready").status == 200:
                        break
                assert process.poll() is None, log.read_text()
                assert time.monotonic() < deadline, log.read_text()
                time.sleep(0.02)
            yield server
        finally:
            server.stop(signal.SIGKILL)
