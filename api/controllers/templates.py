"""Which parameters a workflow has: those of its template, which Airflow shows, or those that its own graph brings."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from api.airflow import Airflow
from api.code_store import CodeStore
from api.errors import NotFound, Unavailable
from api.plain_dags import schemas_of as plain_schemas
from api.uniflow import Authored, schemas
from api.validation import nearest
from api.workflows import STEPS_TEMPLATE, Workflow, schema_of

TEMPLATE_TAG = "template"


class Templates:
    """The templates of one Airflow.  `settle_s`: how long they stay the same before one that is not there is missed."""

    def __init__(self, airflow: Airflow, artifacts: str, settle_s: float = 0.0) -> None:
        self._airflow = airflow
        self._code = CodeStore(artifacts)
        self._settle_s = settle_s
        self._known: set[str] = set()
        self._settled = 0.0

    async def schemas(self, workflow: Workflow) -> Mapping[str, Any]:
        """Return the JSON Schema of every parameter.  Raises NotFound with the nearest name, Unavailable."""
        if workflow.template == STEPS_TEMPLATE:
            return {}
        if workflow.authored.graph:
            return await self._authored(workflow.authored)
        if workflow.dag:
            return plain_schemas((await self._airflow.dag(workflow.dag)).params)
        found = {dag.dag_id for dag in await self._airflow.dags(tags=[TEMPLATE_TAG])}
        if workflow.template not in found:
            hint = nearest(workflow.template, sorted(found)) or f": there are {', '.join(sorted(found))}"
            text = f"spec.manifest.file_path {workflow.template[:64]!r} is no template{hint}"
            raise NotFound(text) if self._are_all(found) else Unavailable(f"{text} (Airflow may still be reading them)")
        params = (await self._airflow.dag(workflow.template)).params
        return {name: schema_of(param.get("schema") or {}, param.get("value")) for name, param in params.items()}

    async def _authored(self, authored: Authored) -> Mapping[str, Any]:
        """Return the JSON Schemas that a graph brings.  Raises NotFound without its code, Unavailable."""
        try:
            there = await asyncio.to_thread(self._code.has, authored.namespace, authored.code)
        except OSError as error:
            raise Unavailable(f"the artifact store does not answer: {error}") from error
        if not there:
            told = f"spec.manifest.uniflow_tar: there is no code {authored.code[:12]} in the artifact store"
            raise NotFound(f"{told}: `ma pipeline apply -f` puts it there")
        return schemas(authored.graph)

    def _are_all(self, found: set[str]) -> bool:
        """Whether the templates have stayed the same for a while: Airflow shows one after another when it starts."""
        now = asyncio.get_running_loop().time()
        if found != self._known:
            self._known, self._settled = found, now + self._settle_s
        return bool(found) and now >= self._settled
