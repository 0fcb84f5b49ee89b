"""Revision: READY when its content is a whole object of the type it names.  Model: every model has a Revision."""

from __future__ import annotations

from collections.abc import Sequence

from google.protobuf.message import DecodeError

from api.controllers.platform import Platform
from api.errors import AlreadyExists
from api.gen.michelangelo.api.v2 import revision_pb2
from api.kinds import kinds
from api.store.base import Key


class RevisionController:
    """CREATED -> READY | ERROR."""

    kind = "Revision"

    def __init__(self, platform: Platform) -> None:
        self._platform = platform

    async def related(self, key: Key) -> Sequence[Key]:
        """Nothing else changes a revision."""
        return ()

    async def reconcile(self, key: Key) -> float | None:
        """Check the content."""
        revision = await self._platform.resources.find(key)
        if revision is None or revision.metadata.HasField("deletionTimestamp"):
            return None
        base = kinds().get(revision.spec.base_type.kind)
        whole = False
        if base is not None and revision.spec.content.TypeName() == base.message.DESCRIPTOR.full_name:
            try:
                snapshot = base.message.FromString(revision.spec.content.value)
                whole = bool(snapshot.metadata.name == revision.spec.base_resource.name)
            except DecodeError:
                whole = False
        revision.status.state = revision_pb2.REVISION_STATE_READY if whole else revision_pb2.REVISION_STATE_ERROR
        await self._platform.resources.update_status(revision)
        return None


class ModelController:
    """Gives a Model the Revision by which a Deployment names it: same name, whole content."""

    kind = "Model"

    def __init__(self, platform: Platform) -> None:
        self._platform = platform

    async def related(self, key: Key) -> Sequence[Key]:
        """Nothing else changes a model."""
        return ()

    async def reconcile(self, key: Key) -> float | None:
        """Create the revision once."""
        resources = self._platform.resources
        model = await resources.find(key)
        if model is None or model.metadata.HasField("deletionTimestamp"):
            return None
        if await resources.find(Key("Revision", key.namespace, key.name)) is not None:
            return None
        revision = kinds()["Revision"].new(key.namespace, key.name)
        revision.spec.base_type.CopyFrom(model.type_meta)
        revision.spec.base_resource.namespace, revision.spec.base_resource.name = key.namespace, key.name
        revision.spec.content.Pack(model)
        revision.spec.owner.CopyFrom(model.spec.owner)
        revision.spec.revision_id = str(model.spec.revision_id)
        revision.spec.source = model.spec.source or "model"
        owner = revision.metadata.ownerReferences.add()
        owner.kind, owner.name, owner.uid = "Model", key.name, model.metadata.uid
        owner.apiVersion = model.type_meta.apiVersion
        try:
            await resources.create(revision)
        except AlreadyExists:
            return None
        return None
