"""Admin endpoints: which revision a deployment should serve, and what came of it.  Closed without the token."""

from __future__ import annotations

import hmac
import re
from typing import Any

import msgspec

from api.errors import ApiError, FieldViolation, InvalidArgument
from serving.deployments import Deployment, Deployments, Target
from serving.http import Request, Response, answer, failure, refused
from serving.metrics import Metrics
from serving.violations import violation

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,252}\.[A-Za-z0-9][A-Za-z0-9._-]{0,252}")
MOST_NAME = 253


class Wanted(msgspec.Struct):
    """Body of a PUT."""

    revision: str
    artifact_uri: str
    generation: int


_decode = msgspec.json.Decoder(Wanted).decode


class Admin:
    """Answers `/admin/*`."""

    def __init__(self, deployments: Deployments, metrics: Metrics, token: str) -> None:
        self._deployments = deployments
        self._metrics = metrics
        self._token = token.encode()

    def allowed(self, request: Request) -> bool:
        """Whether the request carries the token; without a configured one nobody is let in."""
        kind, _, given = request.headers.get(b"authorization", b"").partition(b" ")
        return bool(self._token) and kind.lower() == b"bearer" and hmac.compare_digest(given.strip(), self._token)

    def every(self) -> Response:
        """GET /admin/deployments."""
        return answer(200, {"deployments": [_shown(item) for item in self._deployments.every()]})

    def get(self, name: str) -> Response:
        """GET /admin/deployments/{name}."""
        found = self._deployments.find(name)
        if found is None:
            return failure(404, "NOT_FOUND", f"deployment {name[:64]!r} is not known")
        return answer(200, _shown(found))

    def put(self, name: str, body: bytes) -> Response:
        """PUT /admin/deployments/{name}: begin a rollout."""
        try:
            return answer(202, _shown(self._deployments.apply(name, _target(name, body))))
        except ApiError as error:
            return refused(error)

    def delete(self, name: str) -> Response:
        """DELETE /admin/deployments/{name}; again is no error."""
        if self._deployments.delete(name):
            self._metrics.forget(name)
        return Response(204, head=b"")


def _target(name: str, body: bytes) -> Target:
    faults = []
    if len(name) > MOST_NAME or not NAME.fullmatch(name):
        faults.append(FieldViolation("id", "expected {project}.{deployment}: letters, digits, - and _"))
    try:
        wanted = _decode(body)
    except (msgspec.DecodeError, RecursionError, ValueError) as error:
        faults.append(violation(str(error)))
    else:
        faults += [FieldViolation(key, "is empty") for key in ("revision", "artifact_uri") if not getattr(wanted, key)]
        if wanted.generation < 0:
            faults.append(FieldViolation("generation", "expected 0 or more"))
        if not faults:
            return Target(wanted.revision, wanted.artifact_uri, wanted.generation)
    described = "; ".join(f"{fault.field}: {fault.description}" for fault in faults)
    raise InvalidArgument(described, violations=faults)


def _shown(deployment: Deployment) -> dict[str, Any]:
    current, candidate, why = deployment.current, deployment.candidate, deployment.failure
    return {
        "id": deployment.name,
        "state": deployment.state,
        "current": current and {"revision": current.revision, "artifact_uri": current.artifact_uri},
        "candidate": candidate and {"revision": candidate.revision, "artifact_uri": candidate.artifact_uri},
        "generation": deployment.generation,
        "reason": why.reason if why else "",
        "message": why.message if why else "",
    }
