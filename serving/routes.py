"""Which part answers which path.  Decides nothing about models."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from urllib.parse import unquote

from serving.admin import Admin
from serving.deployments import Deployment, Deployments
from serving.http import Request, Response, answer, failure
from serving.log import PredictionLog
from serving.metrics import Metrics
from serving.models import EVENT_TIMESTAMP
from serving.online_store import OnlineStore
from serving.predict import Predictor
from serving.signature import DATATYPES

NAME = "michelangelo-airflow"
VERSION = "0.1.0"
EXTENSIONS = ("event_timestamp", "explain_features")
TEXT = b"Content-Type: text/plain; version=0.0.4; charset=utf-8\r\n"

Answer = Response | Awaitable[Response]


class Routes:
    """Handler of every request."""

    def __init__(
        self,
        deployments: Deployments,
        predictor: Predictor,
        admin: Admin,
        metrics: Metrics,
        log: PredictionLog,
        store: OnlineStore,
    ) -> None:
        self.ready = True
        self._deployments = deployments
        self._predictor = predictor
        self._admin = admin
        self._metrics = metrics
        self._log = log
        self._store = store

    def __call__(self, request: Request) -> Answer:
        """Answer a request."""
        path = request.url.partition(b"?")[0].decode("latin-1")
        parts = path.split("/")[1:]
        if "%" in path:
            parts = [unquote(part) for part in parts]
        match parts:
            case ["v2", "models", name, *rest]:
                return self._model(request, name, rest)
            case ["admin", "deployments", *rest] if len(rest) < 2:
                return self._administer(request, rest)
            case ["v2"] | ["v2", ""]:
                return _only("GET", request, self._server)
            case ["v2", "health", "live"]:
                return _only("GET", request, lambda: answer(200, {"live": True}))
            case ["v2", "health", "ready"]:
                return _only("GET", request, lambda: answer(200 if self.ready else 503, {"ready": self.ready}))
            case ["metrics"]:
                return _only("GET", request, self._exposition)
        return failure(404, "NOT_FOUND", f"there is nothing at {path[:100]!r}")

    def _model(self, request: Request, name: str, rest: list[str]) -> Answer:
        version = ""
        if len(rest) > 1 and rest[0] == "versions":
            version, rest = rest[1], rest[2:]
        if rest not in ([], ["infer"], ["ready"]):
            return failure(404, "NOT_FOUND", "a model has metadata, `ready` and `infer`")
        method = "POST" if rest == ["infer"] else "GET"
        if request.method != method:
            return _not_allowed(method)
        found = self._deployments.find(name)
        if found is None:
            self._metrics.of("").request(404, 0.0)
            return failure(404, "MODEL_NOT_FOUND", f"model {name[:64]!r} is not known")
        if version and (found.current is None or found.current.revision != version):
            return failure(404, "VERSION_NOT_FOUND", f"revision {version[:64]!r} of {name} does not answer here")
        if rest == ["infer"]:
            header_id = request.headers.get(b"x-request-id", b"").decode("latin-1")
            return self._predictor.infer(found, request.body, header_id)
        if rest == ["ready"]:
            ready = found.current is not None
            return answer(200 if ready else 503, {"name": name, "ready": ready})
        return _metadata(found)

    def _administer(self, request: Request, rest: list[str]) -> Answer:
        if not self._admin.allowed(request):
            return failure(401, "UNAUTHENTICATED", "send the platform's token", head=b"WWW-Authenticate: Bearer\r\n")
        if not rest or not rest[0]:
            return _only("GET", request, self._admin.every)
        match request.method:
            case "GET":
                return self._admin.get(rest[0])
            case "PUT":
                return self._admin.put(rest[0], request.body)
            case "DELETE":
                return self._admin.delete(rest[0])
        return _not_allowed("GET, PUT, DELETE")

    def _server(self) -> Response:
        return answer(200, {"name": NAME, "version": VERSION, "extensions": EXTENSIONS})

    def _exposition(self) -> Response:
        revisions = [(item.name, item.current.revision) for item in self._deployments.every() if item.current]
        text = self._metrics.text(revisions, dropped=self._log.dropped, join_errors=self._store.errors)
        return Response(200, text.encode(), TEXT)


def _metadata(deployment: Deployment) -> Response:
    if deployment.current is None:
        return failure(503, "NOT_READY", f"{deployment.name} has no revision that answers")
    signature = deployment.current.model.signature
    return answer(
        200,
        {
            "name": deployment.name,
            "versions": [deployment.current.revision],
            "platform": "onnx",
            "inputs": [
                {
                    "name": item.name,
                    "datatype": DATATYPES[item.dtype],
                    "shape": [-1],
                    "parameters": {"dtype": item.dtype, "required": item.required},
                }
                for item in signature.inputs
            ],
            "outputs": [{"name": signature.output, "datatype": "FP64", "shape": [-1]}],
            "parameters": {EVENT_TIMESTAMP: "ISO 8601 or microseconds", "explain_features": "boolean"},
        },
    )


def _only(method: str, request: Request, answering: Callable[[], Response]) -> Response:
    return answering() if request.method == method else _not_allowed(method)


def _not_allowed(methods: str) -> Response:
    return failure(405, "METHOD_NOT_ALLOWED", f"use {methods}", head=f"Allow: {methods}\r\n".encode())
