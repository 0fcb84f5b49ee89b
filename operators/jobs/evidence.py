"""What is noted of a job while it lives, so that its end can be explained: environment, code, limits, curve, exit.

    with evidence.recorded(folder, root=code_root, job="train"):
        ...what runs the user's code...

Never changes how the work ends: what cannot be noted is left out.  `api.evidence.read` reads it back.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
import signal
import sysconfig
import threading
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from api import evidence as left
from operators.jobs import code_kept, traces, vitals

SECRET_NAMES = ("TOKEN", "SECRET", "PASSWORD", "PASSWD", "CREDENTIAL", "API_KEY", "ACCESS_KEY", "PRIVATE_KEY")
SHORTEST_SECRET = 6

read = left.read


def began(folder: Path, *, job: str = "", root: str = "", memory_mib: int = 0, timeout_s: float = 0) -> dict[str, Any]:
    """Note how a job began: when, with which code and packages, under which limits."""
    found = {
        "job": job,
        "at": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "environment": environment(folder.parent / left.ENVIRONMENTS),
        "code": _code(root, folder.parent / code_kept.FOLDER),
        "memory": vitals.memory_limit(memory_mib),
        "oom_kills": vitals.oom_kills(),
        "timeout_s": timeout_s,
    }
    _write(folder / left.BEGAN, found)
    return found


def _code(root: str, kept: Path) -> dict[str, Any]:
    try:
        return code_kept.keep(root, kept)
    except OSError as error:
        return {"root": root, "left_out": str(error)}


def environment(kept: Path) -> dict[str, str]:
    """Return Python, machine and a digest of the installed packages; their list is kept below `kept` by its digest."""
    packages = sorted(
        name.removesuffix(".dist-info")
        for place in {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
        for name in _names(place)
        if name.endswith(".dist-info")
    )
    digest = hashlib.sha256("\n".join(packages).encode()).hexdigest()
    path = kept / f"{digest}.json"
    if not path.exists():
        with contextlib.suppress(OSError):
            kept.mkdir(parents=True, exist_ok=True)
            _write(path, packages)
    return {
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}",
        "packages": f"sha256:{digest}",
    }


def _names(place: str) -> list[str]:
    try:
        return os.listdir(place)
    except OSError:
        return []


def ended(
    folder: Path,
    begin: Mapping[str, Any],
    *,
    code: int | None = None,
    number: int = 0,
    peak_mib: float = 0,
    **more: Any,
) -> None:
    """Note how a job ended.  code: its exit status; number: the signal that killed it; more: who stopped it and why."""
    found: dict[str, Any] = {"at": datetime.now(UTC).isoformat(timespec="milliseconds"), **more}
    if number:
        found["signal"] = signal_name(number)
    elif code is not None:
        found["code"] = code
    before, after = begin.get("oom_kills", {}), vitals.oom_kills()
    found["oom_kills"] = {name: after[name] - before.get(name, 0) for name in after}
    if peak_mib:
        found["peak_mib"] = round(peak_mib, 1)
    with contextlib.suppress(OSError):
        place = os.statvfs(folder)
        found["disk"] = {"path": str(folder), "free_mib": place.f_bavail * place.f_frsize // 2**20}
    _write(folder / left.ENDED, found)


def signal_name(number: int) -> str:
    """Return `SIGKILL` for 9."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


@contextlib.contextmanager
def recorded(folder: Path, *, root: str = "", job: str = "") -> Iterator[None]:
    """Note what happens inside the block, which runs in this process; an exception is noted and goes on.

    root: folder of the user's code.
    """
    with contextlib.suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
        for name in (left.BEGAN, left.CURVE, left.ENDED, left.EXCEPTION):
            (folder / name).unlink(missing_ok=True)
    begin = began(folder, job=job, root=root)
    curve, done = vitals.Curve(os.getpid(), folder / left.CURVE), threading.Event()
    looking = threading.Thread(target=_look, args=(curve, done), daemon=True, name="evidence")
    looking.start()
    try:
        yield
    except BaseException as error:
        _write(folder / left.EXCEPTION, masked(traces.described(error, root)))
        raise
    finally:
        done.set()
        looking.join(1.0)
        ended(folder, begin, peak_mib=curve.peak_mib)


def _look(curve: vitals.Curve, done: threading.Event) -> None:
    while not done.is_set():
        began_at = time.monotonic()
        curve.look()
        # At most one part in fifty of a CPU, however slow a look is.
        done.wait(max(curve.period_s, 50 * (time.monotonic() - began_at)))


def masked(value: Any) -> Any:
    """Return JSON in which no value of a variable that is called a secret is left."""
    secrets = [
        text
        for name, text in os.environ.items()
        if len(text) >= SHORTEST_SECRET and any(word in name.upper() for word in SECRET_NAMES)
    ]
    return _without(value, secrets) if secrets else value


def _without(value: Any, secrets: list[str]) -> Any:
    if isinstance(value, str):
        for secret in secrets:
            value = value.replace(secret, "***")
        return value
    if isinstance(value, dict):
        return {name: _without(item, secrets) for name, item in value.items()}
    return [_without(item, secrets) for item in value] if isinstance(value, list) else value


def _write(path: Path, content: Any) -> None:
    with contextlib.suppress(OSError):
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        temporary.write_text(json.dumps(content))
        os.replace(temporary, path)
