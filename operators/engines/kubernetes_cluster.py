"""The one door to a Kubernetes API server: Jobs and pods of one namespace as plain JSON.  Knows no job of ours.

Sending a request again is the caller's part: each is one try of a few seconds.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from api.kubernetes_settings import IN_CLUSTER, KubernetesSettings

TIMEOUTS_S = (3.0, 10.0)
NOT_FOUND, CONFLICT = 404, 409


class ClusterAway(OSError):
    """The API server does not answer: another try may help."""


class ClusterRefused(RuntimeError):
    """The API server refuses what was asked, and says why."""


class Cluster:
    """A namespace of the cluster of the settings.  Methods raise ClusterAway, ClusterRefused."""

    def __init__(self, settings: KubernetesSettings) -> None:
        import kubernetes

        self._errors: Any = kubernetes.client.exceptions
        self._namespace = settings.namespace
        configuration = kubernetes.client.Configuration()
        try:
            if settings.config == IN_CLUSTER:
                kubernetes.config.load_incluster_config(client_configuration=configuration)
            else:
                kubernetes.config.load_kube_config(
                    settings.config,
                    context=settings.context or None,
                    client_configuration=configuration,
                    persist_config=False,
                )
        except kubernetes.config.ConfigException as error:
            raise ClusterRefused(f"MA_KUBERNETES cannot be used: {error}") from error
        configuration.retries = False
        client = kubernetes.client.ApiClient(configuration)
        self._batch = kubernetes.client.BatchV1Api(client)
        self._core = kubernetes.client.CoreV1Api(client)

    def create_job(self, manifest: Mapping[str, Any]) -> bool:
        """Create a Job; False if there is one of that name."""
        return self._ask(self._batch.create_namespaced_job, self._namespace, dict(manifest), but=CONFLICT) is not None

    def jobs(self, selector: str) -> Sequence[Mapping[str, Any]]:
        """Return the Jobs with the labels of a selector."""
        return self._items(self._batch.list_namespaced_job, label_selector=selector)

    def pods(self, selector: str) -> Sequence[Mapping[str, Any]]:
        """Return the pods with the labels of a selector."""
        return self._items(self._core.list_namespaced_pod, label_selector=selector)

    def events(self, uid: str) -> Sequence[Mapping[str, Any]]:
        """Return what the cluster noted of an object."""
        return self._items(self._core.list_namespaced_event, field_selector=f"involvedObject.uid={uid}")

    def delete_job(self, name: str) -> None:
        """Delete a Job, if it is there; its pods are left to the cluster."""
        delete = self._batch.delete_namespaced_job
        self._ask(delete, name, self._namespace, propagation_policy="Background", but=NOT_FOUND)

    def delete_pod(self, name: str, grace_s: int) -> None:
        """Ask a pod to end, if it is there, and have it killed after `grace_s`."""
        delete = self._core.delete_namespaced_pod
        self._ask(delete, name, self._namespace, grace_period_seconds=grace_s, but=NOT_FOUND)

    def log(self, pod: str, container: str, lines: int) -> str:
        """Return the last lines that a container printed, empty if there are none."""
        try:
            asked = self._core.read_namespaced_pod_log
            found = self._answer(asked, pod, self._namespace, container=container, tail_lines=lines)
        except ClusterRefused:
            # It has not begun, or its machine is gone.
            return ""
        return bytes(found).decode(errors="replace")

    def _items(self, ask: Callable[..., Any], **asked: Any) -> Sequence[Mapping[str, Any]]:
        return self._ask(ask, self._namespace, **asked).get("items") or ()

    def _ask(self, ask: Callable[..., Any], *arguments: Any, but: int = 0, **asked: Any) -> Any:
        """Return the answer as JSON; None for an answer of the status `but`."""
        try:
            return json.loads(self._answer(ask, *arguments, **asked))
        except ClusterRefused as error:
            if but and isinstance(error.__cause__, self._errors.ApiException) and error.__cause__.status == but:
                return None
            raise

    def _answer(self, ask: Callable[..., Any], *arguments: Any, **asked: Any) -> bytes:
        import urllib3

        try:
            answer = ask(*arguments, **asked, _preload_content=False, _request_timeout=TIMEOUTS_S)
            data: bytes = answer.data
        except self._errors.ApiException as error:
            if not error.status or error.status >= 500 or error.status == 429:
                raise ClusterAway(f"Kubernetes does not answer: {error.status} {error.reason}") from error
            raise ClusterRefused(_told(error)) from error
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise ClusterAway(f"Kubernetes cannot be reached: {type(error).__name__}: {error}") from error
        return data


def _told(error: Any) -> str:
    try:
        message = json.loads(error.body)["message"]
    except (TypeError, ValueError, KeyError):
        message = error.reason
    return f"Kubernetes refuses ({error.status}): {message}"
