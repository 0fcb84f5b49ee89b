"""A home of the platform in a temporary folder, its projects' files, and what Airflow reads of them."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import tests.operators.airflow_here  # noqa: F401  # before anything else imports Airflow
from api.config import Config
from api.manifests import Manifests

ROOT = Path(__file__).resolve().parents[2]


def airflow_environ(home: Path, **more: str) -> dict[str, str]:
    """Return the environment of an Airflow with the platform's plugin and nothing else."""
    outside = {name: value for name, value in os.environ.items() if not name.startswith(("AIRFLOW", "MA_"))}
    return outside | {
        "AIRFLOW_HOME": str(home / "airflow"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__PLUGINS_FOLDER": str(ROOT / "plugins"),
        "MA_HOME": str(home),
        "PYTHONPATH": str(ROOT),
        **more,
    }


def written(home: Path, *manifests: dict[str, Any]) -> Path:
    """Write manifests and the files of their projects as the API server does; return the folder of files."""
    config = Config(home=home, projects_root=home)
    writer = Manifests(config)
    for manifest in manifests:
        writer.write_project(manifest["project"])
        (writer.write_trigger if manifest["kind"] == "TriggerRun" else writer.write_pipeline)(manifest)
    return config.dags_path


def read_by_airflow(home: Path, *folders: Path) -> Any:
    """Return what Airflow's DAG processor finds in folders: `dags` and `errors`."""
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("read_dags.py")), *map(str, folders)],
        env=airflow_environ(home),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.rpartition("FOUND ")[2])


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """MA_HOME."""
    monkeypatch.setenv("MA_HOME", str(tmp_path))
    return tmp_path


@pytest.fixture
def write(home: Path) -> Callable[..., Path]:
    """Write manifests into this test's home."""
    return lambda *manifests: written(home, *manifests)
