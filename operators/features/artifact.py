"""A model as a folder of plain files, each with its digest.  Nothing in it is ever executed or unpickled.

manifest.json   format, name, when it was made, size and SHA-256 of every other file
graph.json      the transformation graph
model.onnx      the served form of the model
features.json   which features are joined, by which keys, and how old they may be
signature.json  what a caller has to send and what comes back
golden.json     held-out rows and the trained model's answers to them
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FORMAT = 1
MANIFEST = "manifest.json"
REQUIRED = ("graph.json", "model.onnx", "features.json", "signature.json", "golden.json")
MOST_BYTES = 2 * 1024**3
UNSAFE = (".pkl", ".pickle", ".joblib", ".pt", ".pth", ".npy", ".npz", ".dill", ".cloudpickle")


class ArtifactError(Exception):
    """The folder is not a model that may be served.  `reason` is stable UPPER_SNAKE."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message


@dataclass(frozen=True)
class Artifact:
    """A verified artifact: these bytes are the ones whose digests the manifest gives."""

    name: str
    created: str
    files: Mapping[str, bytes]

    def document(self, name: str) -> Any:
        """Return a JSON file.  Raises ArtifactError."""
        try:
            return json.loads(self.files[name])
        except ValueError as error:
            raise ArtifactError("MALFORMED_ARTIFACT", f"{name} is not JSON: {error}") from error


def load(uri: str) -> Artifact:
    """Read and verify the artifact at `uri` (fsspec: a path, file://, s3://).

    Raises ArtifactError: ARTIFACT_NOT_FOUND, MALFORMED_ARTIFACT, DIGEST_MISMATCH, UNSAFE_FORMAT.
    """
    found = _read(uri)
    unsafe = sorted(name for name in found if name.lower().endswith(UNSAFE))
    if unsafe:
        raise ArtifactError(
            "UNSAFE_FORMAT", f"{', '.join(unsafe)}: this format can run code when it is loaded; refused"
        )
    if MANIFEST not in found:
        raise ArtifactError("MALFORMED_ARTIFACT", f"there is no {MANIFEST}")
    manifest = _manifest(found.pop(MANIFEST))
    listed = manifest["files"]
    missing = sorted({*REQUIRED, *listed} - found.keys())
    extra = sorted((found.keys() - listed.keys()) | (set(REQUIRED) - listed.keys() - set(missing)))
    if missing or extra:
        parts = [f"missing {', '.join(missing)}"] if missing else []
        parts += [f"not in the manifest: {', '.join(extra)}"] if extra else []
        raise ArtifactError("MALFORMED_ARTIFACT", "; ".join(parts))
    for name, content in found.items():
        if hashlib.sha256(content).hexdigest() != listed[name]["sha256"]:
            raise ArtifactError("DIGEST_MISMATCH", f"{name} is not what was registered: its SHA-256 differs")
    return Artifact(manifest["name"], manifest["created"], found)


def _read(uri: str) -> dict[str, bytes]:
    import fsspec

    try:
        filesystem, root = fsspec.core.url_to_fs(uri)
        sizes = filesystem.find(root, detail=True)
        if sum(item["size"] or 0 for item in sizes.values()) > MOST_BYTES:
            raise ArtifactError("MALFORMED_ARTIFACT", f"the artifact is larger than {MOST_BYTES} bytes")
        prefix = root.rstrip("/") + "/"
        found = {path.removeprefix(prefix): filesystem.cat_file(path) for path in sizes}
    except (OSError, ValueError, ImportError) as error:
        raise ArtifactError("ARTIFACT_NOT_FOUND", f"the artifact cannot be read: {type(error).__name__}") from error
    if not found:
        raise ArtifactError("ARTIFACT_NOT_FOUND", "there is nothing at the artifact's address")
    return found


def _manifest(content: bytes) -> dict[str, Any]:
    try:
        manifest = json.loads(content)
        if manifest["format"] != FORMAT:
            raise ArtifactError("MALFORMED_ARTIFACT", f"format {manifest['format']!r} of an artifact is not {FORMAT}")
        known = {
            "name": str(manifest["name"]),
            "created": str(manifest["created"]),
            "files": {str(name): {"sha256": str(item["sha256"])} for name, item in manifest["files"].items()},
        }
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ArtifactError("MALFORMED_ARTIFACT", f"{MANIFEST} cannot be read: {error}") from error
    return known


def write(folder: Path, files: Mapping[str, bytes], *, name: str, created: str) -> None:
    """Write an artifact to a local folder: a reader sees all of it or none.  What was there is replaced."""
    listed = {
        file: {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content)} for file, content in files.items()
    }
    manifest = {"format": FORMAT, "runtime": "onnx", "name": name, "created": created, "files": listed}
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    for file, content in {**files, MANIFEST: json.dumps(manifest, indent=1).encode()}.items():
        (temporary / file).write_bytes(content)
    shutil.rmtree(folder, ignore_errors=True)
    temporary.rename(folder)
