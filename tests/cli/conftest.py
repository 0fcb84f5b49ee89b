"""Free ports, a configuration in a temporary home, the command in this process, and one real API server."""

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from api.cli.main import main
from api.cli.platform import probes
from api.config import Config
from tests.free_ports import free_ports
from tests.patience import PATIENCE_S

Ma = Callable[..., "Ended"]


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str


def configuration(home: Path) -> Config:
    """Return a configuration of free ports."""
    api, http, airflow, serving = free_ports(4)
    return Config(
        home=home,
        projects_root=home,
        api_port=api,
        api_http_port=http,
        airflow_port=airflow,
        serving_port=serving,
        token="test-token-of-a-platform",
    )


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Config:
    """A configuration that `ma` in this process finds too."""
    made = configuration(tmp_path / "home")
    made.home.mkdir()
    use(made, monkeypatch)
    return made


def use(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make `ma` in this process use a configuration."""
    for name, value in config.environ().items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def ma(capsys: pytest.CaptureFixture[str]) -> Ma:
    """Run `ma` in this process."""

    def run(*arguments: str) -> Ended:
        capsys.readouterr()
        code = main(arguments)
        captured = capsys.readouterr()
        return Ended(code, captured.out, captured.err)

    return run


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Config]:
    """A real API server for the whole session; there is no Airflow behind it."""
    made = configuration(tmp_path_factory.mktemp("api") / "home")
    made.home.mkdir()
    with (made.home / "api.log").open("wb") as log:
        process = subprocess.Popen([sys.executable, "-m", "api.server"], env=made.environ(), stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + PATIENCE_S
        while probes.fetch(made.api_http_port, "/readyz")[0] != 200:
            assert process.poll() is None, (made.home / "api.log").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.05)
        yield made
    finally:
        process.terminate()
        process.wait(20)


@pytest.fixture
def api(served: Config, monkeypatch: pytest.MonkeyPatch) -> Config:
    """The real API server, used by `ma` in this process."""
    use(served, monkeypatch)
    return served
