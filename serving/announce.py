"""Tells the API server that this server has started, so that it sends the deployments again.  Never waits for it."""

from __future__ import annotations

import asyncio
import functools
import http.client
import json
import logging
from urllib.parse import urlsplit

from api.config import Config
from serving.background import in_background

FIRST_S = 0.2
LONGEST_S = 10.0
TIMEOUT_S = 5.0

log = logging.getLogger(__name__)


async def announce(config: Config) -> None:
    """Report until the API server has taken it."""
    wait_s = FIRST_S
    while True:
        try:
            status = await in_background(functools.partial(_report, config), name="announce")
            if status < 300:
                return
            log.warning("the API server answered %s to the report of the start", status)
        except (OSError, http.client.HTTPException):
            pass  # it starts at the same time; it is asked again
        await asyncio.sleep(wait_s)
        wait_s = min(wait_s * 2, LONGEST_S)


def _report(config: Config) -> int:
    where = urlsplit(config.api_http_url)
    host, tls = where.hostname or "127.0.0.1", config.tls.client_context()
    if tls is None:
        connection = http.client.HTTPConnection(host, where.port, timeout=TIMEOUT_S)
    else:
        connection = http.client.HTTPSConnection(host, where.port, timeout=TIMEOUT_S, context=tls)
    try:
        body = json.dumps({"server": "local", "url": config.serving_url})
        headers = {"Authorization": f"Bearer {config.token}", "Content-Type": "application/json"}
        connection.request("POST", "/internal/serving/started", body, headers)
        return connection.getresponse().status
    finally:
        connection.close()
