"""Revisions of pipelines: what they are called, what is in them, and when there is a new one.

A revision is a pipeline as it was applied.  It is never changed, and the same content makes no second one.
"""

from __future__ import annotations

import logging
from typing import Any, Protocol

from google.protobuf.message import DecodeError

from api.errors import AlreadyExists, ApiError
from api.gen.michelangelo.api.v2 import pipeline_pb2
from api.kinds import Resource, kinds
from api.pipeline_dags import LONG_ENOUGH
from api.resources import Resources
from api.store.base import Key
from api.workflows import STEPS_TEMPLATE, spec_hash

log = logging.getLogger(__name__)


class Finds(Protocol):
    """Reads objects."""

    async def find(self, key: Key) -> Any | None:
        """Return one object, None if it does not exist."""
        ...


def revision_name(pipeline: Any) -> str:
    """Return what a pipeline's revision is called if that is free: by its commit if it has one, else by its content."""
    reference = pipeline.spec.commit.git_ref if pipeline.spec.HasField("commit") else ""
    short = "".join(c for c in reference.lower() if c.isascii() and c.isalnum())[:LONG_ENOUGH]
    return f"pipeline-{pipeline.metadata.name}-{short or spec_hash(pipeline.spec)[:LONG_ENOUGH]}"


def revision_id(pipeline: Any) -> str:
    """Return what identifies the content of a pipeline among its revisions."""
    return spec_hash(pipeline.spec)[:LONG_ENOUGH]


async def name_of(resources: Finds, pipeline: Any) -> str:
    """Return the name of a pipeline's revision, whether it exists by now or not.

    Of two states of one commit the later one has its content in its name too.
    """
    short, content = revision_name(pipeline), revision_id(pipeline)
    longer = f"{short}-{content[:8]}"
    for name in (longer, short):
        found = await resources.find(Key("Revision", pipeline.metadata.namespace, name))
        if found is None and name == short:
            return short
        if found is not None and found.spec.revision_id == content and is_of(found, pipeline.metadata):
            return name
    return longer


def is_of(revision: Any, pipeline: Any) -> bool:
    """Whether a revision is one of a pipeline.  `pipeline`: its metadata, or a reference to it."""
    base = revision.spec.base_resource
    home = base.namespace or revision.metadata.namespace
    same = base.name == pipeline.name and home == (pipeline.namespace or home)
    return bool(same and revision.spec.base_type.kind == "Pipeline")


def content_of(revision: Any) -> Any | None:
    """Return the pipeline that is in a revision, None if there is none that can be read."""
    pipeline = pipeline_pb2.Pipeline()
    try:
        whole = revision.spec.content.Unpack(pipeline)
    except DecodeError:
        return None
    return pipeline if whole and pipeline.metadata.name == revision.spec.base_resource.name else None


def revision_of(pipeline: Any, name: str, parent: str = "") -> Any:
    """Return the revision of a pipeline as it is.  `parent`: the name of the one before."""
    revision = kinds()["Revision"].new(pipeline.metadata.namespace, name)
    spec = revision.spec
    spec.base_type.CopyFrom(pipeline.type_meta)
    spec.base_resource.namespace = pipeline.metadata.namespace
    spec.base_resource.name = pipeline.metadata.name
    snapshot = type(pipeline)()
    snapshot.CopyFrom(pipeline)
    snapshot.ClearField("status")
    # Who wrote which field, and when, is not what was applied.
    del snapshot.metadata.managedFields[:]
    spec.content.Pack(snapshot, deterministic=True)
    spec.owner.CopyFrom(pipeline.spec.owner)
    spec.revision_id = revision_id(pipeline)
    spec.source = pipeline.spec.manifest.file_path or STEPS_TEMPLATE
    if parent and parent != name:
        spec.parent.namespace, spec.parent.name = pipeline.metadata.namespace, parent
    if pipeline.spec.HasField("commit"):
        spec.git_commit.CopyFrom(pipeline.spec.commit)
    owner = revision.metadata.ownerReferences.add()
    owner.kind, owner.name, owner.uid = "Pipeline", pipeline.metadata.name, pipeline.metadata.uid
    owner.apiVersion = pipeline.type_meta.apiVersion
    return revision


async def keep(resources: Resources, pipeline: Any, parent: str = "") -> str:
    """See that a pipeline as it is has its revision; return its name.  A parent that is gone is left out."""
    name = await name_of(resources, pipeline)
    here = pipeline.metadata.namespace
    if await resources.find(Key("Revision", here, name)) is not None:
        return name
    if parent and await resources.find(Key("Revision", here, parent)) is None:
        parent = ""
    try:
        await resources.create(revision_of(pipeline, name, parent))
    except AlreadyExists:
        # By the controller, or by the server that took the apply: of one content, whoever was first.
        return await name_of(resources, pipeline)
    return name


async def follow(resources: Resources, old: Resource | None, new: Resource) -> None:
    """Keep the revision of a pipeline that was just written.  What fails here, the controller makes up for."""
    if old is not None and spec_hash(old.spec) == spec_hash(new.spec):
        return
    try:
        before = "" if old is None else await name_of(resources, old)
        await keep(resources, new, before)
    except ApiError as error:
        log.info("the revision of %s waits for the controller: %s", new.metadata.name, error.message)
