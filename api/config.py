"""Configuration of the platform, read once from `MA_*` variables into one frozen value.  Starts and writes nothing."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path


class ConfigurationError(ValueError):
    """Variables that cannot be used.  `faults`: each of them, in a line of its own."""

    def __init__(self, faults: Sequence[str]) -> None:
        super().__init__("; ".join(faults))
        self.faults = tuple(faults)


@dataclass(frozen=True)
class Config:
    """Where the parts stand.  Ports are on 127.0.0.1; paths are absolute; see `docs/configuration.md`."""

    home: Path
    projects_root: Path
    api_port: int = 15566
    api_http_port: int = 15567
    airflow_port: int = 8080
    serving_port: int = 15568
    token: str = ""

    @property
    def api_address(self) -> str:
        """gRPC address of the API server."""
        return f"127.0.0.1:{self.api_port}"

    @property
    def api_http_url(self) -> str:
        """Base URL of the API server's HTTP port: health, metrics, reports from Airflow and serving."""
        return f"http://127.0.0.1:{self.api_http_port}"

    @property
    def airflow_url(self) -> str:
        """Base URL of Airflow's UI and REST API."""
        return f"http://127.0.0.1:{self.airflow_port}"

    @property
    def serving_url(self) -> str:
        """Base URL of the inference server."""
        return f"http://127.0.0.1:{self.serving_port}"

    @property
    def store_path(self) -> Path:
        """The resource store's SQLite file."""
        return self.home / "store.db"

    @property
    def airflow_home(self) -> Path:
        """AIRFLOW_HOME of the embedded Airflow."""
        return self.home / "airflow"

    @property
    def dags_path(self) -> Path:
        """The bundle with one generated file per project."""
        return self.home / "dags"

    @property
    def manifests_path(self) -> Path:
        """Pipeline and trigger manifests that the generated files read, a folder per project."""
        return self.home / "manifests"

    @property
    def artifacts_path(self) -> Path:
        """The artifact store: datasets, models, reports."""
        return self.home / "artifacts"

    @property
    def features_path(self) -> Path:
        """Feast's registry, online store and feature sources."""
        return self.home / "features"

    @property
    def mlflow_path(self) -> Path:
        """MLflow's database and artifacts."""
        return self.home / "mlflow"

    @property
    def jobs_path(self) -> Path:
        """One folder per job of the local engine."""
        return self.home / "jobs"

    @property
    def predictions_path(self) -> Path:
        """The prediction log, Parquet."""
        return self.home / "predictions"

    @property
    def logs_path(self) -> Path:
        """One log file per component of `ma up`."""
        return self.home / "logs"

    @property
    def run_path(self) -> Path:
        """Process ids, lock and token of a running platform."""
        return self.home / "run"

    def environ(self) -> dict[str, str]:
        """Return the variables from which `load` gives this value again: what child processes get."""
        return {
            "MA_HOME": str(self.home),
            "MA_PROJECTS_ROOT": str(self.projects_root),
            "MA_API_PORT": str(self.api_port),
            "MA_API_HTTP_PORT": str(self.api_http_port),
            "MA_AIRFLOW_PORT": str(self.airflow_port),
            "MA_SERVING_PORT": str(self.serving_port),
            "MA_TOKEN": self.token,
        }


def load(environ: Mapping[str, str] = os.environ) -> Config:
    """Read the configuration.  Raises ConfigurationError, a ValueError, that names every wrong variable."""
    faults: list[str] = []

    def port(name: str, default: int) -> int:
        text = environ.get(name, "")
        if not text:
            return default
        if text.isascii() and text.isdigit() and len(text) <= 5 and 0 < int(text) < 65536:
            return int(text)
        faults.append(f"{name} must be a port from 1 to 65535, not {text[:64]!r}")
        return default

    home = Path(environ.get("MA_HOME") or ".ma").absolute()
    token = environ.get("MA_TOKEN", "")
    token_file = home / "run" / "token"
    if not token and token_file.is_file():
        try:
            token = token_file.read_text("ascii").strip()
        except (OSError, UnicodeDecodeError):
            faults.append(f"the token in {token_file} cannot be read: remove the file, the next start makes another")
    config = Config(
        home=home,
        projects_root=Path(environ.get("MA_PROJECTS_ROOT") or ".").absolute(),
        api_port=port("MA_API_PORT", 15566),
        api_http_port=port("MA_API_HTTP_PORT", 15567),
        airflow_port=port("MA_AIRFLOW_PORT", 8080),
        serving_port=port("MA_SERVING_PORT", 15568),
        token=token,
    )
    if faults:
        raise ConfigurationError(faults)
    return config
