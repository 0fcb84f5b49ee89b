"""Deployment: rolls the desired revision out through a serving backend, and never gives up what serves now.

A revision that fails its checks leaves the old one answering: state HEALTHY, stage ROLLOUT_FAILED, the reason told.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from api.backends.base import Observed, Target
from api.controllers.conditions import set_condition
from api.controllers.platform import Platform
from api.errors import NotFound, Unavailable
from api.gen.michelangelo.api.v2 import deployment_pb2 as wire
from api.gen.michelangelo.api.v2 import inference_server_pb2 as servers
from api.gen.michelangelo.api.v2 import model_pb2, revision_pb2
from api.kinds import Resource
from api.store.base import Change, Key

FINALIZER = "michelangelo.airflow/serving"
ROLLING_LOOK_S = 0.25
STEADY_LOOK_S = 10.0


def served_name(namespace: str, name: str) -> str:
    """Return the name under which a deployment answers."""
    return f"{namespace}.{name}"


class DeploymentController:
    """VALIDATION -> RESOURCE_ACQUISITION -> PLACEMENT -> ROLLOUT_COMPLETE | ROLLOUT_FAILED; CLEAN_UP_COMPLETE."""

    kind = "Deployment"

    unsettled = None

    def __init__(self, platform: Platform) -> None:
        self._platform = platform
        # What each deployment needs, as it was last looked at: its revision and its server.
        self._needs: dict[Key, tuple[Key, ...]] = {}

    def settled(self, resource: Resource) -> bool:
        """Never: the backend may have changed."""
        return False

    async def related(self, change: Change) -> Sequence[Key]:
        """Revisions appear after the deployments that want them; servers come and go."""
        if change.key.kind not in ("Revision", "InferenceServer"):
            return ()
        return [deployment for deployment, needs in self._needs.items() if change.key in needs]

    async def reconcile(self, key: Key) -> float | None:
        """Bring the backend in line with the desired revision."""
        resources = self._platform.resources
        deployment = await resources.find(key)
        if deployment is None:
            self._needs.pop(key, None)
            return None
        self._needs[key] = _needs(deployment)
        if deployment.metadata.HasField("deletionTimestamp"):
            await self._platform.backend.delete(served_name(key.namespace, key.name))
            await resources.set_finalizer(deployment, FINALIZER, present=False)
            return None
        deployment = await resources.set_finalizer(deployment, FINALIZER, present=True)
        try:
            again_s = await self._advance(key, deployment)
        except Unavailable as error:
            deployment.status.state = wire.DEPLOYMENT_STATE_UNHEALTHY
            deployment.status.message = error.message
            set_condition(deployment, "Serving", None, "DependencyUnavailable", error.message)
            await resources.update_status(deployment)
            raise
        await resources.update_status(deployment)
        return again_s

    async def _advance(self, key: Key, deployment: Any) -> float | None:
        if deployment.spec.deletion_spec.deleted or not deployment.spec.desired_revision.name:
            return await self._clean_up(key, deployment)
        model = await self._model(key, deployment)
        if model is None:
            return None
        target = Target(
            served_name(key.namespace, key.name),
            deployment.spec.desired_revision.name,
            model.spec.deployable_artifact_uri[0],
            deployment.metadata.generation,
        )
        observed = await self._platform.backend.observe(target.deployment)
        if observed is None or not _pursues(observed, target):
            self._stage(deployment, wire.DEPLOYMENT_STAGE_RESOURCE_ACQUISITION)
            await self._platform.backend.apply(target)
            observed = await self._platform.backend.observe(target.deployment)
        return self._judge(deployment, target, observed)

    async def _clean_up(self, key: Key, deployment: Any) -> float | None:
        status = deployment.status
        await self._platform.backend.delete(served_name(key.namespace, key.name))
        if status.HasField("current_revision"):
            self._stage(deployment, wire.DEPLOYMENT_STAGE_CLEAN_UP_COMPLETE)
        status.ClearField("current_revision")
        status.ClearField("candidate_revision")
        status.state = wire.DEPLOYMENT_STATE_EMPTY
        status.message = "no revision is desired"
        set_condition(deployment, "Serving", False, "Empty", status.message)
        return None

    async def _model(self, key: Key, deployment: Any) -> Any | None:
        """Return the model of the desired revision; reports why there is none."""
        wanted = deployment.spec.desired_revision
        revision = await self._platform.resources.find(Key("Revision", wanted.namespace or key.namespace, wanted.name))
        message = ""
        model = model_pb2.Model()
        if revision is None:
            message = f"Revision {wanted.name!r} does not exist"
        elif revision.status.state not in (revision_pb2.REVISION_STATE_READY, revision_pb2.REVISION_STATE_INVALID):
            message = f"Revision {wanted.name!r} is damaged"
        elif not revision.spec.content.Unpack(model) or not model.spec.deployable_artifact_uri:
            message = f"Revision {wanted.name!r} is of no model that can be served"
        if not message:
            return model
        # Whoever waits for a revision tells by the candidate that a failure is of this one, not of an earlier one.
        deployment.status.candidate_revision.namespace = wanted.namespace or key.namespace
        deployment.status.candidate_revision.name = wanted.name
        self._fail(deployment, "RevisionNotServable", message)
        return None

    def _judge(self, deployment: Any, target: Target, observed: Observed | None) -> float:
        """Set the status from what the backend says; return when to look again."""
        status = deployment.status
        if observed is None:
            raise Unavailable("the inference server forgot the deployment")
        self._current(deployment, observed.current)
        if observed.current == target.revision and observed.state == "READY":
            status.ClearField("candidate_revision")
            status.state, status.message = wire.DEPLOYMENT_STATE_HEALTHY, ""
            self._stage(deployment, wire.DEPLOYMENT_STAGE_ROLLOUT_COMPLETE)
            set_condition(deployment, "Serving", True, "RolloutComplete")
            return STEADY_LOOK_S
        status.candidate_revision.namespace = deployment.metadata.namespace
        status.candidate_revision.name = target.revision
        if observed.state == "FAILED":
            self._fail(deployment, observed.reason or "RolloutFailed", observed.message)
            return STEADY_LOOK_S
        serving = bool(observed.current)
        status.state = wire.DEPLOYMENT_STATE_HEALTHY if serving else wire.DEPLOYMENT_STATE_INITIALIZING
        self._stage(deployment, wire.DEPLOYMENT_STAGE_PLACEMENT)
        return ROLLING_LOOK_S

    def _current(self, deployment: Any, revision: str) -> None:
        if revision:
            deployment.status.current_revision.namespace = deployment.metadata.namespace
            deployment.status.current_revision.name = revision
        else:
            deployment.status.ClearField("current_revision")

    def _stage(self, deployment: Any, stage: Any) -> None:
        deployment.status.stage = stage

    def _fail(self, deployment: Any, reason: str, message: str) -> None:
        status = deployment.status
        serving = status.HasField("current_revision")
        status.state = wire.DEPLOYMENT_STATE_HEALTHY if serving else wire.DEPLOYMENT_STATE_UNHEALTHY
        status.message = message
        set_condition(deployment, "Serving", serving, reason, message)
        if status.stage != wire.DEPLOYMENT_STAGE_ROLLOUT_FAILED:
            del status.conditions_snapshot[:]
            status.conditions_snapshot.extend(status.conditions)
        self._stage(deployment, wire.DEPLOYMENT_STAGE_ROLLOUT_FAILED)


def _needs(deployment: Any) -> tuple[Key, ...]:
    spec, here = deployment.spec, deployment.metadata.namespace
    wanted = {"Revision": spec.desired_revision, "InferenceServer": spec.inference_server}
    return tuple(Key(kind, one.namespace or here, one.name) for kind, one in wanted.items() if one.name)


def _pursues(observed: Observed, target: Target) -> bool:
    """Whether the backend serves or loads the target, or refused it as it is wanted now."""
    if observed.current == target.revision and observed.state == "READY":
        return True
    refused = observed.state == "FAILED" and observed.generation < target.generation
    return observed.candidate == target.revision and not refused


class InferenceServerController:
    """CREATING -> SERVING | FAILED: says whether the fleet answers; decommissioning ends it."""

    kind = "InferenceServer"

    unsettled = None

    def __init__(self, platform: Platform) -> None:
        self._platform = platform

    def settled(self, resource: Resource) -> bool:
        """Never: whether it answers is not written in it."""
        return False

    async def related(self, change: Change) -> Sequence[Key]:
        """Nothing else changes a server."""
        return ()

    async def reconcile(self, key: Key) -> float | None:
        """Observe the backend."""
        resources = self._platform.resources
        server = await resources.find(key)
        if server is None or server.metadata.HasField("deletionTimestamp"):
            return None
        status = server.status
        status.observed_generation = server.metadata.generation
        status.inference_server_id = str(key)
        status.provider_metadata = self._platform.backend.url()
        status.create_time = server.metadata.creationTimestamp.ToJsonString()
        if server.spec.decom_spec.decommission:
            status.state = servers.INFERENCE_SERVER_STATE_DELETED
            set_condition(server, "Serving", False, "Decommissioned")
        elif await self._platform.backend.healthy():
            status.state = servers.INFERENCE_SERVER_STATE_SERVING
            set_condition(server, "Serving", True, "Answers")
        else:
            known = status.state in (servers.INFERENCE_SERVER_STATE_SERVING, servers.INFERENCE_SERVER_STATE_FAILED)
            status.state = servers.INFERENCE_SERVER_STATE_FAILED if known else servers.INFERENCE_SERVER_STATE_CREATING
            set_condition(server, "Serving", False, "NoAnswer", "the inference server does not answer")
        try:
            await resources.update_status(server)
        except NotFound:
            return None
        fine = status.state == servers.INFERENCE_SERVER_STATE_SERVING
        return STEADY_LOOK_S if fine else 1.0
