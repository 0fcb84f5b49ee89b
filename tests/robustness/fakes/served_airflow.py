"""The fake Airflow behind a port of this machine, for servers that are processes of their own."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator

import uvicorn

from tests.robustness.fakes.airflow import FakeAirflow

START_S = 10.0


@contextlib.contextmanager
def listening(airflow: FakeAirflow, port: int) -> Iterator[None]:
    """Serve `airflow` while the block runs."""
    config = uvicorn.Config(airflow.app, host="127.0.0.1", port=port, log_level="error", lifespan="off")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, name="fake-airflow")
    thread.start()
    try:
        deadline = time.monotonic() + START_S
        while not server.started:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        yield
    finally:
        server.should_exit = True
        thread.join()
