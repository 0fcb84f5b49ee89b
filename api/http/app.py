"""Health, readiness and metrics, and the routes that controllers bring.  Serves loopback only."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import BaseRoute, Route


def build(ready: Callable[[], Awaitable[bool]], routes: Sequence[BaseRoute] = ()) -> Starlette:
    """Return the application.  `ready`: whether the store answers and controllers run."""

    async def healthz(_: Request) -> Response:
        return PlainTextResponse("ok\n")

    async def readyz(_: Request) -> Response:
        fine = await ready()
        return JSONResponse({"ready": fine}, status_code=200 if fine else 503)

    async def metrics(_: Request) -> Response:
        return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)

    own = [Route("/healthz", healthz), Route("/readyz", readyz), Route("/metrics", metrics)]
    return Starlette(routes=[*own, *routes])
