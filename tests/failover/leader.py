"""One process that leads when nobody else does, over a store that others share.  Says so on its standard output.

    python leader.py <home> <port of Airflow> <lease in seconds>

`ready` once it could lead, `leads <epoch> <monotonic seconds>` when it does: by the machine's clock, which all share.
"""

from __future__ import annotations

import logging
import sys
import time
from pathlib import Path

import uvloop

from api.admitters import ADMITTERS
from api.airflow import Airflow
from api.config import Config
from api.controllers import controllers_of, pipeline_run
from api.controllers.adoption import Adopter
from api.controllers.leadership import Leadership
from api.controllers.pipeline_run import PipelineRunController
from api.controllers.platform import Platform
from api.controllers.runtime import Manager, Term
from api.manifests import Manifests
from api.resources import Resources
from api.store.sqlite import SqliteStore
from tests.robustness.fakes.backend import FakeBackend

# Nobody reports what Airflow does: the looks at active runs stand for the listener.
LOOK_S = 0.5


async def lead(home: Path, airflow_port: int, ttl_s: float) -> None:
    """Lead in turn with others until the process dies."""
    config = Config(home=home, projects_root=home, airflow_port=airflow_port)
    store = SqliteStore(config.store_path)
    airflow, backend = Airflow(config.airflow_url), FakeBackend()

    def begin(leadership: Leadership) -> Term:
        print(f"leads {leadership.lease.epoch} {time.monotonic()}", flush=True)
        platform = Platform(
            config,
            leadership.resources,
            leadership.guard(airflow),
            leadership.guard(Manifests(config)),
            leadership.guard(backend),
            manager.wake,
        )
        runs = PipelineRunController(platform)
        return Term(controllers_of(platform, runs), (Adopter(platform, runs).resync,))

    manager = Manager(Resources(store, ADMITTERS), begin, ttl_s=ttl_s)
    print("ready", flush=True)
    await manager.run()


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(message)s")
    pipeline_run.ACTIVE_RESYNC_S = LOOK_S
    uvloop.run(lead(Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])))
