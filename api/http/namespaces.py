"""Kubernetes' namespaces, read from Projects: for tools that ask which there are.  Creates and deletes none."""

from __future__ import annotations

from typing import Any

from api.columns import age_s
from api.errors import NotFound
from api.http import parameters
from api.http.accept import TABLE, form
from api.http.exchange import Answer, Exchange, answer
from api.http.refusals import MethodNotAllowed
from api.http.resources import operation
from api.http.table import API_VERSION, duration
from api.messages.plain import plain
from api.operations import Operations

COLUMNS = tuple(
    {"name": name, "type": "string", "format": "name" if name == "Name" else "", "description": told, "priority": 0}
    for name, told in (("Name", "Name."), ("Status", "Whether it is being deleted."), ("Age", "Time since its start."))
)


class Namespaces:
    """Answers requests on namespaces."""

    def __init__(self, operations: Operations) -> None:
        self._operations = operations

    async def __call__(self, name: str, exchange: Exchange) -> Answer:
        """Answer.  Raises `api.errors`."""
        if exchange.method != "GET":
            raise MethodNotAllowed(exchange.method, ("GET", "HEAD"))
        exchange.query.check(parameters.LIST)
        if name:
            wanted = operation("Project", "Get")
            got: Any = await self._operations.call(exchange.call, wanted, wanted.request(namespace=name, name=name))
            return _shown(exchange, [got.project], None)
        if exchange.query.flag("watch"):
            raise NotFound("namespaces cannot be watched: watch projects", reason="NO_ROUTE")
        wanted = operation("Project", "List")
        request = wanted.request()
        request.list_options.labelSelector = exchange.query.text("labelSelector")
        request.list_options.fieldSelector = exchange.query.text("fieldSelector")
        request.list_options.limit = exchange.query.number("limit")
        setattr(request.list_options, "continue", exchange.query.text("continue"))
        got = await self._operations.call(exchange.call, wanted, request)
        return _shown(exchange, got.project_list.items, got.project_list.metadata)


def _shown(exchange: Exchange, projects: Any, metadata: Any | None) -> Answer:
    if form(exchange.header("accept")) == TABLE:
        made = {"kind": "Table", "apiVersion": API_VERSION, "columnDefinitions": COLUMNS}
        return answer({**made, "metadata": plain(metadata) if metadata is not None else {}, "rows": _rows(projects)})
    if metadata is None:
        return answer(_namespace(projects[0]))
    items = [_namespace(project) for project in projects]
    return answer({"kind": "NamespaceList", "apiVersion": "v1", "metadata": plain(metadata), "items": items})


def _namespace(project: Any) -> dict[str, Any]:
    metadata = plain(project.metadata)
    metadata.pop("namespace", None)
    return {
        "kind": "Namespace",
        "apiVersion": "v1",
        "metadata": metadata,
        "spec": {},
        "status": {"phase": _phase(project)},
    }


def _phase(project: Any) -> str:
    return "Terminating" if project.metadata.HasField("deletionTimestamp") else "Active"


def _rows(projects: Any) -> list[dict[str, Any]]:
    return [
        {
            "cells": [project.metadata.name, _phase(project), duration(age_s(project) or 0)],
            "object": {
                "kind": "PartialObjectMetadata",
                "apiVersion": API_VERSION,
                "metadata": _namespace(project)["metadata"],
            },
        }
        for project in projects
    ]
