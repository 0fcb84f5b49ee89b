"""A volume of a few mebibytes that can be filled: a tmpfs, which only root may mount."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

PIECE = 4096


def mountable() -> bool:
    """Whether this user may mount a tmpfs."""
    return (
        os.geteuid() == 0
        and not subprocess.run(
            ["unshare", "--mount", "mount", "-t", "tmpfs", "none", "/mnt"], capture_output=True, check=False
        ).returncode
    )


@contextlib.contextmanager
def small_volume(folder: Path, kibibytes: int) -> Iterator[Path]:
    """Mount a tmpfs of that size at `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={kibibytes}k", "none", str(folder)], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


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
