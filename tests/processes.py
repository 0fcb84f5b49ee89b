"""Looks at processes that may end at any moment, also between two looks: what is gone is an answer, not an error."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping

import psutil


def lives(process: psutil.Process | int) -> bool:
    """Whether a process runs.  A zombie, which waits for its parent to notice, does not."""
    try:
        found = psutil.Process(process) if isinstance(process, int) else process
        return bool(found.is_running() and found.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def command(process: psutil.Process) -> str:
    """Return the command line of a process; nothing of one that has ended or is another user's."""
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def environs(pid: int) -> Iterator[Mapping[str, str]]:
    """Yield the environments of a process and of all that it started, as far as they go on living.

    Of one that gave itself a title, nothing is to be read.
    """
    for process in family(pid):
        with contextlib.suppress(psutil.NoSuchProcess):
            yield process.environ()


def listening(pid: int) -> Iterator[tuple[str, int]]:
    """Yield the addresses and ports at which a process, or one that it started, listens."""
    for process in family(pid):
        with contextlib.suppress(psutil.NoSuchProcess):
            for connection in process.net_connections("inet"):
                if connection.status == psutil.CONN_LISTEN:
                    yield connection.laddr.ip, connection.laddr.port


def family(pid: int) -> list[psutil.Process]:
    """Return a process and all that it started."""
    first = psutil.Process(pid)
    return [first, *first.children(recursive=True)]
