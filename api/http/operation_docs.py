"""How one operation is described in OpenAPI: its parameters, bodies, answers and errors.  Data and small functions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from api.gen.k8s.io.apimachinery.pkg.apis.meta.v1.generated_pb2 import DeleteOptions
from api.http import body as bodies
from api.http.examples import example
from api.http.schemas import Schema, Schemas, reference
from api.kinds import Kind

TEXT: Schema = {"type": "string"}
FLAG: Schema = {"type": "boolean"}
COUNT: Schema = {"type": "integer", "minimum": 0, "maximum": 10**18 - 1}
NAME: Schema = {"type": "string", "minLength": 1}
VERSION: Schema = {"type": "string", "pattern": "^[0-9]{0,19}$"}


def _parameter(name: str, schema: Schema, description: str, where: str = "query") -> Schema:
    return {"name": name, "in": where, "schema": schema, "description": description, "required": where == "path"}


def _or_null(schema: Schema) -> Schema:
    """Return a schema that takes null too: CloudEvents' way to leave an attribute out."""
    return {**schema, "type": [schema["type"], "null"]}


PATH = {
    "namespace": _parameter("namespace", NAME, "The project.", "path"),
    "name": _parameter("name", NAME, "The object's name.", "path"),
}
DRY_RUN = _parameter("dryRun", {"type": "string", "enum": ["All"]}, "`All` checks and stores nothing.")
FIELD_MANAGER = _parameter("fieldManager", TEXT, "Who owns the fields that are set.")
FIELD_VALIDATION = _parameter(
    "fieldValidation",
    {"type": "string", "enum": ["Strict", "Warn", "Ignore"]},
    "Taken and not needed: unknown and repeated fields are refused always.",
)
FORCE = _parameter("force", FLAG, "Server-side apply: take over fields that others own.")
SELECT = (
    _parameter("labelSelector", TEXT, "Labels, as in `a=b, c in (d,e), !f`."),
    _parameter("fieldSelector", TEXT, "Indexed fields, as in `metadata.name=x`."),
)
PAGE = (
    _parameter("limit", COUNT, "The most objects of one answer; at most and by default 1,000."),
    _parameter("continue", TEXT, "Where the next page begins: `metadata.continue` of the last one."),
)
LIST = (
    *SELECT,
    *PAGE,
    _parameter("resourceVersion", VERSION, "Watch: the version after which changes are told. Lists show the latest."),
    _parameter("watch", FLAG, "Stream changes as lines of `{type, object}`."),
    _parameter("allowWatchBookmarks", FLAG, "Watch: tell the version now and then when nothing changes."),
    _parameter("timeoutSeconds", COUNT, "Watch: how long."),
    {
        "name": "listOptionsExt",
        "in": "query",
        "required": False,
        "description": "Comparisons, order and pages: a ListOptionsExt as JSON.",
        "content": {"application/json": {"schema": reference("michelangelo.api.ListOptionsExt")}},
    },
)
POLICY = _parameter(
    "propagationPolicy",
    {"type": "string", "enum": ["Background", "Foreground", "Orphan"]},
    "What becomes of what the object owns; default: it is deleted too.",
)
# What each operation takes, and its name for people.
QUERY: Mapping[str, Sequence[Schema]] = {
    "list": LIST,
    "get": (),
    "create": (DRY_RUN, FIELD_MANAGER, FIELD_VALIDATION),
    "update": (DRY_RUN, FIELD_MANAGER, FIELD_VALIDATION),
    "patch": (DRY_RUN, FIELD_MANAGER, FIELD_VALIDATION, FORCE),
    "delete": (DRY_RUN, POLICY),
    "deletecollection": (*SELECT, DRY_RUN, POLICY),
}
SUMMARIES = {
    "list": "List or watch {}",
    "get": "Return one {}",
    "create": "Create a {}",
    "update": "Replace a {}: its metadata and spec",
    "patch": "Change some fields of a {}",
    "delete": "Delete a {}",
    "deletecollection": "Delete each selected {} of a project",
}
READ_CODES = (400, 401, 403, 404, 406, 410, 413, 429, 500, 503, 504)
WRITE_CODES = (400, 401, 403, 404, 406, 409, 410, 412, 413, 415, 429, 500, 501, 503, 504, 507)
REASONS = {
    400: "The request is wrong: `field_violations` lists every fault.",
    401: "Nobody that is known.",
    403: "Not allowed.",
    404: "There is no such thing, or it is not yours to know.",
    406: "None of the accepted forms can be given.",
    409: "The name is taken, or the object changed since it was read.",
    410: "The version or page is no longer kept: list again.",
    412: "The state of something does not allow it.",
    413: "Too many bytes.",
    415: "The body's form is not read.",
    429: "Too often or too many: see Retry-After.",
    500: "A fault of the server.",
    501: "Not carried out by this release.",
    503: "Something does not answer: try again.",
    504: "It took longer than the caller waits.",
    507: "The disk is full.",
}
CAUSE: Schema = {
    "type": "object",
    "properties": {"reason": TEXT, "message": TEXT, "field": TEXT},
    "required": ["message", "field"],
}
VIOLATION: Schema = {
    "type": "object",
    "properties": {"field": TEXT, "description": TEXT, "value": TEXT, "reason": TEXT},
    "required": ["field", "description"],
}
SCHEMAS: dict[str, Schema] = {
    "Status": {
        "type": "object",
        "description": "A refusal: Kubernetes' Status, with what every transport of this API tells.",
        "properties": {
            "kind": {"type": "string", "enum": ["Status"]},
            "apiVersion": {"type": "string", "enum": ["v1"]},
            "metadata": {"type": "object"},
            "status": {"type": "string", "enum": ["Failure"]},
            "message": TEXT,
            "reason": {"type": "string", "pattern": "^[A-Z][A-Z0-9_]*$"},
            "code": {"type": "integer", "minimum": 400, "maximum": 599},
            "details": {
                "type": "object",
                "properties": {"causes": {"type": "array", "items": CAUSE}, "retryAfterSeconds": COUNT},
            },
            "grpc_code": TEXT,
            "field_violations": {"type": "array", "items": VIOLATION},
            "request_id": TEXT,
            "doc": TEXT,
        },
        "required": ["kind", "status", "message", "reason", "code", "field_violations", "request_id"],
    },
    "CloudEvent": {
        "type": "object",
        "description": "CloudEvents 1.0. `type` is the event's name and `id` its key; extensions are attributes.",
        "properties": {
            "specversion": {"type": "string", "enum": ["1.0"]},
            "id": NAME,
            "source": NAME,
            "type": NAME,
            "subject": _or_null(TEXT),
            "time": _or_null({"type": "string", "format": "date-time"}),
            "dataschema": _or_null(NAME),
            "datacontenttype": _or_null(TEXT),
            "data": {},
        },
        "required": ["specversion", "id", "source", "type"],
        "additionalProperties": {"type": ["string", "boolean", "integer", "null"]},
    },
    "Success": {
        "type": "object",
        "description": "What is answered where there is nothing to show.",
        "properties": {"kind": TEXT, "apiVersion": TEXT, "status": {"type": "string", "enum": ["Success"]}},
        "required": ["kind", "status"],
    },
}
RESPONSES = {
    str(code): {"description": told, "content": {"application/json": {"schema": reference("Status")}}}
    for code, told in REASONS.items()
}


@dataclass(frozen=True)
class Operation:
    """One verb of Kubernetes, and where: `Namespaced`, `ForAllNamespaces` or empty."""

    verb: str
    suffix: str

    def name(self, kind: Kind) -> str:
        """Return its id, such as `createNamespacedPipelineRun`."""
        verb = {"deletecollection": "deleteCollection", "get": "read", "update": "replace"}.get(self.verb, self.verb)
        after = self.suffix == "ForAllNamespaces"
        return f"{verb}{kind.name}{self.suffix}" if after else f"{verb}{self.suffix}{kind.name}"


def operation(
    kind: Kind, described: Operation, given: Schema, taken: Schema | None = None, links: Schema | None = None
) -> Schema:
    """Return the description of one operation.  `given`: what it answers; `taken`: what it reads."""
    verb = described.verb
    group, version = kind.group_version.split("/")
    made: Schema = {
        "operationId": described.name(kind),
        "summary": SUMMARIES[verb].format(kind.name),
        "tags": [kind.name],
        "parameters": list(QUERY[verb]),
        "responses": responses(
            201 if verb == "create" else 200, given, READ_CODES if verb in ("get", "list") else WRITE_CODES, links
        ),
        "x-kubernetes-action": verb,
        "x-kubernetes-group-version-kind": {"group": group, "version": version, "kind": kind.name},
    }
    if verb == "patch":
        made["requestBody"] = body({"type": "object"}, (bodies.MERGE, bodies.APPLY))
        made["responses"]["201"] = made["responses"]["200"]
    elif verb in ("delete", "deletecollection"):
        made["requestBody"] = body(reference("DeleteOptions"), (bodies.JSON,), required=False)
    elif taken is not None:
        made["requestBody"] = body(taken, (bodies.JSON,), shown=example(kind.name, kind.group_version))
    return made


def body(schema: Schema, media: Sequence[str], *, required: bool = True, shown: Any = None) -> Schema:
    """Return the description of a request's body.  `shown`: an example."""
    content: Schema = {"schema": schema}
    if shown is not None:
        content["example"] = shown
    return {"required": required, "content": dict.fromkeys(media, content)}


def responses(code: int, schema: Schema, refusals: Sequence[int], links: Schema | None = None) -> Schema:
    """Return the descriptions of an operation's answers."""
    fine: Schema = {"description": "Done.", "content": {"application/json": {"schema": schema}}}
    if links:
        fine["links"] = links
    return {str(code): fine, **{str(each): {"$ref": f"#/components/responses/{each}"} for each in refusals}}


def links(kind: Kind, suffix: str) -> Schema:
    """Return what can be done with what was created."""
    where = {"name": "$response.body#/metadata/name"}
    if suffix:
        where["namespace"] = "$response.body#/metadata/namespace"
    return {
        verb: {"operationId": Operation(verb, suffix).name(kind), "parameters": where}
        for verb in ("get", "update", "patch", "delete")
    }


def deletion(schemas: Schemas) -> Schema:
    """Return the schema of Kubernetes' DeleteOptions."""
    schemas.message(DeleteOptions.DESCRIPTOR)
    made = schemas.found.pop(DeleteOptions.DESCRIPTOR.full_name)
    return made | {"properties": {"apiVersion": {}, "kind": {}, **made["properties"]}}


def documents(schemas: Schemas) -> Schema:
    """Return the descriptions of the paths that describe the API."""
    found = {
        "/api": "Versions of Kubernetes' own group",
        "/api/v1": "Its kinds: namespaces",
        "/apis": "Groups and versions",
        "/version": "The level of Kubernetes' API",
        "/openapi/v3": "Where OpenAPI 3.0 documents lie",
        "/api/v1/namespaces": "Projects as Kubernetes' namespaces",
    }
    described: Schema = {
        path: {
            "get": {
                "operationId": "read" + "".join(part.title().replace(".", "") for part in path.split("/")),
                "summary": told,
                "tags": ["discovery"],
                "responses": responses(200, {"type": "object"}, READ_CODES),
            }
        }
        for path, told in found.items()
    }
    described["/api/v1/namespaces"]["get"]["parameters"] = [*SELECT, *PAGE]
    return described
