"""Processes that benchmarks start, stopped by session, and what they use of CPU and memory.  Measures no time."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from api.cli.platform import sessions

ROOT = Path(__file__).resolve().parents[2]
START_S = 180.0
GRACE_S = 10.0
LOOK_S = 0.1
LOG_LINES = 20


class DidNotStart(Exception):
    """A system of a benchmark that cannot be measured; the message ends with its log."""


@dataclass(frozen=True)
class Usage:
    """What processes have used: seconds of CPU since each began, and mebibytes in which shared pages count once."""

    cpu_s: float
    memory_mib: float


def free_ports(count: int) -> list[int]:
    """Return ports of this machine on which nobody listens now."""
    held = [socket.socket() for _ in range(count)]
    try:
        for one in held:
            one.bind(("127.0.0.1", 0))
        return [int(one.getsockname()[1]) for one in held]
    finally:
        for one in held:
            one.close()


@contextlib.contextmanager
def started(
    argv: Sequence[str], *, environ: Mapping[str, str], log: Path, cwd: Path = ROOT, core: int | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a program in a session of its own; all that the session holds is stopped at the end.

    core: the only one it and what it starts may use; None: all.
    """
    with log.open("ab") as out, on_core(core):
        process = subprocess.Popen(
            argv, env=dict(environ), cwd=cwd, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True
        )
    try:
        yield process
    finally:
        sessions.stop(sessions.members([process.pid]), grace_s=GRACE_S)
        process.wait()


@contextlib.contextmanager
def on_core(core: int | None) -> Iterator[None]:
    """Keep this thread, and what it starts, on one core; machines that lack it, or cannot, are left as they are."""
    before = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set()
    if core is None or core not in before or len(before) < 2:
        yield
        return
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@contextlib.contextmanager
def suspended(session: int) -> Iterator[None]:
    """Stand the processes of a session still: what one side does of its own accord is no part of the other's time."""
    found = sessions.members([session])
    for process in found:
        with contextlib.suppress(psutil.Error):
            process.suspend()
    try:
        yield
    finally:
        for process in found:
            with contextlib.suppress(psutil.Error):
                process.resume()


def wait_until(condition: Callable[[], bool], *, process: subprocess.Popen[bytes], log: Path) -> None:
    """Wait for a condition.  Raises DidNotStart when the process ends before, or after `START_S`."""
    deadline = time.monotonic() + START_S
    while not condition():
        if process.poll() is not None or time.monotonic() > deadline:
            raise DidNotStart("\n".join(log.read_text(errors="replace").splitlines()[-LOG_LINES:]))
        time.sleep(LOOK_S)


def usage(processes: Iterable[psutil.Process]) -> Usage:
    """Return what processes use, with what their ended children used; those that end meanwhile do not count."""
    cpu_s = memory = 0.0
    for process in processes:
        with contextlib.suppress(psutil.Error):
            times = process.cpu_times()
            full = process.memory_full_info()
            cpu_s += times.user + times.system + times.children_user + times.children_system
            memory += getattr(full, "pss", full.rss)
    return Usage(cpu_s, memory / 2**20)
