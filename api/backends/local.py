"""The inference server of this machine, through its admin endpoints.  Loads no model itself."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import httpx

from api.backends.base import Observed, Target
from api.errors import Unavailable

TIMEOUT_S = 5.0
SHOWN = 200


class LocalBackend:
    """Talks to `python -m serving.server` at `url` with the platform's token."""

    def __init__(self, url: str, token: str, *, transport: httpx.AsyncBaseTransport | None = None) -> None:
        self._url = url
        headers = {"Authorization": f"Bearer {token}"}
        self._http = httpx.AsyncClient(base_url=url, timeout=TIMEOUT_S, headers=headers, transport=transport)

    def url(self) -> str:
        """Return the base URL of predictions."""
        return self._url

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def apply(self, target: Target) -> None:
        """Begin a rollout."""
        body = {"revision": target.revision, "artifact_uri": target.artifact_uri, "generation": target.generation}
        await self._call("PUT", target.deployment, json=body)

    async def observe(self, deployment: str) -> Observed | None:
        """Return the state of a deployment."""
        answer = await self._call("GET", deployment)
        if answer.status_code == 404:
            return None
        try:
            found = answer.json()
        except ValueError as error:
            raise Unavailable(f"the inference server at {self._url} answered no JSON: {answer.text[:SHOWN]}") from error
        return Observed(
            state=found["state"],
            current=(found.get("current") or {}).get("revision", ""),
            candidate=(found.get("candidate") or {}).get("revision", ""),
            reason=found.get("reason") or "",
            message=found.get("message") or "",
            generation=found.get("generation") or 0,
        )

    async def delete(self, deployment: str) -> None:
        """Drain and forget."""
        await self._call("DELETE", deployment)

    async def healthy(self) -> bool:
        """Whether the server is ready."""
        try:
            return (await self._http.get("/v2/health/ready")).status_code == 200
        except httpx.HTTPError:
            return False

    async def _call(self, method: str, deployment: str, **sent: Any) -> httpx.Response:
        try:
            answer = await self._http.request(method, f"/admin/deployments/{quote(deployment, safe='')}", **sent)
        except httpx.HTTPError as error:
            raise Unavailable(f"the inference server at {self._url} does not answer") from error
        if answer.status_code >= 400 and answer.status_code != 404:
            raise Unavailable(f"the inference server answered {answer.status_code}: {answer.text[:SHOWN]}")
        return answer
