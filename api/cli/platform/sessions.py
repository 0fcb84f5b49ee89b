"""Processes that belong to a platform: found by session and by mark, stopped completely.  Never touches a stranger's.

A component leads a session of its own, so whatever it forks is found by session id.  The jobs it starts lead further
sessions, but inherit the mark `MA_SUPERVISED=<home>` in their environment, which a new program cannot lose by itself.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import psutil

MARK = "MA_SUPERVISED"
CLOCK_TOLERANCE_S = 1.0
LOOK_S = 0.05


@dataclass(frozen=True)
class ProcessRef:
    """One process for as long as it lives.  `started`: seconds since the epoch; a reused pid has another."""

    pid: int
    started: float

    @classmethod
    def of(cls, pid: int) -> ProcessRef:
        """Return the reference of a running process.  Raises psutil.NoSuchProcess."""
        return cls(pid, psutil.Process(pid).create_time())

    def alive(self) -> bool:
        """Whether this very process runs still; a zombie does not."""
        try:
            process = psutil.Process(self.pid)
            same = abs(process.create_time() - self.started) < CLOCK_TOLERANCE_S
            return same and process.status() != psutil.STATUS_ZOMBIE
        except psutil.Error:
            return False


def members(sessions: Iterable[int]) -> list[psutil.Process]:
    """Return the processes of some sessions, the leaders among them."""
    wanted = set(sessions)
    return [process for process in psutil.process_iter() if _session(process.pid) in wanted and _lives(process)]


def marked(home: Path) -> list[psutil.Process]:
    """Return this user's processes that carry the mark of the platform at `home`."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(MARK) == str(home) and _lives(process):
                found.append(process)
        except (psutil.Error, OSError):
            continue
    return found


def belonging(home: Path, recorded: Iterable[ProcessRef]) -> list[psutil.Process]:
    """Return every process of the platform at `home`: marked ones, their sessions, and the recorded sessions.

    A recorded pid that another program has since got is left alone.
    """
    marks = marked(home)
    sessions = {ref.pid for ref in recorded if ref.alive() or not psutil.pid_exists(ref.pid)}
    sessions |= {session for process in marks if (session := _session(process.pid))}
    sessions.discard(os.getsid(0))
    found = {process.pid: process for process in [*marks, *members(sessions)]}
    found.pop(os.getpid(), None)
    return list(found.values())


def stop(processes: Iterable[psutil.Process], *, grace_s: float) -> int:
    """Ask processes to end, then make them.  Returns how many had to be killed; none is left.

    A session's leader is asked before its members: one that sees its children die instead may wait for them in vain.
    """
    left = {process.pid: process for process in processes if _lives(process)}
    asked: set[int] = set()
    deadline = time.monotonic() + grace_s
    while left and time.monotonic() < deadline:
        due = [pid for pid in left if pid not in asked and (_session(pid) == pid or _session(pid) not in left)]
        _signal((left[pid] for pid in due), signal.SIGTERM)
        asked.update(due)
        time.sleep(LOOK_S)
        left = {pid: process for pid, process in left.items() if _lives(process)}
    for process in _signal(left.values(), signal.SIGKILL):
        while _lives(process):
            time.sleep(LOOK_S)
    return len(left)


def stop_all(home: Path, recorded: Iterable[ProcessRef], *, grace_s: float) -> int:
    """Stop every process of a platform, also those that it started meanwhile.  Returns how many there were."""
    refs = list(recorded)
    total = 0
    while found := belonging(home, refs):
        total += len(found)
        stop(found, grace_s=grace_s)
        grace_s = min(grace_s, 1.0)
    return total


def memory_bytes(session: int) -> int:
    """Return the proportional set size of a session; shared pages count once.  RSS where there is no PSS."""
    total = 0
    for process in members([session]):
        try:
            full = process.memory_full_info()
            total += getattr(full, "pss", full.rss)
        except psutil.Error:
            continue
    return total


def _session(pid: int) -> int:
    try:
        return os.getsid(pid)
    except OSError:
        return 0


def _lives(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def _signal(processes: Iterable[psutil.Process], number: signal.Signals) -> list[psutil.Process]:
    """Send a signal to those that live and return them."""
    sent = []
    for process in processes:
        try:
            process.send_signal(number)
            sent.append(process)
        except psutil.Error:
            continue
    return sent
