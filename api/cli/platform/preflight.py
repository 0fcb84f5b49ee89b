"""What keeps a platform from starting, all of it at once.  Changes nothing but an empty `$MA_HOME` that it creates.

Every fault names what is wrong and the variable or the step that mends it.
"""

from __future__ import annotations

import difflib
import os
import shutil
import socket
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from api.config import Config

NEEDED_BYTES = 1_000_000_000
EARLIEST_CLOCK = 1_700_000_000
INTERNAL_VARIABLES = frozenset({"MA_SUPERVISED", "MA_DEBUG", "MA_NAMESPACE"})


def faults(config: Config, environ: Mapping[str, str] = os.environ) -> list[str]:
    """Return every fault, empty if the platform can start."""
    return [*_variables(config, environ), *_clock(), *home_faults(config), *_ports(config)]


def _variables(config: Config, environ: Mapping[str, str]) -> Iterator[str]:
    known = {*config.environ(), *INTERNAL_VARIABLES}
    for name in sorted(environ):
        if not name.startswith("MA_") or name in known:
            continue
        if near := difflib.get_close_matches(name, known, n=1, cutoff=0.8):
            yield f"unknown variable {name}: did you mean {near[0]}?"


def _clock() -> Iterator[str]:
    if time.time() < EARLIEST_CLOCK:
        yield f"the clock says {time.strftime('%Y-%m-%d', time.gmtime())}: set it, schedules and tokens depend on it"


def home_faults(config: Config) -> Iterator[str]:
    """Yield what is wrong with `$MA_HOME` alone; creates it."""
    home = config.home
    try:
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=home) as file:
            file.write(b"\0" * 65536)
    except OSError as error:
        yield f"MA_HOME {home} cannot be written: {error.strerror}; set MA_HOME to a folder of yours"
        return
    if home.stat().st_uid != os.getuid():
        yield f"MA_HOME {home} belongs to another user; set MA_HOME to a folder of yours"
    free = shutil.disk_usage(home).free
    if free < NEEDED_BYTES:
        yield (
            f"only {free // 1_000_000} MB are free below MA_HOME {home}, {NEEDED_BYTES // 1_000_000} MB are needed; "
            "free some or set MA_HOME to another disk"
        )
    if not config.projects_root.is_dir():
        yield f"MA_PROJECTS_ROOT {config.projects_root} is not a folder"
    if config.own_dags is not None and not config.own_dags.is_dir():
        yield f"MA_DAGS {config.own_dags} is not a folder: make it, or unset MA_DAGS"


def _ports(config: Config) -> Iterator[str]:
    ports = {
        "MA_API_PORT": config.api_port,
        "MA_API_HTTP_PORT": config.api_http_port,
        "MA_AIRFLOW_PORT": config.airflow_port,
        "MA_SERVING_PORT": config.serving_port,
    }
    seen: dict[int, str] = {}
    for variable, port in ports.items():
        if port in seen:
            yield f"{variable} and {seen[port]} are both {port}: give each its own"
        elif not _free(port):
            yield f"port {port} is taken: stop what listens there or set {variable}"
        seen[port] = variable


def _free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def prepare(config: Config) -> None:
    """Make the folders of `$MA_HOME`, open to their owner alone."""
    config.home.chmod(0o700)
    folders: list[Path] = [
        config.run_path,
        config.logs_path,
        config.airflow_home,
        config.dags_path,
        config.manifests_path,
        config.jobs_path,
        config.artifacts_path,
        config.features_path,
        config.predictions_path,
    ]
    for folder in folders:
        folder.mkdir(mode=0o700, exist_ok=True)
