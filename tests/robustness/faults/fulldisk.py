"""A volume of a few mebibytes that can be filled: a tmpfs in a mount namespace of its own.

Root may make one; anybody else may as the root of a namespace of users, where the machine allows these.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

PIECE = 4096
WAYS: Sequence[Sequence[str]] = (
    ("unshare", "--mount"),
    ("unshare", "--user", "--map-root-user", "--mount"),
)


def namespace() -> Sequence[str] | None:
    """Return the command before a program that lets it mount what nobody else sees, None if this user may not."""
    if shutil.which("unshare") is None:
        return None
    for way in WAYS:
        tried = subprocess.run([*way, "mount", "-t", "tmpfs", "none", "/mnt"], capture_output=True, check=False)
        if not tried.returncode:
            return way
    return None


def mount(folder: Path, kibibytes: int) -> None:
    """Mount a tmpfs of that size at `folder`, until the program ends; within such a namespace alone."""
    folder.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={kibibytes}k", "none", str(folder)], check=True)


class Filler:
    """A file that takes what is left of a volume."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "filler"

    def fill(self, leave: int = 0) -> None:
        """Take everything but `leave` bytes."""
        with self._path.open("wb", buffering=0) as file, contextlib.suppress(OSError):
            free = os.statvfs(self._path.parent)
            size = max(0, free.f_bavail * free.f_frsize - leave)
            os.posix_fallocate(file.fileno(), 0, size - size % PIECE) if size >= PIECE else None

    def free(self) -> None:
        """Give it back."""
        self._path.unlink(missing_ok=True)
