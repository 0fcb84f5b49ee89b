"""Shows in Airflow what subscriptions wait for, and the events that come: a DAG of a project, and events of assets.

It is a picture for people.  Nothing depends on it: what cannot be shown now is left out, and no run waits for it.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
from typing import Any

from api.broker.deliveries import is_over
from api.controllers.platform import Platform
from api.errors import ApiError, NotFound
from api.pipeline_dags import dag_id
from api.store.base import Query
from api.subscriptions.matching import named

MOST_WAITING = 1000
KIND = "Events"
NAME = "events_graph"
# Airflow has an asset once it has parsed the DAG that names it.
SHOWN_S = 30.0
LOOK_S = 1.0

log = logging.getLogger(__name__)


class EventGraph:
    """Is told of subscriptions and events, and shows them one after the other."""

    def __init__(self, platform: Platform) -> None:
        self._platform = platform
        self._waiting: asyncio.Queue[tuple[str, Any]] = asyncio.Queue(MOST_WAITING)
        # Names or patterns of events, by project, and the assets that show them.
        self._names: dict[str, set[str]] = {}
        self._assets: dict[str, int] = {}

    def heard(self, event: Any) -> None:
        """Show an event, if a subscription's asset is there for it."""
        self._put(event.metadata.namespace, event)

    def changed(self, project: str) -> None:
        """Show the subscriptions of a project as they are now."""
        self._put(project, None)

    def _put(self, project: str, event: Any) -> None:
        if not self._waiting.full():
            self._waiting.put_nowait((project, event))

    async def run(self) -> None:
        """Show what is told, for ever."""
        while True:
            project, event = await self._waiting.get()
            try:
                await (self._show(project) if event is None else self._tell(project, event))
            except NotFound:
                # The DAG that named an asset was parsed anew without it.
                self._assets.clear()
            except ApiError as error:
                if is_over(error):
                    raise
                log.info("events of %s are not shown in Airflow now: %s", project, error.message)
            except OSError as error:
                log.warning("events of %s are not shown in Airflow: %s", project, error)

    async def _show(self, project: str) -> None:
        found = (await self._platform.resources.list("Subscription", Query(namespace=project))).items
        manifest = graph_manifest(project, found)
        self._names[project] = {match.name for each in found for match in each.spec.events}
        manifests = self._platform.manifests
        changed = manifests.write_events(manifest) if found else manifests.remove_events(project)
        if changed and found:
            dag = dag_id(project, NAME)
            await self._platform.shown(project, dag, manifest["tags"][-1], timeout_s=SHOWN_S)
        elif changed:
            await self._platform.reparse(project)

    async def _tell(self, project: str, event: Any) -> None:
        for name in sorted(self._names.get(project, ())):
            if named(name, event.spec.name) and (asset := await self._asset(project, name)) is not None:
                told = {"event": event.metadata.name, "source": event.spec.source, "key": event.spec.key}
                await self._platform.airflow.asset_event(asset, told)

    async def _asset(self, project: str, name: str) -> int | None:
        """Return an asset's id; None if Airflow does not show it."""
        uri = uri_of(project, name)
        for _ in range(round(SHOWN_S / LOOK_S)):
            if uri not in self._assets:
                found = await self._platform.airflow.asset(uri)
                if found is not None:
                    self._assets[uri] = found
            if uri in self._assets:
                return self._assets[uri]
            await asyncio.sleep(LOOK_S)
        return None


def uri_of(project: str, name: str) -> str:
    """Return the asset of an event's name, or of a pattern of names."""
    return f"ma-event://{project}/{name}"


def graph_manifest(project: str, subscriptions: Any) -> dict[str, Any]:
    """Return what the DAG of a project's subscriptions is built from; its last tag says which subscriptions."""
    shown = [
        {
            "name": each.metadata.name,
            "dag": dag_id(each.spec.pipeline.namespace or project, each.spec.pipeline.name),
            "events": [
                {"name": f"{project}/{name}", "uri": uri_of(project, name)}
                for name in dict.fromkeys(match.name for match in each.spec.events)
            ],
        }
        for each in sorted(subscriptions, key=lambda each: str(each.metadata.name))
    ]
    digest = hashlib.sha256(json.dumps(shown).encode()).hexdigest()[:16]
    return {
        "kind": KIND,
        "project": project,
        "name": NAME,
        "tags": ["events", f"subscriptions:{digest}"],
        "subscriptions": shown,
    }
