"""Our platform as a user runs it: the command `ma` in a home of its own on free ports.  Reaches into no part of it."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import psutil

from api.cli.airflow_env import without_airflow
from api.cli.platform import record, sessions
from api.config import Config, load
from benchmarks.systems.processes import ROOT, DidNotStart, free_ports

COMMAND_S = 600.0


def configuration(home: Path, *, projects_root: Path = ROOT) -> Config:
    """Return a configuration of free ports."""
    api, http, airflow, serving = free_ports(4)
    return Config(
        home=home,
        projects_root=projects_root,
        api_port=api,
        api_http_port=http,
        airflow_port=airflow,
        serving_port=serving,
    )


def environment(config: Config) -> dict[str, str]:
    """Return the environment of a command on this configuration; the token is the home's own."""
    return {**without_airflow(os.environ), **config.environ(), "MA_TOKEN": ""}


def ma(config: Config, *arguments: str) -> str:
    """Run the command and return what it printed.  Raises DidNotStart with that if it fails."""
    ended = subprocess.run(
        [sys.executable, "-m", "api.cli.main", *arguments],
        cwd=ROOT,
        env=environment(config),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=COMMAND_S,
        check=False,
    )
    if ended.returncode:
        raise DidNotStart(f"ma {' '.join(arguments)} ended with {ended.returncode}\n{ended.stdout}{ended.stderr}")
    return ended.stdout


@contextlib.contextmanager
def running(home: Path) -> Iterator[Config]:
    """Start the platform on `home` and return its configuration when it is ready; nothing of it is left at the end."""
    with stopped_at_the_end(configuration(home)) as config:
        ma(config, "up", "--detach")
        yield replace(config, token=load(environment(config)).token)


@contextlib.contextmanager
def stopped_at_the_end(config: Config) -> Iterator[Config]:
    """Leave nothing of a platform running, whoever started it and however this ends."""
    try:
        yield config
    finally:
        with contextlib.suppress(DidNotStart):
            ma(config, "down")
        sessions.stop_all(config.home, (), grace_s=2)


def processes(config: Config) -> Mapping[str, list[psutil.Process]]:
    """Return the processes of a running platform by component, `supervisor` among them."""
    known = record.read(config.run_path)
    if known is None:
        raise DidNotStart(f"no platform runs on {config.home}")
    leaders = {"supervisor": known.supervisor.pid, **{name: part.pid for name, part in known.components.items()}}
    return {name: sessions.members([pid]) for name, pid in leaders.items()}
