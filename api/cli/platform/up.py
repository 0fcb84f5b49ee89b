"""From a configuration to a running platform and back: what `ma up` and `ma down` do.  Prints through `say` only."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from api.cli import airflow_env, keys
from api.cli.exits import CONFIGURATION, Failure
from api.cli.platform import components, database, preflight, record, sessions, task_pods
from api.cli.platform.supervisor import GRACE_S, Supervisor
from api.config import Config

START_TIMEOUT_S = 300.0
STOP_TIMEOUT_S = 60.0
LOOK_S = 0.1
COMMAND = (sys.executable, "-m", "api.cli.main")

Say = Callable[[str], None]


def up(config: Config, *, owner: str, say: Say) -> None:
    """Run the platform until SIGINT or SIGTERM.  Raises Failure, having changed nothing, if it cannot start."""
    refuse_second(config)
    _refuse(preflight.home_faults(config))
    preflight.prepare(config)
    with _locked(config):
        sweep(config, say)
        _refuse(preflight.faults(config))
        asyncio.run(_run(config, owner, say))
    say("stopped; nothing is left running")


def _refuse(faults: Iterable[str]) -> None:
    if found := [f"  {fault}" for fault in faults]:
        raise Failure("the platform cannot start:", *found, code=CONFIGURATION)


@contextlib.contextmanager
def _locked(config: Config) -> Iterator[None]:
    """Hold the lock; whoever only looks at it holds it for an instant."""
    with contextlib.ExitStack() as stack:
        for _ in range(10):
            with contextlib.suppress(BlockingIOError):
                stack.enter_context(record.lock(config.run_path))
                break
            time.sleep(LOOK_S)
        else:
            refuse_second(config)
        yield


def refuse_second(config: Config) -> None:
    """Raise Failure if a platform runs on this home already."""
    if record.running(config.run_path):
        known = record.read(config.run_path)
        pid = f" (process {known.supervisor.pid})" if known else ""
        raise Failure(
            f"the platform of {config.home} runs already{pid}; nothing was changed.  `ma status` shows it, "
            "`ma down` stops it, another MA_HOME and other ports make a second one",
            code=CONFIGURATION,
        )


def sweep(config: Config, say: Say) -> int:
    """Stop processes that a killed supervisor left.  Returns how many there were."""
    known = record.read(config.run_path)
    count = sessions.stop_all(config.home, known.refs if known else (), grace_s=GRACE_S)
    if count:
        say(f"stopped {count} processes that an earlier platform had left")
    (config.run_path / "platform.json").unlink(missing_ok=True)
    return count


async def _run(config: Config, owner: str, say: Say) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    environ = airflow_env.environment(config, keys.ensure(config))
    try:
        task_pods.prepare(config, environ)
    except ValueError as error:
        _refuse([str(error)])
    supervisor = Supervisor(
        home=config.home, run_folder=config.run_path, logs=config.logs_path, environ=environ, owner=owner, say=say
    )
    start = asyncio.create_task(_start(config, supervisor, say))
    stopping = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait({start, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if not stop.is_set():
            await start
            for line in addresses(config):
                say(line)
            await supervisor.until(stop)
        say("stopping")
    finally:
        start.cancel()
        await asyncio.gather(start, return_exceptions=True)
        await supervisor.close()


async def _start(config: Config, supervisor: Supervisor, say: Say) -> None:
    begun = time.monotonic()
    wanted = components.all_of(config)
    supervisor.start(component for component in wanted if not component.needs_database)
    if database.needs_migration(config):
        await database.migrate(config, airflow_env.of_airflow(supervisor.environ))
        say(f"Airflow's database is migrated after {time.monotonic() - begun:.1f} s")
    supervisor.start(component for component in wanted if component.needs_database)
    await supervisor.until_ready(START_TIMEOUT_S)
    say(f"the platform is up after {time.monotonic() - begun:.1f} s")


def addresses(config: Config) -> list[str]:
    """Return the lines that say where everything is."""
    return [
        f"  Airflow      {config.airflow_url}",
        f"  API (gRPC)   {config.api_address}",
        f"  API (HTTP)   {config.api_http_url}",
        f"  predictions  {config.serving_url}",
        f"  logs         {config.logs_path}",
    ]


def up_detached(config: Config, *, owner: str, say: Say) -> subprocess.Popen[bytes]:
    """Start a supervisor in the background; return its process when the platform is ready.  Raises Failure."""
    refuse_second(config)
    _refuse(preflight.home_faults(config))
    preflight.prepare(config)
    log = config.logs_path / "supervisor.log"
    with log.open("wb") as output:
        process = subprocess.Popen(  # noqa: S603
            (*COMMAND, "up", "--owner", owner),
            env={**os.environ, **config.environ()},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        _follow_start(config, process, log, say)
    except BaseException:
        process.terminate()
        process.wait()
        raise
    return process


def _follow_start(config: Config, process: subprocess.Popen[bytes], log: Path, say: Say) -> None:
    """Repeat what the supervisor says until it is ready.  Raises Failure with its last words if it ends before."""
    shown = 0
    while process.poll() is None:
        known = record.read(config.run_path)
        lines = log.read_text(errors="replace").splitlines()
        for line in lines[shown:]:
            say(line)
        shown = len(lines)
        if known is not None and known.phase == "ready" and known.supervisor.pid == process.pid:
            return
        time.sleep(LOOK_S)
    last = log.read_text(errors="replace").splitlines()[shown:]
    raise Failure(*(line.removeprefix("ma: ") for line in last), code=process.returncode or 1)


def down(config: Config, *, say: Say) -> bool:
    """Stop the platform and what an earlier one left.  Returns whether there was anything to stop."""
    found = False
    known = record.read(config.run_path)
    if known is not None and known.supervisor.alive() and record.running(config.run_path):
        found = True
        os.kill(known.supervisor.pid, signal.SIGTERM)
        deadline = time.monotonic() + STOP_TIMEOUT_S
        while known.supervisor.alive() and record.running(config.run_path):
            if time.monotonic() > deadline:
                say("the supervisor does not end by itself: killing it")
                os.kill(known.supervisor.pid, signal.SIGKILL)
            time.sleep(LOOK_S)
    return bool(sweep(config, say)) or found
