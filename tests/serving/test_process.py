"""The server as a process: how it starts, what it loads, how it ends."""

import contextlib
import http.client
import http.server
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.serving.conftest import Stage, home_of
from tests.serving.running import ID, ROOT, TOKEN, Server, port_of_its_own, request, running

HEAVY = ("airflow", "feast", "mlflow", "pandas", "grpc", "ray", "lightgbm", "sklearn", "joblib", "dill", "torch")
TELLING = """
import atexit, json, sys
atexit.register(lambda: print(json.dumps(sorted(sys.modules)), flush=True))
from serving.server import main
sys.exit(main())
"""


def start(home: Path, **environ: str) -> "subprocess.CompletedProcess[str]":
    """Run a server that ends by itself."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("MA_")}
    command = [sys.executable, "-m", "serving.server"]
    with port_of_its_own() as port:
        given = {**kept, "MA_HOME": str(home), "MA_TOKEN": TOKEN, "MA_SERVING_PORT": str(port), **environ}
        return subprocess.run(command, cwd=ROOT, env=given, capture_output=True, text=True, timeout=20, check=False)


def test_a_serving_process_loads_nothing_heavy(stage: Stage, tmp_path: Path) -> None:
    with running(home_of(stage, tmp_path / "home"), program=("-c", TELLING)) as server:
        server.deploy(stage.first, "one", 1)
        assert server.infer(request(explain=True)).status == 200
        assert server.infer(request(rows=500)).status == 200
        assert server.stop() == 0
        loaded = set(json.loads(server.log.read_text().splitlines()[-1]))
    assert "onnxruntime" in loaded
    assert "pyarrow.parquet" in loaded, "the prediction log was written"
    assert loaded & set(HEAVY) == set()


@pytest.mark.parametrize(
    ("environ", "text"),
    [
        ({"MA_SERVING_PORT": "http"}, "MA_SERVING_PORT must be a port"),
        ({"MA_TOKEN": ""}, "there is no token"),
        ({"MA_HOME": "/proc/nowhere"}, "cannot be written"),
    ],
)
def test_a_wrong_configuration_ends_the_start_with_78(tmp_path: Path, environ: dict[str, str], text: str) -> None:
    found = start(tmp_path, **environ)
    assert found.returncode == 78
    assert text in found.stderr
    assert "Traceback" not in found.stderr


def test_a_taken_port_ends_the_start_with_78(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        found = start(tmp_path, MA_SERVING_PORT=str(taken.getsockname()[1]))
    assert found.returncode == 78
    assert "is taken" in found.stderr


def test_it_listens_on_this_machine_only(server: Server) -> None:
    listening = f":{server.port:04X}"
    found = [
        line.split()[1]
        for name in ("tcp", "tcp6")
        for line in Path(f"/proc/{server.process.pid}/net/{name}").read_text().splitlines()[1:]
        if line.split()[1].endswith(listening) and line.split()[3] == "0A"
    ]
    assert found == [f"0100007F{listening}"]


def test_the_end_answers_what_has_arrived(own_server: Server, stage: Stage) -> None:
    own_server.deploy(stage.first, "one", 1)
    body = json.dumps(request(rows=10_000))
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", own_server.port, timeout=10)) as connection:
        connection.request("GET", "/v2")
        connection.getresponse().read()
        connection.request("POST", f"/v2/models/{ID}/infer", body)
        own_server.process.send_signal(signal.SIGTERM)
        found = connection.getresponse()
        assert found.status == 200
        assert len(json.loads(found.read())["outputs"][0]["data"]) == 10_000
    assert own_server.stop() == 0


def test_the_end_waits_for_a_request_that_is_half_here(own_server: Server, stage: Stage) -> None:
    own_server.deploy(stage.first, "one", 1)
    body = json.dumps(request()).encode()
    head = f"POST /v2/models/{ID}/infer HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
    with socket.create_connection(("127.0.0.1", own_server.port), timeout=10) as client:
        client.sendall(head.encode() + body[:50])
        own_server.call("GET", "/v2")
        own_server.process.send_signal(signal.SIGTERM)
        threading.Event().wait(0.5)
        client.sendall(body[50:])
        found = client.makefile("rb").read()
    assert found.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"Connection: close\r\n" in found
    assert own_server.stop() == 0


def test_idle_connections_do_not_hold_up_the_end(own_server: Server) -> None:
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", own_server.port, timeout=10)) as connection:
        connection.request("GET", "/v2")
        connection.getresponse().read()
        own_server.process.send_signal(signal.SIGTERM)
        assert own_server.process.wait(timeout=3) == 0


@pytest.fixture
def reports() -> Iterator[tuple[int, list[tuple[str, str, bytes]]]]:
    """A stand-in for the API server that is not ready for the first report."""
    seen: list[tuple[str, str, bytes]] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            seen.append((self.path, self.headers["Authorization"], body))
            self.send_response(503 if len(seen) == 1 else 202)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield server.server_port, seen
        server.shutdown()
        thread.join()


def test_it_reports_its_start_until_somebody_has_heard(
    reports: tuple[int, list[tuple[str, str, bytes]]], tmp_path: Path
) -> None:
    port, seen = reports
    with running(tmp_path / "home", api_http_port=port) as server:
        for _ in range(1200):
            if len(seen) > 1:
                break
            threading.Event().wait(0.05)
        threading.Event().wait(0.5)
        assert len(seen) == 2, "and not again once it was heard"
        path, authorization, body = seen[1]
        assert (path, authorization) == ("/internal/serving/started", f"Bearer {TOKEN}")
        assert json.loads(body) == {"server": "local", "url": f"http://127.0.0.1:{server.port}"}
