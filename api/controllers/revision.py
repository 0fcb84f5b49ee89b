"""Revision: READY when its content is a whole object of the type it names.  Model: every model has a Revision."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any

from google.protobuf.message import DecodeError

from api.controllers.platform import Platform
from api.errors import AlreadyExists
from api.gen.michelangelo.api.v2 import revision_pb2
from api.kinds import Resource, kinds
from api.store.base import Change, Criterion, Key, Operator
from api.store.values import PENDING

REVISED = "michelangelo.airflow/revised"


class RevisionController:
    """CREATED -> READY | ERROR."""

    kind = "Revision"

    def __init__(self, platform: Platform) -> None:
        self._platform = platform

    @property
    def unsettled(self) -> Criterion:
        """Those that were written since they were checked."""
        return Criterion(PENDING, Operator.IS_NOT_NULL)

    def settled(self, resource: Resource) -> bool:
        """Never: its content may have changed."""
        return False

    async def related(self, change: Change) -> Sequence[Key]:
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

    @property
    def unsettled(self) -> Criterion:
        """Those that do not say yet that they have a revision."""
        return Criterion(PENDING, Operator.IS_NOT_NULL)

    def settled(self, resource: Resource) -> bool:
        """Whether it says that it has a revision."""
        return REVISED in resource.metadata.labels

    async def related(self, change: Change) -> Sequence[Key]:
        """Nothing else changes a model."""
        return ()

    async def reconcile(self, key: Key) -> float | None:
        """Create the revision once, and say so on the model: a new leader need not look for it."""
        resources = self._platform.resources
        model = await resources.find(key)
        if model is None or model.metadata.HasField("deletionTimestamp") or self.settled(model):
            return None
        if await resources.find(Key("Revision", key.namespace, key.name)) is None:
            with contextlib.suppress(AlreadyExists):
                await resources.create(self._revision(key, model))
        model.metadata.labels[REVISED] = "true"
        await resources.update(model)
        return None

    def _revision(self, key: Key, model: Any) -> Any:
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
        return revision
