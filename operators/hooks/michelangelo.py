"""The platform's own API for operators: connection type `michelangelo`, and the few calls that stages make."""

from __future__ import annotations

import time
from typing import Any

from airflow.sdk import BaseHook

from api.client import Client
from api.config import load

TIMEOUT_S = 60.0


class MichelangeloHook(BaseHook):
    """Gives a client of the API: of a connection's host and port, or of this platform when there is none."""

    conn_name_attr = "conn_id"
    default_conn_name = "michelangelo_default"
    conn_type = "michelangelo"
    hook_name = "Michelangelo"

    def __init__(self, conn_id: str = "", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.conn_id = conn_id

    def get_conn(self) -> Client:
        """Return a client.  Raises AirflowNotFoundException for an unknown connection."""
        if not self.conn_id:
            return client()
        connection = self.get_connection(self.conn_id)
        address = f"{connection.host}:{connection.port or 15566}"
        return Client(address, timeout_s=TIMEOUT_S, token=connection.password or "", tls=load().tls)


def client() -> Client:
    """Return a client of this platform."""
    return Client.of(load(), timeout_s=TIMEOUT_S)


def rollout(namespace: str, deployment: str, revision: str) -> tuple[bool | None, str]:
    """Return whether `revision` is rolled out (None: not decided yet) and what the deployment says."""
    from api.gen.michelangelo.api.v2 import deployment_pb2

    with client() as api:
        found = api.get("Deployment", namespace, deployment)
    status = found.status
    if found.spec.desired_revision.name != revision:
        return False, f"another revision, {found.spec.desired_revision.name!r}, was desired meanwhile"
    if status.stage == deployment_pb2.DEPLOYMENT_STAGE_ROLLOUT_COMPLETE and status.current_revision.name == revision:
        return True, ""
    # A failure without this candidate is of an earlier rollout: the controller has not looked yet.
    if status.stage == deployment_pb2.DEPLOYMENT_STAGE_ROLLOUT_FAILED and status.candidate_revision.name == revision:
        return False, status.message
    return None, ""


def is_turn(api: Client, *, namespace: str, name: str, uid: str, project: str, most: int, not_before: float) -> bool:
    """Whether a TriggerRun may create its next run, or has been ended and asks for no more patience.

    most: of its runs that have not ended, 0 for any number; not_before: Unix time.
    """
    from api.gen.michelangelo.api.v2 import trigger_run_pb2 as wire

    trigger = api.find("TriggerRun", namespace, name)
    if trigger is None or trigger.metadata.uid != uid or trigger.spec.kill:
        return True
    if trigger.spec.action in (wire.TRIGGER_RUN_ACTION_KILL, wire.TRIGGER_RUN_ACTION_PAUSE):
        return bool(trigger.spec.action == wire.TRIGGER_RUN_ACTION_KILL)
    return time.time() >= not_before and (not most or unfinished(api, project, uid, most) < most)


def unfinished(api: Client, project: str, uid: str, most: int) -> int:
    """Return how many runs of a TriggerRun have not ended, at most `most`."""
    from api.gen.michelangelo.api.v2 import pipeline_run_pb2 as wire

    states = (wire.PIPELINE_RUN_STATE_INVALID, wire.PIPELINE_RUN_STATE_PENDING, wire.PIPELINE_RUN_STATE_RUNNING)
    selector, found = f"michelangelo.airflow/trigger={uid}", 0
    for state in states:
        found += len(api.list("PipelineRun", project, selector=selector, equal={"state": int(state)}, limit=most))
    return min(found, most)
