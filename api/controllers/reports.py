"""Reports from Airflow's listener and from the inference server: hints that something changed, never the change."""

from __future__ import annotations

import asyncio
import hmac
import json
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

MOST_EVENTS = 1000
LARGEST_BYTES = 1024 * 1024
ENDS = ("success", "failed")

log = logging.getLogger(__name__)


def routes(
    token: str, run_seen: Callable[[str, str, bool], Awaitable[None]], serving_started: Callable[[], Awaitable[None]]
) -> list[Route]:
    """Return the routes.  Both need the platform's token; without one they are closed.

    run_seen: gets DAG id, run id and whether the run is said to have ended.
    """
    background: set[asyncio.Task[None]] = set()

    def later(work: Awaitable[None]) -> None:
        task = asyncio.ensure_future(_logged(work))
        background.add(task)
        task.add_done_callback(background.discard)

    def allowed(request: Request) -> bool:
        given = request.headers.getlist("authorization")
        right = f"Bearer {token}".encode()
        return bool(token) and len(given) == 1 and hmac.compare_digest(given[0].encode(), right)

    async def airflow_events(request: Request) -> Response:
        if not allowed(request):
            return JSONResponse({"reason": "UNAUTHENTICATED"}, status_code=401)
        body = await _read(request)
        if body is None:
            return JSONResponse({"reason": "TOO_LARGE"}, status_code=413)
        try:
            events = json.loads(body)["events"][:MOST_EVENTS]
            runs: dict[tuple[str, str], bool] = {}
            for event in events:
                run = str(event["dag_id"]), str(event["run_id"])
                runs[run] = runs.get(run, False) or _is_end(event)
        except (ValueError, KeyError, TypeError, RecursionError):
            return JSONResponse({"reason": "BAD_MESSAGE"}, status_code=400)
        for (dag_id, run_id), ended in runs.items():
            later(run_seen(dag_id, run_id, ended))
        return Response(status_code=202)

    async def started(request: Request) -> Response:
        if not allowed(request):
            return JSONResponse({"reason": "UNAUTHENTICATED"}, status_code=401)
        later(serving_started())
        return Response(status_code=202)

    return [
        Route("/internal/airflow/events", airflow_events, methods=["POST"]),
        Route("/internal/serving/started", started, methods=["POST"]),
    ]


def _is_end(event: Mapping[str, Any]) -> bool:
    return event.get("type") == "dag_run" and event.get("state") in ENDS


async def _read(request: Request) -> bytes | None:
    """Return the body, None as soon as it is too large, whatever its header says."""
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > LARGEST_BYTES:
            return None
    return body


async def _logged(work: Awaitable[None]) -> None:
    try:
        await work
    except Exception:
        log.warning("a report was not acted on; resync will heal it", exc_info=True)
