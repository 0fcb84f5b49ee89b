"""Configuration of the platform, read once from `MA_*` variables into one frozen value.  Starts and writes nothing."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from api.airflow_settings import AirflowSettings
from api.airflow_settings import read as read_airflow
from api.artifact_urls import below
from api.artifact_urls import read as read_artifacts
from api.engine_settings import VARIABLES as ENGINE_VARIABLES
from api.engine_settings import EngineSettings
from api.engine_settings import read as read_engines
from api.kubernetes_settings import VARIABLES as KUBERNETES_VARIABLES
from api.kubernetes_settings import KubernetesSettings
from api.kubernetes_settings import read as read_kubernetes
from api.limits import LimitsConfig
from api.limits import read as read_limits
from api.notify_settings import NotifySettings
from api.notify_settings import read as read_notify

if TYPE_CHECKING:
    import ssl

LOOPBACK = "127.0.0.1"
TLS_FILES = ("cert", "key", "client_ca", "ca", "client_cert", "client_key")


class ConfigurationError(ValueError):
    """Variables that cannot be used.  `faults`: each of them, in a line of its own."""

    def __init__(self, faults: Sequence[str]) -> None:
        super().__init__("; ".join(faults))
        self.faults = tuple(faults)


@dataclass(frozen=True)
class AuthConfig:
    """Who is let in.  Off lets everybody in; empty texts and None switch a part off; see `docs/access.md`.

    jwks: URL or path of the identity provider's keys; project_creators: groups that may create projects, empty for all.
    """

    on: bool = True
    tokens_file: Path | None = None
    issuer: str = ""
    audience: str = ""
    jwks: str = ""
    user_claim: str = "sub"
    groups_claim: str = "groups"
    project_creators: tuple[str, ...] = ()


# What a process needs that calls the API; all other variables are for the API server alone.
CLIENT_VARIABLES = frozenset(
    {
        *("MA_HOME", "MA_PROJECTS_ROOT", "MA_API_HOST", "MA_API_PORT", "MA_API_HTTP_PORT"),
        *("MA_AIRFLOW_PORT", "MA_SERVING_PORT", "MA_AUTH", "MA_TOKEN"),
        *("MA_TLS_CA", "MA_TLS_CERT", "MA_TLS_CLIENT_CERT", "MA_TLS_CLIENT_KEY"),
        "MA_ARTIFACTS",
        *KUBERNETES_VARIABLES,
        *ENGINE_VARIABLES,
    }
)


@dataclass(frozen=True)
class TlsConfig:
    """PEM files.  cert, key: the server's; client_ca: who signs the certificates that clients must show, if any.

    ca: what clients trust; client_cert, client_key: what they show.
    """

    cert: Path | None = None
    key: Path | None = None
    client_ca: Path | None = None
    ca: Path | None = None
    client_cert: Path | None = None
    client_key: Path | None = None

    @property
    def on(self) -> bool:
        """Whether the API server speaks TLS: it has a certificate, or its clients know whom to trust."""
        return self.cert is not None or self.ca is not None

    @property
    def trusted(self) -> Path | None:
        """Whom clients trust: a certificate that nobody else signed is its own authority."""
        return self.ca or self.cert

    def client_context(self) -> ssl.SSLContext | None:
        """Return what a client of the HTTP port needs, None without TLS.  Raises OSError, ssl.SSLError."""
        import ssl

        if not self.on:
            return None
        context = ssl.create_default_context(cafile=str(self.trusted))
        if self.client_cert is not None:
            context.load_cert_chain(self.client_cert, self.client_key)
        return context


@dataclass(frozen=True)
class Config:
    """Where the parts stand.  Ports are on 127.0.0.1; paths are absolute; see `docs/configuration.md`.

    api_host: where the API server listens, and the host at which clients find it; lease_ttl_s: a leader that froze is
    replaced after so long; own_dags: a folder of plain DAG files, which Airflow reads too.
    """

    home: Path
    projects_root: Path
    api_port: int = 15566
    api_http_port: int = 15567
    airflow_port: int = 8080
    serving_port: int = 15568
    token: str = ""
    lease_ttl_s: float = 15.0
    store_url: str = field(default="", repr=False)
    api_host: str = LOOPBACK
    auth: AuthConfig = field(default_factory=AuthConfig)
    tls: TlsConfig = field(default_factory=TlsConfig)
    blobs: str = field(default="", repr=False)
    artifacts: str = ""
    audit_anchor: Path | None = None
    own_dags: Path | None = None
    limits: LimitsConfig = field(default_factory=LimitsConfig)
    notify: NotifySettings = field(default_factory=NotifySettings)
    engines: EngineSettings = field(default_factory=EngineSettings)
    kubernetes: KubernetesSettings = field(default_factory=KubernetesSettings)
    airflow: AirflowSettings = field(default_factory=AirflowSettings)

    @property
    def blobs_url(self) -> str:
        """Where large fields of resources are: a folder, or `s3://bucket/prefix`."""
        return self.blobs or str(self.home / "blobs")

    @property
    def artifacts_url(self) -> str:
        """Where packed code, values and jobs of other machines are: a folder, or a URL that fsspec reaches."""
        return self.artifacts or str(self.artifacts_path)

    @property
    def values_url(self) -> str:
        """Where values between steps are."""
        return below(self.artifacts_url, "values")

    @property
    def api_reached_at(self) -> str:
        """Host at which clients find the API server: one that listens everywhere is on this machine too."""
        return LOOPBACK if self.api_host in ("0.0.0.0", "::") else self.api_host  # noqa: S104

    @property
    def api_address(self) -> str:
        """gRPC address of the API server."""
        return f"{bracketed(self.api_reached_at)}:{self.api_port}"

    @property
    def api_http_url(self) -> str:
        """Base URL of the API server's HTTP port: health, metrics, reports from Airflow and serving."""
        scheme = "https" if self.tls.on else "http"
        return f"{scheme}://{bracketed(self.api_reached_at)}:{self.api_http_port}"

    @property
    def token_path(self) -> Path:
        """The platform's own token, which is that of the user who runs it."""
        return self.run_path / "token"

    @property
    def tokens_path(self) -> Path:
        """Hashes of the tokens of other users."""
        return self.auth.tokens_file or self.run_path / "tokens.json"

    @property
    def own_token(self) -> str:
        """The token of this configuration, read now if it was made after the configuration was."""
        return self.token or token_in(self.token_path)

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
    def store_address(self) -> str:
        """URL of the resource store; it may hold a password."""
        return self.store_url or f"sqlite:///{self.store_path}"

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
        """Datasets, models and reports of stages; and what `artifacts_url` is for, where it is no other place."""
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
    def environments_path(self) -> Path:
        """Environments of steps, each in a folder named by its content; `named/` holds those that people made."""
        return self.home / "environments"

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
        """Return the variables from which `load` gives this value again: what the API server gets."""
        return {
            "MA_HOME": str(self.home),
            "MA_PROJECTS_ROOT": str(self.projects_root),
            "MA_API_PORT": str(self.api_port),
            "MA_API_HTTP_PORT": str(self.api_http_port),
            "MA_AIRFLOW_PORT": str(self.airflow_port),
            "MA_SERVING_PORT": str(self.serving_port),
            "MA_TOKEN": self.token,
            "MA_LEASE_TTL_S": str(self.lease_ttl_s),
            "MA_STORE_URL": self.store_url,
            "MA_API_HOST": self.api_host,
            "MA_BLOBS": self.blobs,
            "MA_ARTIFACTS": self.artifacts,
            "MA_AUDIT_ANCHOR": str(self.audit_anchor or ""),
            "MA_DAGS": str(self.own_dags or ""),
            **self._auth_environ(),
            **self.limits.environ(),
            **self.notify.environ(),
            **self.engines.environ(),
            **self.kubernetes.environ(),
            **self.airflow.environ(),
            **{f"MA_TLS_{name.upper()}": str(getattr(self.tls, name) or "") for name in TLS_FILES},
        }

    def _auth_environ(self) -> dict[str, str]:
        auth = self.auth
        return {
            "MA_AUTH": "on" if auth.on else "off",
            "MA_TOKENS_FILE": str(auth.tokens_file or ""),
            "MA_AUTH_ISSUER": auth.issuer,
            "MA_AUTH_AUDIENCE": auth.audience,
            "MA_AUTH_JWKS": auth.jwks,
            "MA_AUTH_USER_CLAIM": auth.user_claim,
            "MA_AUTH_GROUPS_CLAIM": auth.groups_claim,
            "MA_AUTH_PROJECT_CREATORS": ",".join(auth.project_creators),
        }


def bracketed(host: str) -> str:
    """Return a host as it stands before a port."""
    return f"[{host}]" if ":" in host else host


def token_in(path: Path) -> str:
    """Return the token of a file, empty if there is none.  Raises ConfigurationError if it cannot be read."""
    try:
        return path.read_text("ascii").strip()
    except (FileNotFoundError, NotADirectoryError):
        return ""
    except (OSError, UnicodeDecodeError):
        told = f"the token in {path} cannot be read: remove the file, the next start makes another"
        raise ConfigurationError([told]) from None


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

    def seconds(name: str, default: float, least: float, most: float) -> float:
        try:
            value = float(environ.get(name) or default)
        except ValueError:
            value = float("nan")
        if least <= value <= most:
            return value
        faults.append(f"{name} must be from {least:g} to {most:g} seconds, not {environ[name][:64]!r}")
        return default

    home = Path(environ.get("MA_HOME") or ".ma").absolute()
    token = environ.get("MA_TOKEN", "")
    try:
        token = token or token_in(home / "run" / "token")
    except ConfigurationError as error:
        faults += error.faults
    config = Config(
        home=home,
        projects_root=Path(environ.get("MA_PROJECTS_ROOT") or ".").absolute(),
        api_port=port("MA_API_PORT", 15566),
        api_http_port=port("MA_API_HTTP_PORT", 15567),
        airflow_port=port("MA_AIRFLOW_PORT", 8080),
        serving_port=port("MA_SERVING_PORT", 15568),
        token=token,
        lease_ttl_s=seconds("MA_LEASE_TTL_S", 15.0, 1.5, 300.0),
        store_url=environ.get("MA_STORE_URL", ""),
        api_host=environ.get("MA_API_HOST") or LOOPBACK,
        auth=_auth(environ, faults),
        blobs=environ.get("MA_BLOBS", ""),
        audit_anchor=Path(anchor).absolute() if (anchor := environ.get("MA_AUDIT_ANCHOR", "")) else None,
        limits=read_limits(environ, faults),
        notify=read_notify(environ, faults),
        artifacts=read_artifacts(environ, faults),
        own_dags=_path(environ, "MA_DAGS"),
        engines=read_engines(environ, faults),
        kubernetes=read_kubernetes(environ, faults),
        airflow=read_airflow(environ, faults),
        tls=TlsConfig(**{name: _path(environ, f"MA_TLS_{name.upper()}") for name in TLS_FILES}),
    )
    if faults:
        raise ConfigurationError(faults)
    return config


def _auth(environ: Mapping[str, str], faults: list[str]) -> AuthConfig:
    switch = environ.get("MA_AUTH") or "on"
    if switch not in ("on", "off"):
        faults.append(f"MA_AUTH is on or off, not {switch[:64]!r}")
    found = AuthConfig(
        on=switch != "off",
        tokens_file=_path(environ, "MA_TOKENS_FILE"),
        issuer=environ.get("MA_AUTH_ISSUER", ""),
        audience=environ.get("MA_AUTH_AUDIENCE", ""),
        jwks=environ.get("MA_AUTH_JWKS", ""),
        user_claim=environ.get("MA_AUTH_USER_CLAIM") or "sub",
        groups_claim=environ.get("MA_AUTH_GROUPS_CLAIM") or "groups",
        project_creators=tuple(
            group for part in environ.get("MA_AUTH_PROJECT_CREATORS", "").split(",") if (group := part.strip())
        ),
    )
    given = {"MA_AUTH_ISSUER": found.issuer, "MA_AUTH_AUDIENCE": found.audience, "MA_AUTH_JWKS": found.jwks}
    if any(given.values()):
        faults += [
            f"{name} is missing: the three of {', '.join(given)} go together" for name in given if not given[name]
        ]
    return found


def _path(environ: Mapping[str, str], name: str) -> Path | None:
    return Path(environ[name]).absolute() if environ.get(name) else None
