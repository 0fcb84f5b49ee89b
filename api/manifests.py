"""What Airflow's DAG files read: one generated file a project and one manifest a pipeline or trigger.

Files are replaced by rename, so Airflow never parses half of one.  They are not synced, since a disk that holds a sync
would hold the server's loop: a leader compares every file as it begins, and so mends what a loss of power left of one.
Knows nothing of Airflow itself.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from api.config import Config

# Neither the name of a pipeline nor that of a trigger ends like this.
HIDDEN = ".hidden.json"
# No pipeline's name has a `_`.
EVENTS = "events_graph.json"

PROJECT_FILE = '''"""DAGs of project {project}.  Generated from the API's resources for Airflow; changes are lost."""

from operators.templates.project import dags_of_project

globals().update(dags_of_project("{project}"))
'''


class Manifests:
    """The manifests of one platform.  Names have passed admission: they are safe in paths."""

    def __init__(self, config: Config) -> None:
        self._dags = config.dags_path
        self._manifests = config.manifests_path

    def write_project(self, project: str) -> bool:
        """Write a project's DAG file; tell whether it changed."""
        (self._manifests / project).mkdir(parents=True, exist_ok=True)
        return _replace(self._dags / f"{project}.py", PROJECT_FILE.format(project=project))

    def touch_project(self, project: str) -> None:
        """Make a project's DAG file newer: Airflow parses it at its next look at the folder."""
        (self._dags / f"{project}.py").touch()

    def remove_project(self, project: str) -> None:
        """Remove a project's DAG file and manifests."""
        (self._dags / f"{project}.py").unlink(missing_ok=True)
        folder = self._manifests / project
        for path in folder.glob("*.json"):
            path.unlink(missing_ok=True)
        if folder.is_dir():
            folder.rmdir()

    def stand(self, project: str) -> bool:
        """Whether a project has a manifest, hidden or not."""
        return any((self._manifests / project).glob("*.json"))

    def write_pipeline(self, manifest: Mapping[str, Any]) -> bool:
        """Write a pipeline's manifest; tell whether it changed."""
        ending = HIDDEN if manifest.get("hidden") else ".json"
        return self._write(manifest["project"], manifest["name"] + ending, manifest)

    def hidden(self) -> Sequence[tuple[str, str]]:
        """Return project and name of each manifest of a DAG that lives for runs alone."""
        found = sorted(self._manifests.glob(f"*/*{HIDDEN}"))
        return [(path.parent.name, path.name.removesuffix(HIDDEN)) for path in found]

    def remove_hidden(self, project: str, name: str) -> bool:
        """Remove such a manifest; tell whether there was one."""
        return _remove(self._manifests / project / (name + HIDDEN))

    def write_trigger(self, manifest: Mapping[str, Any]) -> bool:
        """Write a trigger's manifest; tell whether it changed."""
        name = f"{manifest['pipeline']}.{manifest['name']}.trigger.json"
        return self._write(manifest["project"], name, manifest)

    def write_events(self, manifest: Mapping[str, Any]) -> bool:
        """Write what a project's subscriptions wait for; tell whether it changed."""
        return self._write(manifest["project"], EVENTS, manifest)

    def remove_events(self, project: str) -> bool:
        """Remove it; tell whether there was one."""
        return _remove(self._manifests / project / EVENTS)

    def remove_pipeline(self, project: str, pipeline: str) -> bool:
        """Remove a pipeline's manifest; tell whether there was one."""
        return _remove(self._manifests / project / f"{pipeline}.json")

    def remove_trigger(self, project: str, pipeline: str, trigger: str) -> bool:
        """Remove a trigger's manifest; tell whether there was one."""
        return _remove(self._manifests / project / f"{pipeline}.{trigger}.trigger.json")

    def _write(self, project: str, name: str, manifest: Mapping[str, Any]) -> bool:
        return _replace(self._manifests / project / name, json.dumps(_ordered(manifest), indent=1) + "\n")


def _ordered(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Return a manifest that is the same text each time.  A graph keeps its author's order: a form is filled in it."""
    found = {name: value for name, value in manifest.items() if name != "graph"}
    written: dict[str, Any] = json.loads(json.dumps(found, sort_keys=True))
    return {**written, **({"graph": manifest["graph"]} if "graph" in manifest else {})}


def _remove(path: Path) -> bool:
    existed = path.exists()
    path.unlink(missing_ok=True)
    return existed


def _replace(path: Path, text: str) -> bool:
    content = text.encode()
    if path.exists() and path.read_bytes() == content:
        return False
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=".tmp")
    with os.fdopen(handle, "wb") as file:
        file.write(content)
    os.replace(temporary, path)
    return True
