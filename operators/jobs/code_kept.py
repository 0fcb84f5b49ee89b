"""The user's source files as they were when a job began, kept by their content, so that it can be run again exactly.

Keeps small projects only: a folder with more than `MOST_FILES` or `MOST_BYTES` of source is named, not copied.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

FOLDER = ".code"
SUFFIXES = (".py", ".json", ".yaml", ".yml", ".toml", ".sql", ".txt")
SKIPPED = ("__pycache__", "node_modules", "site-packages", "build", "dist")
MOST_FILES = 500
MOST_BYTES = 8 * 2**20


def keep(root: str, kept: Path) -> dict[str, Any]:
    """Copy the source below `root` into `kept` unless it is there already; return {"root", "digest", "files"}.

    files: a short digest of each by its path below root.  With too much of it: {"root", "left_out"} says why.
    """
    if not root or not Path(root).is_dir():
        return {}
    files: dict[str, bytes] = {}
    size = 0
    for path in _sources(Path(root)):
        content = path.read_bytes()
        size += len(content)
        files[str(path.relative_to(root))] = content
        if len(files) > MOST_FILES or size > MOST_BYTES:
            return {"root": root, "left_out": f"over {MOST_FILES} files or {MOST_BYTES // 2**20} MiB of source"}
    named = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    digest = "sha256:" + hashlib.sha256(json.dumps(named, sort_keys=True).encode()).hexdigest()
    _write(kept / digest.removeprefix("sha256:"), files)
    return {"root": root, "digest": digest, "files": {name: one[:12] for name, one in named.items()}}


def _sources(root: Path) -> Iterator[Path]:
    seen = 0
    for folder, folders, names in os.walk(root):
        folders[:] = sorted(name for name in folders if not name.startswith(".") and name not in SKIPPED)
        for name in sorted(names):
            seen += 1
            path = Path(folder, name)
            if name.endswith(SUFFIXES) and not name.startswith(".") and path.is_file():
                yield path
            if seen > 20 * MOST_FILES:
                return


def _write(place: Path, files: Mapping[str, bytes]) -> None:
    if place.is_dir():
        return
    temporary = place.with_name(f".{place.name}.{os.getpid()}")
    for name, content in files.items():
        path = temporary / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    temporary.mkdir(parents=True, exist_ok=True)
    try:
        temporary.rename(place)
    except OSError:
        # Somebody kept the same code at the same moment.
        shutil.rmtree(temporary, ignore_errors=True)
