"""What a running platform writes down about itself in `$MA_HOME/run`, and the lock that says it runs.

The lock is the truth (the kernel frees it with the process); the record is what people and the next start read.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from api.cli.platform.sessions import ProcessRef


@dataclass(frozen=True)
class ComponentRecord:
    """One component.  `state`: starting, ready, unhealthy or restarting, `since` then (epoch seconds)."""

    name: str
    state: str = "starting"
    pid: int = 0
    started: float = 0.0
    restarts: int = 0
    since: float = 0.0

    @property
    def ref(self) -> ProcessRef:
        """Its process."""
        return ProcessRef(self.pid, self.started)


@dataclass(frozen=True)
class Record:
    """A platform.  `owner`: `up` or `demo`, which command started it; `phase`: starting, ready, stopping."""

    owner: str
    phase: str
    supervisor: ProcessRef
    components: Mapping[str, ComponentRecord] = field(default_factory=dict)

    @property
    def refs(self) -> list[ProcessRef]:
        """The processes of its components."""
        return [component.ref for component in self.components.values() if component.pid]


def read_live(folder: Path) -> Record | None:
    """Return the record if the supervisor that wrote it lives: after a kill an old one stands until the next start."""
    known = read(folder)
    return known if known is not None and known.supervisor.alive() else None


def write(folder: Path, record: Record) -> None:
    """Replace the record."""
    path = folder / "platform.json"
    fresh = path.with_suffix(".tmp")
    fresh.write_text(json.dumps(asdict(record), indent=1))
    os.replace(fresh, path)


def read(folder: Path) -> Record | None:
    """Return the last record, None if there is none that can be read."""
    try:
        found = json.loads((folder / "platform.json").read_text())
        return Record(
            owner=found["owner"],
            phase=found["phase"],
            supervisor=ProcessRef(**found["supervisor"]),
            components={name: ComponentRecord(**item) for name, item in found["components"].items()},
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None


def running(folder: Path) -> bool:
    """Whether a supervisor holds the lock."""
    try:
        handle = os.open(folder / "lock", os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(handle)
    return False


@contextlib.contextmanager
def lock(folder: Path) -> Iterator[None]:
    """Hold the platform's lock.  Raises BlockingIOError if another process does."""
    handle = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.ftruncate(handle, 0)
        os.write(handle, f"{os.getpid()}\n".encode())
        yield
    finally:
        os.close(handle)
