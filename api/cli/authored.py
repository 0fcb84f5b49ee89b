"""`ma pipeline apply` and `ma pipeline dev-run`: pipelines written in Python, packed and traced here, run there."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from google.protobuf import json_format

from api.cli import code, documents, runs
from api.cli.context import client, say, warn
from api.cli.exits import OK, USAGE, Failure
from api.client import Client
from api.gen.michelangelo.api.v2 import pipeline_pb2
from api.kinds import kinds
from api.uniflow import GRAPH_TYPE
from api.workflows import typed

UNIFLOW = pipeline_pb2.PipelineManifest.PIPELINE_MANIFEST_TYPE_UNIFLOW
TYPE_LABEL = "pipeline.michelangelo/PipelineManifestType"


def apply(files: Sequence[str], *, namespace: str, folder: str, dry_run: bool, force: bool = False) -> int:
    """Apply files as `ma apply` does, with the code of each pipeline that is written in Python.  Returns the exit code.

    folder: where the code lies; empty: beside the file.
    """
    found = [_read(file, namespace) for file in files]
    with client() as api:
        for file, resource in found:
            if is_authored(resource):
                fill(api, resource, folder, file, keep=not dry_run)
            _, what = api.apply(resource, force=force, dry_run=dry_run)
            say(f"{resource.DESCRIPTOR.name} {resource.metadata.name} {what}{' (dry run)' if dry_run else ''}")
    return OK


def dev_run(
    file: str, *, namespace: str, folder: str, settings: Sequence[str], run_name: str, wait: bool, timeout_s: float
) -> int:
    """Run what lies in a folder now without registering it.  Returns the exit code."""
    given = runs.parameters(settings)
    _, pipeline = _read(file, namespace)
    if not is_authored(pipeline):
        raise Failure(f"{file} is no pipeline in Python: apply it, then `ma pipeline run`", code=USAGE)
    scope, name = pipeline.metadata.namespace, pipeline.metadata.name
    with client() as api:
        run = _dev_run(api, pipeline, folder, file, run_name or _run_name(name))
        if given:
            json_format.ParseDict({"kw_args": given}, run.spec.input)
        api.create(run)
        say(run.metadata.name)
        return runs.follow(api, scope, run.metadata.name, timeout_s=timeout_s, tell=say) if wait else OK


def _dev_run(api: Client, pipeline: Any, folder: str, file: str, name: str) -> Any:
    """Return a run that brings its pipeline along; code and differences are stored."""
    where = fill(api, pipeline, folder, file, keep=True)
    scope = pipeline.metadata.namespace
    run = kinds()["PipelineRun"].new(scope, name)
    run.spec.pipeline_spec.CopyFrom(pipeline.spec)
    run.spec.workspace_root_dir = _workspace(where)
    if difference := code.difference(where).encode():
        run.spec.local_diff = api.put_code(scope, difference, "DIFF")
    run.spec.description = f"dev-run of {pipeline.metadata.name}"
    return run


def is_authored(resource: Any) -> bool:
    """Whether a document is a pipeline written in Python."""
    return bool(resource.DESCRIPTOR.name == "Pipeline" and resource.spec.manifest.type == UNIFLOW)


def _read(file: str, namespace: str) -> tuple[str, Any]:
    """Return the one document of a file.  Raises Failure with its faults."""
    found = documents.load([file], namespace=namespace)
    faults = [fault for document in found for fault in document.faults]
    if faults:
        raise Failure(f"{file} cannot be read", *faults)
    for document in found:
        for warning in document.warnings:
            warn(warning)
    if len(found) != 1:
        raise Failure(f"{file} holds {len(found)} documents: one pipeline a file", code=USAGE)
    resource = found[0].resource
    if resource is None or not resource.metadata.namespace:
        raise Failure("which project?  Give it with -n or as metadata.namespace", code=USAGE)
    return file, resource


def fill(api: Client, pipeline: Any, folder: str, file: str, *, keep: bool) -> Path:
    """Put graph, code and commit into a pipeline's manifest and return the folder.  keep: store the code too."""
    manifest = pipeline.spec.manifest
    missing = [name for name in ("file_path", "uniflow_function") if not getattr(manifest, name)]
    if missing:
        told = {
            "file_path": "filePath names the module",
            "uniflow_function": "uniflowFunction names its @pipeline",
        }
        raise Failure(f"{file}: the manifest is not complete", *(f"  spec.manifest.{told[name]}" for name in missing))
    where = Path(folder or os.path.dirname(os.path.abspath(file))).resolve()
    made = code.prepare(where, manifest.file_path, manifest.uniflow_function)
    say(code.told(where, made))
    scope, packed = pipeline.metadata.namespace, made.packed
    manifest.uniflow_tar = api.put_code(scope, packed.data, keep=keep)
    text = json.dumps(made.graph, separators=(",", ":"), ensure_ascii=False)
    manifest.content.Pack(typed(GRAPH_TYPE, {"graph": text}))
    pipeline.metadata.labels[TYPE_LABEL] = "UNIFLOW"
    reference, branch = code.commit(where)
    if reference and branch and not pipeline.spec.HasField("commit"):
        pipeline.spec.commit.git_ref, pipeline.spec.commit.branch = reference, branch
    return where


def _run_name(pipeline: str) -> str:
    return f"dev-{pipeline}-{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"


def _workspace(folder: Path) -> str:
    """Return the folder as the contract allows it, empty if it does not."""
    text = str(folder)
    return text if all(character.isalnum() or character in "_-/" for character in text) and text.isascii() else ""
