"""Where a run's data lies in the artifact store, and how a folder is written: a reader sees all of it or none."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

from api.config import load
from operators.errors import InputGone, UserError


def folder_of(run: Mapping[str, str], name: str) -> Path:
    """Return the folder of a run's output `name`; each DAG run has its own."""
    return load().artifacts_path / safe(run["dag_id"]) / safe(run["run_id"]) / name


def safe(name: str) -> str:
    """Return `name` as one part of a path: the same for the same name, another for another."""
    cleaned = re.sub(r"[^A-Za-z0-9._-]", "_", name)[:150]
    if cleaned == name and not name.startswith("."):
        return name
    return f"r{cleaned}-{hashlib.sha256(name.encode()).hexdigest()[:10]}"


def path_of(uri: str) -> Path:
    """Return the local path of a file URI.  Raises UserError for another scheme, or if nothing is there."""
    path = Path(uri.removeprefix("file://"))
    if "://" in str(path) or not path.is_absolute():
        raise UserError(f"{uri!r} is not a file:// URI of this machine")
    if not path.exists():
        raise InputGone(f"{uri!r} does not exist: was its run deleted?")
    return path


@contextlib.contextmanager
def written(folder: Path) -> Iterator[Path]:
    """Give a temporary folder that becomes `folder` when the block ends well; what was there is replaced."""
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        yield temporary
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    shutil.rmtree(folder, ignore_errors=True)
    temporary.rename(folder)
