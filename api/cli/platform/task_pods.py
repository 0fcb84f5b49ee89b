"""Airflow's tasks as pods: their template, completed, and what they read before they begin.

    python -m api.cli.platform.task_pods FILE COMMAND...

runs a command with the variables of a file, in a pod that sees `$MA_HOME`: a pod's own variables are no place for keys.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from api.cli.airflow_env import POD, of_airflow
from api.config import Config

CONTAINER = "base"
VARIABLES = "task-variables.json"
MODULE = "api.cli.platform.task_pods"
OURS = ("MA_", "AIRFLOW", "AWS_", "PYTHON", "NO_")


def prepare(config: Config, environ: Mapping[str, str]) -> None:
    """Write template and variables, if tasks are pods.  Raises ValueError for a template that cannot be used."""
    if not config.airflow.in_pods or config.airflow.pod is None:
        return
    seen = {name: value for name, value in of_airflow(environ).items() if name.startswith(OURS) or name == "PATH"}
    variables = config.run_path / VARIABLES
    _write(variables, json.dumps(seen))
    _write(
        config.airflow_home / POD, yaml.safe_dump(_completed(config.airflow.pod, config.kubernetes.image, variables))
    )


def _completed(template: Path, image: str, variables: Path) -> dict[str, Any]:
    try:
        pod = yaml.safe_load(template.read_text())
        spec = dict(pod["spec"])
        containers = [dict(each) for each in spec.get("containers") or [{"name": CONTAINER}]]
    except (OSError, yaml.YAMLError, TypeError, KeyError, ValueError) as error:
        raise ValueError(f"MA_AIRFLOW_POD {template} is no pod: {type(error).__name__}: {error}") from error
    mine = next((each for each in containers if each.get("name") == CONTAINER), None)
    if mine is None:
        raise ValueError(f"MA_AIRFLOW_POD {template} has no container {CONTAINER!r}, in which Airflow runs a task")
    mine |= {"image": image, "command": ["python", "-m", MODULE, str(variables)]}
    spec |= {"containers": [mine, *(each for each in containers if each is not mine)], "restartPolicy": "Never"}
    spec.setdefault("automountServiceAccountToken", False)
    metadata = {"name": CONTAINER, **(pod.get("metadata") or {})}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}


def _write(path: Path, text: str) -> None:
    """Write a file that its owner alone reads."""
    beside = path.with_name(f".{path.name}")
    with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(text)
    beside.replace(path)


def main(arguments: list[str]) -> None:
    """Become the command, with the variables of the file over those of the pod."""
    variables = json.loads(Path(arguments[0]).read_text())
    os.execvpe(arguments[1], arguments[1:], {**os.environ, **variables})  # noqa: S606  # it is the pod's command


if __name__ == "__main__":
    main(sys.argv[1:])
