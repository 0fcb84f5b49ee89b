"""Builds the environment of a step, once for each content, and finds it again.  Runs no step.

An environment is a virtual environment on top of the platform's own packages: what it pins comes first.  It lies below
`$MA_HOME/environments` under the digest of its requirements, of Python and of the platform's packages.  `ready.json` is
written last: a folder without it is what a build left that ended half-way, and is built anew.
"""

from __future__ import annotations

import contextlib
import fcntl
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from api import environments
from operators.errors import NotProvided

READY = "ready.json"
NAMED = "named"
REQUIREMENTS = "requirements.txt"
PLATFORM_PTH = "michelangelo_platform.pth"
BUILD_S = 1800.0
CHECK = "import operators.jobs.run, operators.jobs.python_task, operators.values.tables"
MOST_TOLD = 300


def python_of(environment: Mapping[str, Any], root: Path) -> Path:
    """Return the Python of an environment below `root`, built if it is not there.

    Waits for whoever builds the same.  Prints what pip prints.  Raises NotProvided.
    """
    if "named" in environment:
        return _named(environment["named"], root / NAMED)
    place = root / environments.digest(environment, *_below())
    root.mkdir(parents=True, exist_ok=True)
    with _locked(root / f".{place.name}.lock") as lock:
        if not (place / READY).exists():
            _build(environment, place, lock)
    return place / "bin" / "python"


def _below() -> tuple[str, ...]:
    """Return what an environment stands on: another Python or other packages of the platform make it another."""
    found = sorted(
        name
        for place in sorted(_site_packages())
        for name in (os.listdir(place) if os.path.isdir(place) else ())
        if name.endswith(".dist-info")
    )
    return sys.version, sys.prefix, *found


def _site_packages() -> set[str]:
    return {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[int]:
    """Hold a lock; what inherits its descriptor goes on holding it, if this process is killed."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("waiting: another job builds this environment", flush=True)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield descriptor
    finally:
        os.close(descriptor)


def _build(environment: Mapping[str, Any], place: Path, lock: int) -> None:
    print(f"building {environments.shown(environment)} in {place}", flush=True)
    try:
        if place.exists():
            shutil.rmtree(place)
        _make(place)
        (place / REQUIREMENTS).write_text("\n".join(environment["requirements"]) + "\n")
        python = place / "bin" / "python"
        pip = [python, "-m", "pip", "install", "--no-input", "--disable-pip-version-check", "-r", place / REQUIREMENTS]
        _run(pip, lock, f"the {environments.shown(environment)} cannot be installed")
        _run([python, "-c", CHECK], lock, f"the platform cannot run in the {environments.shown(environment)}")
        _ready(place, environment)
    except OSError as error:
        raise NotProvided(f"the {environments.shown(environment)} cannot be built: {error}") from error
    finally:
        if not (place / READY).exists():
            shutil.rmtree(place, ignore_errors=True)


def _make(place: Path) -> None:
    """Make an empty virtual environment that sees the platform's packages behind its own."""
    own_pip = importlib.util.find_spec("pip") is None
    venv.EnvBuilder(symlinks=True, with_pip=own_pip).create(place)
    _show_platform(place)


def _show_platform(place: Path) -> None:
    packages = Path(sysconfig.get_path("purelib", "venv", {"base": str(place), "platbase": str(place)}))
    calls = "; ".join(f"site.addsitedir({folder!r})" for folder in sorted(_site_packages()))
    path, text = packages / PLATFORM_PTH, f"import site; {calls}\n"
    if not path.exists() or path.read_text() != text:
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        temporary.write_text(text)
        os.replace(temporary, path)


def _run(command: list[Any], lock: int, failed: str) -> None:
    """Run a command that shows what it prints.  Raises NotProvided with its last lines."""
    with subprocess.Popen(  # noqa: S603
        [str(part) for part in command],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        pass_fds=(lock,),
        env=clean(os.environ),
        text=True,
        errors="replace",
    ) as process:
        last: list[str] = []
        signal.signal(signal.SIGALRM, lambda *_: process.kill())
        signal.setitimer(signal.ITIMER_REAL, BUILD_S)
        for line in process.stdout or ():
            print(line, end="", flush=True)
            last = [*last[-19:], line.strip()]
        code = process.wait()
        signal.setitimer(signal.ITIMER_REAL, 0)
    if code:
        told = next((line for line in reversed(last) if line.startswith("ERROR")), last[-1] if last else f"code {code}")
        late = f" within {BUILD_S:g} s" if code == -signal.SIGKILL else ""
        raise NotProvided(f"{failed}{late}: {told.removeprefix('ERROR: ')[:MOST_TOLD]}")


def clean(environ: Mapping[str, str]) -> dict[str, str]:
    """Return an environment whose PYTHONPATH does not put the platform's packages before those of a step."""
    ours = {os.path.realpath(folder) for folder in _site_packages()}
    named = [each for each in environ.get("PYTHONPATH", "").split(os.pathsep) if each]
    kept = os.pathsep.join(each for each in named if os.path.realpath(each) not in ours)
    found = {name: value for name, value in environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}
    return {**found, **({"PYTHONPATH": kept} if kept else {})}


def _ready(place: Path, environment: Mapping[str, Any]) -> None:
    """Say that an environment is whole, once all of it is on the disk."""
    os.sync()
    temporary = place / f".{READY}"
    temporary.write_text(json.dumps({**environment, "python": sys.version}))
    os.replace(temporary, place / READY)


def _named(name: str, root: Path) -> Path:
    """Return the Python of an environment that somebody made, which sees the platform's packages from now on."""
    place = root / name
    python = place / "bin" / "python"
    if not python.exists():
        told = f"there is no environment {name!r}: make one with `python -m venv {place}`"
        there = sorted(path.name for path in root.glob("*") if (path / "bin" / "python").exists())
        raise NotProvided(f"{told}{'; there are ' + ', '.join(there) if there else ''}")
    wanted = f"{sys.version_info.major}.{sys.version_info.minor}"
    if not (place / "lib" / f"python{wanted}").is_dir():
        raise NotProvided(f"the environment {name!r} is not of Python {wanted}, which the platform's packages are for")
    _show_platform(place)
    return python


def packages_of(name: str, root: Path) -> str:
    """Return a digest of what is installed in a named environment, empty if there is none."""
    found = sorted(path.name for path in (root / NAMED / name).glob("lib/python*/site-packages/*.dist-info"))
    return environments.digest({"named": name}, *found)[:32] if found else ""
