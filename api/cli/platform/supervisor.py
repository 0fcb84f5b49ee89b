"""Starts components, watches them, restarts what crashes with back-off, stops all.  Reads no configuration.

One asyncio task a component.  One that ends with status 78 has a fault that no restart mends: everything stops.
"""

from __future__ import annotations

import asyncio
import time
from asyncio.subprocess import Process
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil

from api.cli.exits import CONFIGURATION, Failure
from api.cli.platform import record, sessions
from api.cli.platform.components import Component
from api.cli.platform.database import tail
from api.cli.platform.record import ComponentRecord, Record
from api.cli.platform.sessions import ProcessRef

FIRST_BACKOFF_S = 0.5
LONGEST_BACKOFF_S = 30.0
STABLE_S = 60.0
LOOPING_CRASHES = 3
LOG_LINES = 5
STARTING_LOOK_S = 0.25
STEADY_LOOK_S = 10.0
UNHEALTHY_LOOKS = 6
GRACE_S = 8.0

Say = Callable[[str], None]


class Supervisor:
    """The processes of one platform.  `run_folder`: where the record goes; `say`: takes lines for people."""

    def __init__(
        self, *, home: Path, run_folder: Path, logs: Path, environ: Mapping[str, str], owner: str, say: Say
    ) -> None:
        self._home = home
        self._run_folder = run_folder
        self._logs = logs
        self._environ = {**environ, sessions.MARK: str(home)}
        self._say = say
        self._record = Record(owner, "starting", ProcessRef.of(psutil.Process().pid))
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._processes: dict[str, Process] = {}
        self._ready: dict[str, asyncio.Event] = {}
        self._begun = time.monotonic()

    @property
    def environ(self) -> Mapping[str, str]:
        """The environment of which each component gets its part, with the mark by which they are found again."""
        return self._environ

    def start(self, components: Iterable[Component]) -> None:
        """Begin to keep components running."""
        for component in components:
            self._ready[component.name] = asyncio.Event()
            self._note(component.name, state="starting")
            self._tasks[component.name] = asyncio.create_task(self._keep(component), name=component.name)

    async def until_ready(self, timeout_s: float) -> None:
        """Return when all components were healthy once.  Raises Failure naming those that were not in time."""
        await self._race(asyncio.create_task(self._all_ready()), timeout_s)
        missing = [name for name, event in self._ready.items() if not event.is_set()]
        if missing:
            lines = [line for name in missing for line in (f"the end of {self._log(name)}:", *self._tail(name))]
            raise Failure(f"not healthy after {timeout_s:.0f} s: {', '.join(missing)}", *lines)
        self._phase("ready")

    async def _all_ready(self) -> None:
        for event in self._ready.values():
            await event.wait()

    async def until(self, stop: asyncio.Event) -> None:
        """Keep everything running until `stop`.  Raises Failure when a component can never run."""
        await self._race(asyncio.create_task(stop.wait()), None)

    async def close(self) -> None:
        """Stop everything that was started, and what that started."""
        self._phase("stopping")
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)
        await asyncio.to_thread(sessions.stop_all, self._home, self._record.refs, grace_s=GRACE_S)
        await asyncio.gather(*(process.wait() for process in self._processes.values()))
        (self._run_folder / "platform.json").unlink(missing_ok=True)

    async def _race(self, wait: asyncio.Future[Any], timeout_s: float | None) -> None:
        """Wait, but not longer than a component lives that gives up."""
        done, _ = await asyncio.wait(
            {wait, *self._tasks.values()}, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED
        )
        wait.cancel()
        for task in self._tasks.values():
            if task in done:
                task.result()

    async def _keep(self, component: Component) -> None:
        crashes, backoff_s = 0, FIRST_BACKOFF_S
        while True:
            begun = time.monotonic()
            process = await self._launch(component)
            watch = asyncio.create_task(self._watch(component))
            try:
                status = await process.wait()
            finally:
                watch.cancel()
            lived_s = time.monotonic() - begun
            if status == CONFIGURATION:
                raise Failure(f"{component.name} cannot start:", *self._tail(component.name), code=CONFIGURATION)
            if lived_s > STABLE_S:
                crashes, backoff_s = 0, FIRST_BACKOFF_S
            crashes += 1
            await self._clear(component)
            self._tell_crash(component, status, lived_s, crashes, backoff_s)
            await asyncio.sleep(backoff_s)
            backoff_s = min(backoff_s * 2, LONGEST_BACKOFF_S)

    async def _launch(self, component: Component) -> Process:
        with self._log(component.name).open("ab") as log:
            process = await asyncio.create_subprocess_exec(
                *component.argv,
                env=component.part(self._environ),
                cwd=self._home,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._processes[component.name] = process
        try:
            started = ProcessRef.of(process.pid).started
        except psutil.NoSuchProcess:
            started = time.time()
        self._note(component.name, state="starting", pid=process.pid, started=started)
        return process

    async def _watch(self, component: Component) -> None:
        """Follow the probe; a component that was healthy and stops answering for long is ended, so that it restarts."""
        started, failed = self._record.components[component.name].started, 0
        while True:
            healthy = await asyncio.to_thread(component.probe, started)
            state = self._record.components[component.name].state
            if healthy:
                failed = 0
                if state != "ready":
                    self._tell_ready(component)
            elif state != "starting":
                failed += 1
                self._note(component.name, state="unhealthy")
                if failed >= UNHEALTHY_LOOKS:
                    self._say(f"{component.name} does not answer any more: ending it")
                    self._processes[component.name].kill()
                    return
            await asyncio.sleep(STARTING_LOOK_S if state == "starting" else STEADY_LOOK_S)

    async def _clear(self, component: Component) -> None:
        """End what a crashed component left behind in its session: it would hold ports and tasks."""
        left = await asyncio.to_thread(sessions.members, [self._record.components[component.name].pid])
        await asyncio.to_thread(sessions.stop, left, grace_s=2.0)

    def _tell_ready(self, component: Component) -> None:
        known = self._record.components[component.name]
        self._note(component.name, state="ready")
        if not self._ready[component.name].is_set():
            self._ready[component.name].set()
            self._say(f"{component.name} is ready after {time.monotonic() - self._begun:.1f} s")
        elif known.state == "starting":
            self._say(f"{component.name} is ready again")

    def _tell_crash(self, component: Component, status: int, lived_s: float, crashes: int, backoff_s: float) -> None:
        how = f"was ended by signal {-status}" if status < 0 else f"ended with status {status}"
        self._say(f"{component.name} {how} after {lived_s:.1f} s; starting it again in {backoff_s:g} s")
        if crashes % LOOPING_CRASHES == 0:
            self._say(f"{component.name} crashes again and again; the end of {self._log(component.name)}:")
            for line in self._tail(component.name):
                self._say(f"  {line}")
        restarts = self._record.components[component.name].restarts + 1
        self._note(component.name, state="restarting", restarts=restarts)

    def _note(self, name: str, **changed: object) -> None:
        known = self._record.components.get(name) or ComponentRecord(name)
        if known.state == changed.get("state") and not changed.keys() - {"state"} and known.since:
            return
        fresh = replace(known, since=time.time(), **changed)  # type: ignore[arg-type]
        self._record = replace(self._record, components={**self._record.components, name: fresh})
        record.write(self._run_folder, self._record)

    def _phase(self, phase: str) -> None:
        self._record = replace(self._record, phase=phase)
        record.write(self._run_folder, self._record)

    def _log(self, name: str) -> Path:
        return self._logs / f"{name}.log"

    def _tail(self, name: str) -> list[str]:
        return tail(self._log(name), LOG_LINES)
