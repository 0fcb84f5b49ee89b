"""Faults of system calls, injected by strace into the calls on the store's files alone."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

# A failed sync, a full disk, and death in the middle of a write.
FAULTS = ("fdatasync:error=EIO", "pwrite64:error=ENOSPC", "pwrite64:signal=SIGKILL", "fdatasync:signal=SIGKILL")


def available() -> bool:
    """Whether strace is installed."""
    return shutil.which("strace") is not None


def command(fault: str, when: int, paths: Sequence[Path], program: Sequence[str]) -> list[str]:
    """Return the command that runs `program` with a fault at the `when`-th such call on one of `paths`."""
    watched = [part for path in paths for part in ("-P", str(path))]
    called = fault.partition(":")[0]
    return [
        "strace",
        "-f",
        "-qq",
        "-o",
        "/dev/null",
        "-e",
        f"trace={called}",
        *watched,
        "-e",
        f"inject={fault}:when={when}",
        *program,
    ]
