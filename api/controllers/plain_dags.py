"""Plain DAG files of Airflow's: finds those that are tagged for the platform, and keeps a Pipeline of each.

Airflow is asked; no file is read here.  A Pipeline whose tag is gone stays, with its runs, until somebody deletes it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from typing import Any

from api.airflow import Airflow, Dag, DagVersion
from api.controllers.platform import Platform
from api.errors import ApiError, Conflict, NotFound, Unavailable
from api.kinds import kinds
from api.pipeline_dags import plain_dag
from api.plain_dags import PREFIX, fault_of, fill, name_taken, place_of, schemas_of, tag_of, tags_among
from api.store.base import Key
from api.workflows import HIDDEN_PARAM

LOOK_S = 5.0
MOST_TAGS = 50

log = logging.getLogger(__name__)


class PlainDags:
    """The tagged DAGs of one term."""

    def __init__(self, platform: Platform) -> None:
        self._platform = platform
        self._airflow = platform.airflow
        self._seen: dict[str, Sequence[Dag]] = {}
        self._versions: dict[str, tuple[Any, DagVersion]] = {}
        self._faults: set[str] = set()
        self._looked = False

    async def run(self) -> None:
        """Look again and again, for ever."""
        while True:
            try:
                await self.look()
            except ApiError as error:
                if error.reason == "DEPOSED":
                    raise
                log.info("tagged DAGs are looked for later: %s", error.message)
            except Exception:
                log.exception("tagged DAGs cannot be looked at")
            await asyncio.sleep(LOOK_S)

    async def pipeline_of(self, dag_id: str) -> tuple[str, str] | None:
        """Return project and pipeline of a tagged DAG, None for every other.  Raises Unavailable."""
        if not self._looked:
            await self.look()
        for tag, dags in self._seen.items():
            if any(dag.dag_id == dag_id for dag in dags) and not fault_of(tag, dags):
                return place_of(tag)
        return None

    async def look(self) -> None:
        """Ask Airflow once, and bring every Pipeline in line.  Raises ApiError."""
        found = await tagged(self._airflow)
        before, self._seen, self._looked = self._seen, found, True
        told, self._faults = self._faults, set()
        for tag in {*before, *found}:
            fault = await self._settle(tag, found.get(tag, ()))
            if fault and fault not in told | self._faults:
                log.warning("%s", fault)
            self._faults |= {fault}
            place = place_of(tag)
            if place is not None and before.get(tag) != found.get(tag):
                self._platform.wake(Key("Pipeline", *place))

    async def _settle(self, tag: str, dags: Sequence[Dag]) -> str:
        """Make or change the Pipeline of a tag; return why that cannot be, empty if all is well."""
        place = place_of(tag)
        if not dags:
            return ""
        if (fault := fault_of(tag, dags)) or place is None:
            return fault
        (dag,) = dags
        try:
            return await self._keep(Key("Pipeline", *place), dag)
        except (Unavailable, Conflict) as error:
            if error.reason == "DEPOSED":
                raise
            return ""
        except ApiError as error:
            return f"DAG {dag.dag_id} ({dag.file}) with the tag {tag} is no pipeline: {error.message}"

    async def _keep(self, key: Key, dag: Dag) -> str:
        pipeline = await self._platform.resources.find(key)
        if pipeline is None:
            pipeline = kinds()["Pipeline"].new(key.namespace, key.name)
            fill(pipeline.spec, dag, await self._version(dag))
            await self._platform.resources.create(pipeline)
        elif not plain_dag(pipeline):
            return name_taken(dag, key.namespace, key.name)
        elif not pipeline.metadata.HasField("deletionTimestamp"):
            before = type(pipeline.spec)()
            before.CopyFrom(pipeline.spec)
            fill(pipeline.spec, dag, await self._version(dag))
            if pipeline.spec != before:
                await self._platform.resources.update(pipeline)
        return ""

    async def _version(self, dag: Dag) -> DagVersion:
        """Return a DAG's version, asked for again whenever Airflow has read its file."""
        parsed, version = self._versions.get(dag.dag_id, (None, None))
        if version is None or parsed != dag.parsed:
            version = await self._airflow.version(dag.dag_id)
            self._versions[dag.dag_id] = dag.parsed, version
        return version


async def tagged(airflow: Airflow) -> dict[str, Sequence[Dag]]:
    """Return the DAGs of each tag for the platform.  Raises Unavailable."""
    tags = [tag for tag in await airflow.tags(PREFIX) if tag.startswith(PREFIX)]
    dags: dict[str, Dag] = {}
    for start in range(0, len(tags), MOST_TAGS):
        dags |= {dag.dag_id: dag for dag in await airflow.dags(tags[start : start + MOST_TAGS], match="any")}
    by_tag: dict[str, list[Dag]] = {}
    for dag in dags.values():
        for tag in tags_among(dag.tags):
            by_tag.setdefault(tag, []).append(dag)
    return dict(by_tag)


async def schemas(airflow: Airflow, pipeline: Any) -> Mapping[str, Any]:
    """Return the JSON Schemas of a plain DAG's params.  Raises NotFound that says why it cannot run, Unavailable."""
    namespace, name, wanted = pipeline.metadata.namespace, pipeline.metadata.name, plain_dag(pipeline)
    tag = tag_of(namespace, name)
    dags = await airflow.dags([tag])
    if not dags:
        told = f"no DAG in Airflow has the tag {tag} any more: bring {wanted} back, or delete this Pipeline"
        raise NotFound(f"DAG_GONE: {told}")
    if fault := fault_of(tag, dags):
        raise NotFound(fault)
    (dag,) = dags
    if dag.dag_id != wanted:
        raise Unavailable(f"the tag {tag} stands in DAG {dag.dag_id} now: its Pipeline follows in a moment")
    if dag.unreadable:
        raise NotFound(f"DAG_UNREADABLE: Airflow cannot read {dag.file}: see Import Errors on its page")
    params = (await airflow.dag(dag.dag_id)).params
    if HIDDEN_PARAM in params:
        raise NotFound(f"BAD_PARAM: DAG {wanted} has a param {HIDDEN_PARAM!r}, which the platform gives: rename it")
    return schemas_of(params)
