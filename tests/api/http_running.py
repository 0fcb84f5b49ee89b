"""The real HTTP port over a real store, in a thread of its own.  Fakes nothing."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx

from api.auth.base import Anyone, Bearer
from api.auth.entrance import Entrance
from api.auth.static import OwnToken
from api.calls import Access, Everybody
from api.config import TlsConfig
from api.events import Limits
from api.http import app
from api.http.exchange import Receive, Scope, Send
from api.http.gateway import Gateway
from api.http.port import http_server
from api.operations import Operations
from api.platform import Platform
from tests.api.running import Served

ROOT = "/apis/michelangelo.api/v2"


class HttpServed(Served):
    """A gRPC and an HTTP server over one store."""

    def __init__(
        self,
        path: Path,
        limits: Limits | None = None,
        access: Access | None = None,
        token: str = "",
        tls: TlsConfig | None = None,
        own: TlsConfig | None = None,
    ) -> None:
        """Start both.  `token`: what everybody must show, empty for nothing; `tls`, `own`: of the HTTP port."""
        super().__init__(path, limits, access)
        self.asked = 0
        self._port = http_server(self._application(access or Everybody(), token), 0, tls=tls, own=own)
        self.port = self.run(_entered(self._port))
        self.url = f"{'http' if tls is None else 'https'}://127.0.0.1:{self.port}"
        self.http = httpx.Client(base_url=self.url, timeout=20)
        if token:
            self.http.headers["authorization"] = f"Bearer {token}"

    def _application(self, access: Access, token: str) -> app.Application:
        async def ready() -> bool:
            return True

        platform = Platform(self.resources, self.hub, access)
        authenticator = Bearer([OwnToken(token, "owner")]) if token else Anyone()
        entrance = Entrance(authenticator, access, self.resources.record)
        served = app.build(ready, (), Gateway(Operations(self.resources, access), platform, entrance))

        async def counted(scope: Scope, receive: Receive, send: Send) -> None:
            self.asked += 1
            await served(scope, receive, send)

        return counted

    def close(self) -> None:
        """Stop both servers."""
        self.http.close()
        self.run(self._port.__aexit__(None, None, None))
        super().close()

    def send(
        self, method: str, path: str, value: Any = None, *, headers: Mapping[str, str] | None = None, **sent: Any
    ) -> httpx.Response:
        """Send a request; `value` goes as JSON, `content` as it is."""
        given = dict(headers or {})
        if value is not None:
            sent["content"] = json.dumps(value).encode()
            given.setdefault("content-type", "application/json")
        return self.http.request(method, path, headers=given, **sent)

    def done(self, method: str, path: str, value: Any = None, **sent: Any) -> Any:
        """Send a request that must succeed, and return the JSON of its answer."""
        answer = self.send(method, path, value, **sent)
        assert answer.status_code < 300, answer.text
        return answer.json()

    def told(self, method: str, path: str, value: Any = None, **sent: Any) -> tuple[int, str, list[str]]:
        """Send a request that must be refused and write nothing; returns status, reason and refused fields."""
        before = self.log()
        answer = self.send(method, path, value, **sent)
        assert answer.status_code >= 400, answer.text
        assert answer.status_code not in (500, 502), answer.text
        assert self.log() == before, "something was written"
        body = answer.json()
        assert (body["kind"], body["status"], body["code"]) == ("Status", "Failure", answer.status_code)
        assert body["request_id"] == answer.headers["x-request-id"]
        return answer.status_code, body["reason"], [violation["field"] for violation in body["field_violations"]]


async def _entered(server: Any) -> int:
    port: int = await server.__aenter__()
    return port
