"""Which file systems cannot keep a SQLite store: those behind a network, whose locks and shared memory do not hold.

Source: sqlite.org/wal.html ("WAL does not work over a network filesystem"), statfs(2) for the numbers.
"""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

from api.errors import FailedPrecondition

NETWORKED = {
    0x6969: "NFS",
    0x517B: "SMB",
    0xFE534D42: "SMB2",
    0xFF534D42: "CIFS",
    0x65735546: "FUSE",
    0x01021997: "9P",
    0x00C36400: "Ceph",
    0x5346414F: "AFS",
    0x0BD00BD0: "Lustre",
    0x47504653: "GPFS",
}
# Larger than any system's `struct statfs`; the type is its first field.
STATFS_BYTES = 512


def type_of(folder: Path) -> int:
    """Return the number of a folder's file system, 0 where the system does not tell."""
    buffer = ctypes.create_string_buffer(STATFS_BYTES)
    try:
        failed = ctypes.CDLL(None, use_errno=True).statfs(os.fsencode(folder), buffer)
    except (AttributeError, OSError):
        return 0
    return 0 if failed else int(ctypes.cast(buffer, ctypes.POINTER(ctypes.c_uint32))[0])


def refuse_network(path: Path) -> None:
    """Raise FailedPrecondition when a file would stand on a network file system."""
    found = NETWORKED.get(type_of(path.parent))
    if found is not None:
        raise FailedPrecondition(
            f"{path.name} is on a network file system ({found}), where SQLite loses data: set MA_HOME to a local disk, "
            "or MA_STORE_URL to a PostgreSQL database",
            reason="STORE_ON_NETWORK",
        )
