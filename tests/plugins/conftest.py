"""The plugin as Airflow loads it, and an API server's port that notes what is reported to it."""

import importlib.util
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

import tests.operators.airflow_here  # noqa: F401  # before anything else imports Airflow
from tests.patience import PATIENCE_S

PLUGIN = Path(__file__).resolve().parents[2] / "plugins" / "michelangelo_plugin.py"


class Ear:
    """An HTTP port.  `said` holds each request's path, headers and body; `behave` may answer otherwise."""

    def __init__(self) -> None:
        self.said: list[tuple[str, dict[str, str], bytes]] = []
        self.behave: Callable[[BaseHTTPRequestHandler], None] | None = None
        ear = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                ear.said.append((self.path, {k.lower(): v for k, v in self.headers.items()}, body))
                if ear.behave:
                    ear.behave(self)
                    return
                self.send_response(202)
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                return

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.port = int(self._server.server_address[1])
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def until(holds: Callable[[], Any]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.fixture
def ear(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Ear]:
    """The API server's port, as this process is configured to reach it."""
    made = Ear()
    monkeypatch.setenv("MA_HOME", str(tmp_path))
    monkeypatch.setenv("MA_API_HTTP_PORT", str(made.port))
    monkeypatch.setenv("MA_TOKEN", "token of the test")
    yield made
    made.close()


@pytest.fixture
def plugin() -> Iterator[Any]:
    """The plugin's module, loaded as Airflow loads it: by its path, under its bare stem."""
    spec = importlib.util.spec_from_file_location(PLUGIN.stem, PLUGIN)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[PLUGIN.stem] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules[PLUGIN.stem]
