"""One real platform for all end-to-end tests: `ma up` with a temporary home on free ports, stopped completely."""

import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import psutil
import pytest

from api.cli.platform import record, sessions
from api.cli.platform.database import tail
from api.client import Client
from api.config import Config
from api.gen.michelangelo.api.v2 import pipeline_pb2
from tests.e2e.flights_platform import PROJECT, Flights, eventually

ROOT = Path(__file__).resolve().parents[2]
START_S = 300
STOP_S = 180
READY = pipeline_pb2.PIPELINE_STATE_READY


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str


class Ma:
    """The command `ma` as a user runs it, on one configuration."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.environ = {**os.environ, **config.environ(), "MA_TOKEN": ""}

    def __call__(self, *arguments: str, timeout_s: float = 120, given: str = "") -> Ended:
        ended = subprocess.run(
            [sys.executable, "-m", "api.cli.main", *arguments],
            cwd=ROOT,
            env=self.environ,
            input=given,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )
        return Ended(ended.returncode, ended.stdout, ended.stderr)


def processes_of(config: Config) -> list[psutil.Process]:
    """Return every process of a platform but its supervisor."""
    known = record.read(config.run_path)
    return sessions.belonging(config.home, known.refs if known else ())


def free_configuration(home: Path) -> Config:
    """Return a configuration of free ports."""
    held = [socket.socket() for _ in range(4)]
    for one in held:
        one.bind(("127.0.0.1", 0))
    api, http, airflow, serving = (int(one.getsockname()[1]) for one in held)
    for one in held:
        one.close()
    own = home.with_name("own-dags")
    own.mkdir()
    return Config(
        home=home,
        projects_root=ROOT,
        api_port=api,
        api_http_port=http,
        airflow_port=airflow,
        serving_port=serving,
        own_dags=own,
    )


@pytest.fixture(scope="session")
def start_platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[], Ma]]:
    """Starts platforms; all of them are stopped at the end of the session, whatever the tests did."""
    started: list[Ma] = []

    def start() -> Ma:
        made = Ma(free_configuration(tmp_path_factory.mktemp("platform") / "home"))
        started.append(made)
        ended = made("up", "--detach", timeout_s=START_S)
        assert ended.code == 0, f"{ended.out}{ended.err}{_ends_of_logs(made.config)}"
        return made

    yield start
    for made in started:
        made("down", timeout_s=STOP_S)
        sessions.stop_all(made.config.home, (), grace_s=2)


@pytest.fixture(scope="session")
def ma(start_platform: Callable[[], Ma]) -> Ma:
    """The command on the session's platform."""
    return start_platform()


@pytest.fixture(scope="session")
def platform(ma: Ma) -> Config:
    """The configuration of the session's running platform."""
    return ma.config


@pytest.fixture(scope="session")
def flights(ma: Ma) -> Iterator[Flights]:
    """The example, applied and trained once on the session's platform."""
    applied = ma("apply", "-f", str(ROOT / "examples" / "flights"))
    assert applied.code == 0, applied.err
    with Client.of(ma.config) as api:
        made = Flights(ma, ma.config, api)
        eventually(lambda: api.get("Pipeline", PROJECT, "train").status.state == READY, "the pipeline's DAG")
        ended = ma("pipeline", "run", "train", "-n", PROJECT, "--wait", timeout_s=300)
        assert ended.code == 0, f"{ended.out}{ended.err}"
        (run,) = api.list("PipelineRun", PROJECT)
        yield replace(made, first_run=run.metadata.name)


def _ends_of_logs(config: Config) -> str:
    lines = [f"\n{path.name}:\n" + "\n".join(tail(path, 15)) for path in sorted(config.logs_path.glob("*.log"))]
    return "\n".join(lines)
