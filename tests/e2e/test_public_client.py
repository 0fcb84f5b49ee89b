"""Michelangelo's own command line, from its public distribution and in its own environment, works against this API.

It sends the token that its configuration file holds; without one it is not let in.
"""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e.flights_platform import PROJECT, Flights

ROOT = Path(__file__).resolve().parents[2]
CLIENT = "michelangelo==0.12.0"
TRIES = 5
SHOP = """\
apiVersion: michelangelo.api/v2
kind: Project
metadata: {name: shop, namespace: shop}
spec:
  description: %s
  owner: {owningTeam: 3f0d8a52-6c1b-4c55-9a42-7b0c6f1d2e90}
  tier: 3
"""
Call = Callable[..., str]


@pytest.fixture(scope="module")
def client(flights: Flights, tmp_path_factory: pytest.TempPathFactory) -> Call:
    """The public `ma`, installed in an environment of its own."""
    folder = tmp_path_factory.mktemp("client")
    uv = Path(sys.executable).parent / "uv"
    subprocess.run([uv, "venv", "--quiet", "--python", sys.executable, folder / "env"], check=True)
    python = folder / "env" / "bin" / "python"
    subprocess.run([uv, "pip", "install", "--quiet", "--python", python, CLIENT], check=True)
    settings = folder / "home" / ".ma" / "config.toml"
    settings.parent.mkdir(parents=True)
    told = flights.ma("token", "print", "--public-client")
    assert told.code == 0, told.err
    settings.write_text(told.out)

    def call(*arguments: str, home: str = "home", code: int | None = 0) -> str:
        ended = subprocess.run(
            [folder / "env" / "bin" / "ma", *arguments],
            cwd=folder,
            env={**os.environ, "MACTL_ADDRESS": flights.config.api_address, "HOME": str(folder / home)},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert code is None or (ended.returncode == 0) == (code == 0), f"{arguments}: {ended.stdout}{ended.stderr}"
        return ended.stdout + ended.stderr

    return call


def test_without_its_token_it_is_not_let_in(client: Call) -> None:
    told = client("project", "get", "-n", PROJECT, "--name", PROJECT, home="elsewhere", code=1)
    assert "no token was sent" in told


def test_it_applies_a_project_twice_and_gets_it(client: Call, flights: Flights, tmp_path: Path) -> None:
    for description in ("first", "second"):
        (tmp_path / "project.yaml").write_text(SHOP % description)
        client("project", "apply", "-f", str(tmp_path / "project.yaml"))
    assert re.search(r"\bshop\b", client("project", "get", "-n", "shop", "--name", "shop"))
    assert flights.api.get("Project", "shop", "shop").spec.description == "second"


def test_it_gets_and_runs_the_pipeline_and_gets_and_kills_the_run(client: Call, flights: Flights) -> None:
    assert "train" in client("pipeline", "get", "-n", PROJECT, "--name", "train")
    before = {run.metadata.name for run in flights.api.list("PipelineRun", PROJECT)}
    client("pipeline", "run", "-n", PROJECT, "--name", "train")
    (name,) = {run.metadata.name for run in flights.api.list("PipelineRun", PROJECT)} - before
    # At once: on a busy machine each call takes seconds, and the run goes on meanwhile.  The client reads the run and
    # writes it back: what its status became in between refuses that, and whoever asked asks again.
    for _ in range(TRIES):
        told = client("pipeline_run", "kill", "-n", PROJECT, "--name", name, "--yes", code=None)
        if "read it again and retry" not in told:
            break
    flights.until_ended(name, timeout_s=120)
    assert name in client("pipeline_run", "get", "-n", PROJECT)
    assert "KILLED" in client("pipeline_run", "get", "-n", PROJECT, "--name", name)
