"""The HTTP port: uvicorn in a loop that exists, beside gRPC.  Knows no route."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections import OrderedDict
from collections.abc import AsyncIterator
from functools import partial
from typing import Any, cast

import uvicorn

from api.config import LOOPBACK, TlsConfig
from api.http.app import Application
from api.http.certificate import context
from api.http.protocol import Protocol
from api.limits import DEFAULT, LimitsConfig

GRACE_S = 3


@contextlib.asynccontextmanager
async def http_server(
    application: Application,
    port: int,
    host: str = LOOPBACK,
    tls: TlsConfig | None = None,
    own: TlsConfig | None = None,
    limits: LimitsConfig = DEFAULT,
) -> AsyncIterator[int]:
    """Serve an application; yields the port.  What is under way at the end gets three seconds.

    tls: nothing but TLS is spoken; own: without `tls`, TLS is spoken beside plain HTTP, by this certificate.
    """
    secure = own is not None and (tls is None or tls.cert is None)
    made = partial(
        Protocol,
        context=context(own) if own is not None and secure else None,
        limits=limits,
        idle=OrderedDict(),
        known={},
    )
    server = uvicorn.Server(
        uvicorn.Config(
            application,
            host=host,
            port=port,
            http=cast("Any", made),
            ws="none",
            log_level="error",
            lifespan="off",
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_keep_alive=round(limits.idle_s),
            timeout_graceful_shutdown=GRACE_S,
            **_certificates(tls or TlsConfig()),
        )
    )
    server.install_signal_handlers = lambda: None  # type: ignore[attr-defined,method-assign,unused-ignore]
    serving = asyncio.create_task(server._serve())
    try:
        # uvicorn tells nobody when it has started.
        while not server.started and not serving.done():  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        yield _port(server) or port
    finally:
        server.should_exit = True
        await serving


def _certificates(tls: TlsConfig) -> dict[str, Any]:
    if tls.cert is None:
        return {}
    shown: dict[str, Any] = {"ssl_certfile": str(tls.cert), "ssl_keyfile": str(tls.key)}
    if tls.client_ca is not None:
        # Whoever shows a certificate is known by it; people and browsers send a token.
        shown |= {"ssl_ca_certs": str(tls.client_ca), "ssl_cert_reqs": ssl.CERT_OPTIONAL}
    return shown


def _port(server: Any) -> int:
    sockets = [socket for each in getattr(server, "servers", ()) for socket in each.sockets]
    return int(sockets[0].getsockname()[1]) if sockets else 0
