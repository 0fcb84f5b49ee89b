"""A home of the platform in a temporary folder, and jobs whose programs are the tests' own."""

from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

import tests.operators.airflow_here  # noqa: F401  # before anything else imports Airflow
from tests.processes import command

PROGRAMS = Path(__file__).parents[1] / "ports" / "engine_programs"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """MA_HOME; no job outlives the test."""
    from operators.engines.local import LocalEngine

    monkeypatch.setenv("MA_HOME", str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(PROGRAMS))
    yield tmp_path
    jobs = tmp_path / "jobs"
    for folder in jobs.iterdir() if jobs.exists() else ():
        LocalEngine(jobs).cancel(folder.name)
    assert not [p for p in psutil.process_iter() if p.pid and str(tmp_path) in command(p)]
