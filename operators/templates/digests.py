"""What a stage returned, as a digest of its content: the same wherever it ran.  Reads files; changes none.

A stage returns URIs and names.  A folder counts by what its files hold, not by where it lies; the names that a run gave
count as the run's; an instant at which a file was made does not count.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

FILE = "file://"
# When a model's files were put together; what they are is said by their digests beside it.
MADE = {"manifest.json": ("created",)}
CHUNK_BYTES = 1024 * 1024


def digest_of(outputs: Any, names: Mapping[str, str]) -> str:
    """Return the digest of a stage's outputs.  names: what a run is called by, and what each stands for."""
    text = json.dumps(_plain(outputs, names), sort_keys=True, ensure_ascii=False)
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"


def _plain(value: Any, names: Mapping[str, str]) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item, names) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item, names) for item in value]
    if isinstance(value, str) and value.startswith(FILE):
        path = Path(value.removeprefix(FILE))
        return _content(path) if path.exists() else "gone"
    if isinstance(value, str):
        for name in sorted((name for name in names if name), key=len, reverse=True):
            value = value.replace(name, names[name])
    return value


def _content(path: Path) -> dict[str, str]:
    files = sorted(each for each in path.rglob("*") if each.is_file()) if path.is_dir() else [path]
    return {str(file.relative_to(path)): _file(file) for file in files}


def _file(path: Path) -> str:
    if path.name in MADE:
        return _without(path, MADE[path.name])
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def _without(path: Path, left_out: tuple[str, ...]) -> str:
    told = {key: value for key, value in json.loads(path.read_text()).items() if key not in left_out}
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()
