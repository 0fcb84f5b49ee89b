"""The HTTP port: the API behind its gateway; health, readiness and metrics, and the routes that controllers bring."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import BaseRoute, Route

from api.http.exchange import Receive, Scope, Send
from api.http.gateway import ROOTS, Gateway

Application = Callable[[Scope, Receive, Send], Awaitable[None]]


def build(
    ready: Callable[[], Awaitable[bool]], routes: Sequence[BaseRoute] = (), gateway: Gateway | None = None
) -> Application:
    """Return the application.  `ready`: whether the store answers and controllers run."""

    async def healthz(_: Request) -> Response:
        return PlainTextResponse("ok\n")

    async def readyz(_: Request) -> Response:
        fine = await ready()
        return JSONResponse({"ready": fine}, status_code=200 if fine else 503)

    async def metrics(_: Request) -> Response:
        return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)

    own = [Route("/healthz", healthz), Route("/readyz", readyz), Route("/metrics", metrics)]
    others = Starlette(routes=[*own, *routes])

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        if gateway is not None and scope["type"] == "http" and str(scope["path"]).split("/", 2)[1:2] in _ROOTS:
            await gateway(scope, receive, send)
        else:
            await others(scope, receive, send)

    return application


_ROOTS = [[root] for root in ROOTS]
