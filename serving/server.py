"""`python -m serving.server`: puts the inference server together and runs it until SIGTERM.  Decides nothing."""

from __future__ import annotations

import asyncio
import functools
import gc
import logging
import signal
import socket
import sys

import uvloop

from api.config import Config, load
from serving.admin import Admin
from serving.announce import announce
from serving.connections import Connections
from serving.deployments import Deployments
from serving.log import PredictionLog
from serving.metrics import Metrics
from serving.models import open_model
from serving.online_store import OnlineStore
from serving.predict import Predictor
from serving.protocol import Connection
from serving.routes import Routes

HOST = "127.0.0.1"
BACKLOG = 1024
GRACE_S = 10.0
BAD_CONFIGURATION = 78
SWITCH_S = 0.0001
"""How long the log's thread may keep the event loop waiting for the interpreter."""
COLLECT = (20_000, 50, 50)
"""A request leaves no cycles: collecting garbage less often shortens the slowest answers."""

log = logging.getLogger(__name__)


def faults(config: Config) -> list[str]:
    """Return what prevents a start."""
    found = []
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, config.serving_port))
        except OSError:
            found.append(f"port {config.serving_port} is taken: stop what listens there or set MA_SERVING_PORT")
    if not config.token:
        found.append("there is no token: set MA_TOKEN, or start with `ma up`, which makes one")
    try:
        config.home.mkdir(mode=0o700, parents=True, exist_ok=True)
        config.predictions_path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        found.append(f"MA_HOME {config.home} cannot be written: {error.strerror}")
    return found


async def serve(config: Config) -> None:
    """Serve until SIGTERM or SIGINT; then every request that has arrived is answered and logged."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for name in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(name, stop.set)
    store, metrics, connections = OnlineStore(config.features_path / "online.db"), Metrics(), Connections()
    predictions = PredictionLog(config.predictions_path)
    deployments = Deployments(functools.partial(open_model, store=store))
    admin = Admin(deployments, metrics, config.token)
    routes = Routes(deployments, Predictor(predictions, metrics), admin, metrics, predictions, store)
    predictions.start()
    server = await loop.create_server(
        lambda: Connection(routes, connections), HOST, config.serving_port, backlog=BACKLOG
    )
    reporting = asyncio.create_task(announce(config))
    log.info("serving http://%s:%s", HOST, config.serving_port)
    try:
        await stop.wait()
    finally:
        routes.ready = False
        reporting.cancel()
        server.close()
        await connections.drain(grace_s=GRACE_S)
        deployments.stop()
        predictions.close()
        store.close()
        log.info("stopped")


def main() -> int:
    """Run the server; returns the exit status."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    sys.setswitchinterval(SWITCH_S)
    gc.freeze()
    gc.set_threshold(*COLLECT)
    try:
        config = load()
        found = faults(config)
    except ValueError as error:
        found = [str(error)]
    if not found:
        uvloop.run(serve(config))
    for fault in found:
        print(f"serving.server: {fault}", file=sys.stderr)
    return BAD_CONFIGURATION if found else 0


if __name__ == "__main__":
    sys.exit(main())
