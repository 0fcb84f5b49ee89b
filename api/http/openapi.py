"""OpenAPI documents made from the registry: 3.1 of everything, and 3.0 of a group and version for kubectl."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from functools import cache
from typing import Any

import msgspec

from api.gen.michelangelo.api import list_pb2
from api.gen.michelangelo.platform.v1 import broker_service_pb2 as broker
from api.gen.michelangelo.platform.v1 import resource_service_pb2 as wire
from api.http import discovery, operation_docs
from api.http.cloudevents import STRUCTURED
from api.http.operation_docs import Operation, operation
from api.http.resources import is_global
from api.http.schemas import Schemas, reference
from api.kinds import Kind, kinds

TITLE = "Michelangelo on Airflow"
VERSION = "0.1.0"
DESCRIPTION = (
    "Resources of the platform as Kubernetes serves its own: the same paths, verbs and errors, so that kubectl works. "
    "Messages are protobuf JSON. `?watch=true` on a list streams lines of `{type, object}`."
)


@cache
def document() -> dict[str, Any]:
    """Return OpenAPI 3.1 of every path."""
    schemas = Schemas(nullable=True)
    paths: dict[str, Any] = {}
    for kind in kinds().values():
        for path, method, described in _operations(kind, schemas):
            paths.setdefault(path, _with_parameters(path))[method] = described
    for path, made in operation_docs.documents(schemas).items():
        paths[path] = made
    paths["/apis/michelangelo.platform/v1/search"] = {"post": _search(schemas)}
    paths["/apis/michelangelo.platform/v1/plan"] = {"post": _plan(schemas)}
    published = "/apis/michelangelo.platform/v1/namespaces/{namespace}/cloudevents"
    paths[published] = {**_with_parameters(published), "post": _publish(schemas)}
    schemas.message(list_pb2.ListOptionsExt.DESCRIPTOR)
    return {
        "openapi": "3.1.0",
        "info": {"title": TITLE, "version": VERSION, "description": DESCRIPTION},
        "security": [{"bearer": []}],
        "paths": paths,
        "components": _components(schemas),
    }


@cache
def index() -> dict[str, Any]:
    """Return where the 3.0 documents lie.  Clients keep each until its hash changes."""
    found = {"api/v1": core(), **{f"apis/{name}": group(name) for name in discovery.group_versions()}}
    return {
        "paths": {name: {"serverRelativeURL": f"/openapi/v3/{name}?hash={_hash(made)}"} for name, made in found.items()}
    }


def _hash(made: dict[str, Any]) -> str:
    return hashlib.sha256(msgspec.json.encode(made)).hexdigest()[:32].upper()


@cache
def core() -> dict[str, Any]:
    """Return OpenAPI 3.0 of Kubernetes' own group, of which nothing is described."""
    return {"openapi": "3.0.0", "info": {"title": TITLE, "version": VERSION}, "paths": {}}


@cache
def group(group_version: str) -> dict[str, Any]:
    """Return OpenAPI 3.0 of a group and version."""
    schemas = Schemas(nullable=False)
    paths: dict[str, Any] = {}
    for kind in kinds().values():
        if kind.group_version == group_version:
            for path, method, described in _operations(kind, schemas):
                paths.setdefault(path, _with_parameters(path))[method] = described
    schemas.message(list_pb2.ListOptionsExt.DESCRIPTOR)
    return {
        "openapi": "3.0.0",
        "info": {"title": TITLE, "version": VERSION},
        "paths": paths,
        "components": _components(schemas),
    }


def _components(schemas: Schemas) -> dict[str, Any]:
    own = {**operation_docs.SCHEMAS, "DeleteOptions": operation_docs.deletion(schemas)}
    return {
        "schemas": dict(sorted({**schemas.found, **own}.items())),
        "responses": operation_docs.RESPONSES,
        "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer"}},
    }


def _with_parameters(path: str) -> dict[str, Any]:
    parameters = [operation_docs.PATH[name] for name in ("namespace", "name") if f"{{{name}}}" in path]
    return {"parameters": parameters} if parameters else {}


def _operations(kind: Kind, schemas: Schemas) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Yield path, method and description of every operation of a kind."""
    plural, root = discovery.plural(kind), f"/apis/{kind.group_version}"
    one, many = schemas.kind(kind), schemas.listing(kind)
    everywhere = f"{root}/{plural}"
    yield everywhere, "get", operation(kind, Operation("list", "ForAllNamespaces"), many)
    places = [f"{root}/namespaces/{{namespace}}/{plural}"]
    if is_global(kind):
        places.append(everywhere)
    for place in places:
        suffix = "Namespaced" if "{namespace}" in place else ""
        links = operation_docs.links(kind, suffix)
        if suffix:
            yield place, "get", operation(kind, Operation("list", suffix), many)
            yield place, "delete", operation(kind, Operation("deletecollection", suffix), reference("Success"))
        yield place, "post", operation(kind, Operation("create", suffix), one, one, links)
        item = f"{place}/{{name}}"
        yield item, "get", operation(kind, Operation("get", suffix), one)
        yield item, "put", operation(kind, Operation("update", suffix), one, one)
        yield item, "patch", operation(kind, Operation("patch", suffix), one, one)
        yield item, "delete", operation(kind, Operation("delete", suffix), reference("Success"))


def _search(schemas: Schemas) -> dict[str, Any]:
    answers = wire.SearchResponse.DESCRIPTOR
    return {
        "operationId": "search",
        "summary": "Search every kind by text and fields",
        "tags": ["platform"],
        "requestBody": operation_docs.body(schemas.message(wire.SearchRequest.DESCRIPTOR), ("application/json",)),
        "responses": operation_docs.responses(200, schemas.message(answers), operation_docs.WRITE_CODES),
    }


def _plan(schemas: Schemas) -> dict[str, Any]:
    answers = wire.PlanResponse.DESCRIPTOR
    return {
        "operationId": "plan",
        "summary": "Tell what applying some resources would change",
        "tags": ["platform"],
        "requestBody": operation_docs.body(schemas.message(wire.PlanRequest.DESCRIPTOR), ("application/json",)),
        "responses": operation_docs.responses(200, schemas.message(answers), operation_docs.WRITE_CODES),
    }


def _publish(schemas: Schemas) -> dict[str, Any]:
    answers = schemas.message(broker.PublishResponse.DESCRIPTOR)
    described = operation_docs.responses(201, answers, operation_docs.WRITE_CODES)
    described["200"] = {**described["201"], "description": "It was there already."}
    return {
        "operationId": "publish",
        "summary": "Publish a CloudEvent: this structured form, or attributes as headers `ce-...` and the data as body",
        "tags": ["platform"],
        "requestBody": operation_docs.body(reference("CloudEvent"), (STRUCTURED,)),
        "responses": described,
    }
