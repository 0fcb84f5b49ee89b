"""The six processes of the embedded platform, in the order in which `ma status` shows them.  Starts none."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from api.cli import airflow_env
from api.cli.platform.probes import Probe, airflow_part, answers
from api.config import Config

Part = Callable[[Mapping[str, str]], dict[str, str]]


@dataclass(frozen=True)
class Component:
    """One process.

    needs_database: Airflow's database must be migrated before it starts; part: what of the platform's whole environment
    it gets.
    """

    name: str
    argv: tuple[str, ...]
    probe: Probe
    needs_database: bool = False
    part: Part = dict


def all_of(config: Config) -> tuple[Component, ...]:
    """Return the components of a platform of this configuration."""
    return (
        _module(
            "api",
            "api.server",
            airflow_env.of_api,
            probe=answers(config.api_http_port, "/readyz", host=config.api_reached_at, tls=config.tls.client_context()),
        ),
        _module(
            "serving",
            "serving.server",
            airflow_env.of_serving,
            probe=answers(config.serving_port, "/v2/health/live"),
        ),
        _airflow("airflow-api", "api-server", probe=answers(config.airflow_port, "/api/v2/monitor/health")),
        _airflow("scheduler", "scheduler", "--skip-serve-logs", probe=airflow_part(config, "scheduler")),
        _airflow("dag-processor", "dag-processor", probe=airflow_part(config, "dag_processor")),
        _airflow("triggerer", "triggerer", "--skip-serve-logs", probe=airflow_part(config, "triggerer")),
    )


def _module(name: str, module: str, part: Part, *, probe: Probe) -> Component:
    return Component(name, (sys.executable, "-P", "-m", module), probe, part=part)


def _airflow(name: str, *arguments: str, probe: Probe) -> Component:
    # Logs of tasks are read from disk: the servers that would offer them on two more ports are left out.
    argv = (sys.executable, "-P", "-m", "airflow", *arguments)
    return Component(name, argv, probe, needs_database=True, part=airflow_env.of_airflow)
