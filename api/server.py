"""The API server's composition root: configuration, store, resources, services, controllers.  Run by `ma up`.

python -m api.server
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import math
import signal
import socket
import sys
import tempfile
from collections.abc import AsyncIterator
from dataclasses import replace
from functools import partial

import grpc
import uvloop
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from api import audit_anchor, controllers
from api.auth.base import Anyone
from api.auth.entrance import Entrance
from api.auth.setup import access_of, is_loopback, with_own_token
from api.auth.setup import faults as access_faults
from api.auth.tls import server_credentials
from api.blobs import opened
from api.call_log import CALLS
from api.calls import Access, Everybody
from api.config import LOOPBACK, Config, ConfigurationError, TlsConfig, bracketed, load
from api.errors import ApiError
from api.events import Limits
from api.hooks import installed
from api.http import app, certificate
from api.http.gateway import Gateway
from api.http.guard import LOOPBACK as LOOPBACK_NAMES
from api.http.port import http_server
from api.hub import Hub
from api.kinds import kinds
from api.limits import DEFAULT, LimitsConfig, connections_of
from api.operations import Operations
from api.platform import Platform
from api.resources import Resources
from api.services import reflection
from api.services.access import NAME as ACCESS
from api.services.access import AccessService
from api.services.broker import NAME as BROKER
from api.services.broker import BrokerService
from api.services.code import NAME as CODE
from api.services.code import CodeService
from api.services.platform import NAME as PLATFORM
from api.services.platform import PlatformService
from api.services.resources import ResourceService
from api.store.open import open_store
from api.unhurried import unhurried
from api.uploads import Uploads

# What is larger than a request may be is still read, and refused with its reason; beyond this gRPC refuses it unread.
LARGEST_MESSAGE_BYTES = 16 * 1024 * 1024
# A token with many groups is larger than gRPC's 8 KiB.
LARGEST_METADATA_BYTES = 64 * 1024
# Clients keep a connection between calls; only one that is not used for long is closed.
SHORTEST_IDLE_S = 300.0
ALIVE_S = 60.0
ALIVE_ANSWER_S = 20.0
PING_S = 10.0
MOST_PINGS = 2
BAD_CONFIGURATION = 78
GRACE_S = 3.0
# Servers that share the gRPC port, and so many connections at least behind each.
DOORS = 16
LEAST_BEHIND_A_DOOR = 50
# Nobody is served while Python looks for cycles: a look at all objects takes a quarter of a second when ten thousand
# connections are open, one at the hundred thousands that were made in a second of a flood as long.  Many small looks.
COLLECT_AFTER = (1_000, 10, 1_000)


log = logging.getLogger("api.server")


def faults(config: Config) -> list[str]:
    """Return what keeps the server from starting: every fault, with the variable that changes it."""
    found = []
    if config.api_port == config.api_http_port:
        found.append(f"MA_API_PORT and MA_API_HTTP_PORT are both {config.api_port}: give each its own")
    if not _can_listen(config.api_host, 0):
        found.append(f"MA_API_HOST {config.api_host[:64]!r} is no address of this machine")
    else:
        for name, port in {"MA_API_PORT": config.api_port, "MA_API_HTTP_PORT": config.api_http_port}.items():
            if not _can_listen(config.api_host, port):
                found.append(f"port {port} is taken: stop what listens there or set {name}")
    found += access_faults(config)
    if config.audit_anchor is not None and (told := audit_anchor.fault(config.audit_anchor)) is not None:
        found.append(told)
    try:
        opened(config.blobs_url)
        installed()
    except ValueError as error:
        found.append(str(error))
    try:
        config.home.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=config.home):
            pass
    except OSError as error:
        found.append(f"MA_HOME {config.home} cannot be written: {error.strerror}")
    return found


def _can_listen(host: str, port: int) -> bool:
    try:
        for family, kind, protocol, _, address in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
            with socket.socket(family, kind, protocol) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(address)
    except (OSError, UnicodeError):
        return False
    return True


def limited(limits: LimitsConfig) -> list[tuple[str, int]]:
    """Return what gRPC is told of connections."""
    return [
        ("grpc.max_concurrent_streams", limits.streams),
        ("grpc.max_allowed_incoming_connections", limits.connections),
        # A connection that says nothing is none.
        ("grpc.server_handshake_timeout_ms", round(1000 * limits.header_s)),
        ("grpc.max_connection_idle_ms", round(1000 * max(limits.idle_s, SHORTEST_IDLE_S))),
        # Whoever is gone without a word is noticed.
        ("grpc.keepalive_time_ms", round(1000 * ALIVE_S)),
        ("grpc.keepalive_timeout_ms", round(1000 * ALIVE_ANSWER_S)),
        # Pings without calls are answered if they are not many; else GOAWAY too_many_pings.
        ("grpc.http2.max_ping_strikes", MOST_PINGS),
        ("grpc.http2.min_ping_interval_without_data_ms", round(1000 * PING_S)),
    ]


def doors(limits: LimitsConfig) -> list[list[tuple[str, int]]]:
    """Return the options of each gRPC server that listens on the one port; the kernel spreads connections over them.

    Python's gRPC server takes one call in each round of the loop, from all its connections as they came: five hundred
    calls at once are five hundred rounds in which nobody else's is seen, and no gate helps who does not reach it.
    Elsewhere than on Linux, connections are not spread.
    """
    count = min(DOORS, max(1, limits.connections // LEAST_BEHIND_A_DOOR)) if sys.platform == "linux" else 1
    options = [
        ("grpc.max_receive_message_length", LARGEST_MESSAGE_BYTES),
        ("grpc.max_metadata_size", LARGEST_METADATA_BYTES),
        ("grpc.absolute_max_metadata_size", LARGEST_METADATA_BYTES),
        ("grpc.so_reuseport", int(count > 1)),
        *limited(replace(limits, connections=math.ceil(limits.connections / count))),
    ]
    return [options] * count


@contextlib.asynccontextmanager
async def grpc_server(
    resources: Resources,
    port: int,
    platform: Platform | None = None,
    *,
    access: Access | None = None,
    entrance: Entrance | None = None,
    host: str = LOOPBACK,
    tls: TlsConfig | None = None,
    limits: LimitsConfig = DEFAULT,
    uploads: Uploads | None = None,
) -> AsyncIterator[int]:
    """Serve every kind, what concerns all kinds, reflection and health; yields the port.

    uploads: takes code in, where there is a place for it.  Without access and entrance everybody may do everything, as
    the same user.
    """
    access = access or Everybody()
    entrance = entrance or Entrance(Anyone(), access, resources.record)
    platform = platform or Platform(resources, Hub(resources), access)
    served = Operations(resources, access)
    handlers: list[grpc.GenericRpcHandler] = [
        ResourceService(served, entrance),
        PlatformService(platform, entrance),
        AccessService(access, entrance),
        BrokerService(platform.publisher, entrance),
    ]
    services = [*(kind.service.full_name for kind in kinds().values()), PLATFORM, ACCESS, BROKER]
    if uploads is not None:
        handlers.append(CodeService(uploads, entrance))
        services.append(CODE)
    checker = health.aio.HealthServicer()
    for service in ("", *services):
        await checker.set(service, health_pb2.HealthCheckResponse.SERVING)
    credentials = server_credentials(tls or TlsConfig())
    servers = []
    for options in doors(limits):
        server = grpc.aio.server(options=options)
        server.add_generic_rpc_handlers(tuple(handlers))
        health_pb2_grpc.add_HealthServicer_to_server(checker, server)
        reflection.add(server, [*services, health.SERVICE_NAME])
        address = f"{bracketed(host)}:{port}"
        add = (
            server.add_insecure_port
            if credentials is None
            else partial(server.add_secure_port, server_credentials=credentials)
        )
        port = add(address)
        servers.append(server)
    await asyncio.gather(*(server.start() for server in servers))
    try:
        yield port
    finally:
        # Watches last until they are ended; what else is under way may finish.
        await platform.close()
        await asyncio.gather(*(server.stop(GRACE_S) for server in servers))
        await served.settled(GRACE_S)


async def serve(config: Config) -> None:
    """Serve until SIGTERM or SIGINT."""
    stop = asyncio.Event()
    for name in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(name, stop.set)
    limits = replace(config.limits, connections=connections_of(config.limits))
    store = await open_store(config.store_address)
    plane = controllers.ControlPlane(store, config)

    async def ready() -> bool:
        await store.revision()
        return plane.running

    try:
        async with access_of(config, plane.resources) as (access, entrance):
            hub = Hub(plane.resources, Limits(watches=limits.watches_per_caller, watches_in_all=limits.watches))
            platform = Platform(plane.resources, hub, access, plane.templates.schemas)
            names = {*LOOPBACK_NAMES, bracketed(config.api_host)} if is_loopback(config.api_host) else None
            gateway = Gateway(Operations(plane.resources, access), platform, entrance, names)
            async with (
                grpc_server(
                    plane.resources,
                    config.api_port,
                    platform,
                    access=access,
                    entrance=entrance,
                    host=config.api_host,
                    tls=config.tls,
                    limits=limits,
                    uploads=Uploads(plane.resources, plane.blobs, config.artifacts_url, access),
                ),
                http_server(
                    app.build(ready, plane.routes(), gateway),
                    config.api_http_port,
                    config.api_host,
                    config.tls,
                    None if config.tls.cert else certificate.own(config.run_path),
                    limits,
                ),
                plane,
                unhurried(),
            ):
                log.info("serving %s, at most %d connections a port", config.api_address, limits.connections)
                await stop.wait()
                # Watches over HTTP last until they are ended too.
                await platform.close()
    finally:
        await store.close()
        CALLS.write()


def main() -> int:
    """Run the server; returns the exit status."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    try:
        config = load()
        found = faults(config)
    except ConfigurationError as error:
        found = list(error.faults)
    if not found:
        gc.set_threshold(*COLLECT_AFTER)
        try:
            uvloop.run(serve(with_own_token(config)))
        except ApiError as error:
            found = [error.message]
    for fault in found:
        print(f"api.server: {fault}", file=sys.stderr)
    return BAD_CONFIGURATION if found else 0


if __name__ == "__main__":
    sys.exit(main())
