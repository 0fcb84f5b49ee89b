"""A job as Kubernetes' objects: what is created, and what its pods' states mean.  Pure; calls nobody."""

from __future__ import annotations

import copy
import hashlib
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from api.kubernetes_settings import NOT_PINNED, PINNED, KubernetesSettings
from operators.engines.base import JobSpec
from operators.jobs.evidence import signal_name

JOB_LABEL = "michelangelo.airflow/job"
ATTEMPT = "michelangelo.airflow/attempt"
JOB_ID = "michelangelo.airflow/job-id"
CONTAINER = "job"
PROGRAM = ("python", "-m", "operators.jobs.run_in_pod")
HOME = "/tmp/ma"  # noqa: S108  # of the pod alone
GPU = "nvidia.com/gpu"
KEPT_S = 3600
# The job ends itself at its timeout and says where it stood; Kubernetes ends what does not.
AFTER_TIMEOUT_S = 15
GRACE_S = 1
LONGEST_SLUG = 30
USUAL = ("ContainerCreating", "PodInitializing", "")
EVICTED = ("Evicted", "NodeLost", "NodeShutdown", "Shutdown", "Terminated", "Preempting", "Preempted", "NodeAffinity")


def key_of(job_id: str, artifacts_url: str) -> str:
    """Return what a job's objects are found by: the same for every submitter of one platform."""
    return hashlib.sha256(f"{artifacts_url}#{job_id}".encode()).hexdigest()[:20]


def name_of(job_id: str, key: str, attempt: int) -> str:
    """Return the name of a Job, at most 63 characters: the same whoever submits the attempt."""
    slug = re.sub(r"[^a-z0-9]+", "-", job_id.rpartition("-")[0].lower() or job_id.lower())[:LONGEST_SLUG].strip("-")
    return "-".join(part for part in ("ma", slug, key[:16], str(attempt)) if part)


def image_of(spec: JobSpec, settings: KubernetesSettings) -> str:
    """Return the image of a job.  Raises ValueError if none is named, or one that may change."""
    named = str((spec.environment or {}).get("image") or settings.image)
    if not named:
        raise ValueError("no image: set MA_KUBERNETES_IMAGE, or give the task environment={'image': 'name@sha256:…'}")
    if PINNED.match(named) is None:
        raise ValueError(f"the image {NOT_PINNED}; not {named[:200]!r}")
    return named


def manifest(
    spec: JobSpec,
    settings: KubernetesSettings,
    template: Mapping[str, Any],
    *,
    key: str,
    attempt: int,
    url: str,
    variables: Mapping[str, str],
) -> dict[str, Any]:
    """Return the Job of an attempt.  template: of its pod; url: of the attempt in the artifact store."""
    labels = {JOB_LABEL: key, "app.kubernetes.io/managed-by": "michelangelo"}
    annotations = {JOB_ID: spec.job_id, ATTEMPT: str(attempt)}
    given = template.get("metadata") or {}
    metadata = {
        "labels": {**(given.get("labels") or {}), **labels},
        "annotations": {**(given.get("annotations") or {}), **annotations},
    }
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": name_of(spec.job_id, key, attempt),
            "namespace": settings.namespace,
            "labels": labels,
            "annotations": annotations,
        },
        "spec": {
            "backoffLimit": 0,
            "completions": 1,
            "parallelism": 1,
            "ttlSecondsAfterFinished": KEPT_S,
            "template": {
                "metadata": metadata,
                "spec": _pod(spec, settings, template.get("spec") or {}, url, variables),
            },
        },
    }


def _pod(
    spec: JobSpec, settings: KubernetesSettings, given: Mapping[str, Any], url: str, variables: Mapping[str, str]
) -> dict[str, Any]:
    pod = copy.deepcopy(dict(given))
    containers = list(pod.get("containers") or ())
    mine: dict[str, Any] = next((each for each in containers if each.get("name") == CONTAINER), {"name": CONTAINER})
    beside = [each for each in containers if each.get("name") != CONTAINER]
    own = [{"name": name, "value": value} for name, value in {**variables, "MA_HOME": HOME}.items()]
    said = [each for each in mine.get("env") or () if each.get("name") not in {each["name"] for each in own}]
    mine |= {
        "image": image_of(spec, settings),
        "command": list(PROGRAM),
        "args": [url],
        "env": [*own, *said],
        "resources": _resources(spec, mine.get("resources") or {}),
    }
    mine.setdefault("securityContext", {}).setdefault("allowPrivilegeEscalation", False)
    pod |= {"containers": [mine, *beside], "restartPolicy": "Never"}
    # A user's code is given no rights in the cluster unless the template says so.
    pod.setdefault("automountServiceAccountToken", False)
    pod.setdefault("terminationGracePeriodSeconds", 2)
    if spec.timeout_s:
        pod["activeDeadlineSeconds"] = math.ceil(spec.timeout_s) + AFTER_TIMEOUT_S
    return pod


def _resources(spec: JobSpec, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return requests and limits: the same, so that a job has what it was promised and no more."""
    asked: dict[str, str] = {}
    if cpu := spec.resources.get("cpu"):
        asked["cpu"] = f"{math.ceil(float(cpu) * 1000)}m"
    if memory := spec.resources.get("memory") or spec.memory_mib:
        asked["memory"] = f"{int(memory)}Mi"
    if gpu := spec.resources.get("gpu"):
        asked[GPU] = str(int(gpu))
    return {name: {**(given.get(name) or {}), **asked} for name in ("requests", "limits")}


def attempt_of(job: Mapping[str, Any]) -> int:
    """Return the number of a Job's attempt, 0 for a Job of somebody else."""
    text = str((job["metadata"].get("annotations") or {}).get(ATTEMPT, ""))
    return int(text) if text.isascii() and text.isdigit() else 0


def ended(job: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return the condition by which a Job has ended, None if it goes on."""
    conditions = (job.get("status") or {}).get("conditions") or ()
    return next(
        (each for each in conditions if each["type"] in ("Complete", "Failed") and each["status"] == "True"), None
    )


def pending(pods: Sequence[Mapping[str, Any]], events: Sequence[Mapping[str, Any]]) -> tuple[str, str]:
    """Return reason and message of a job that has not begun, both empty for one that has or is about to."""
    if not pods:
        failed = [each for each in events if each.get("type") == "Warning"]
        return (str(failed[-1].get("reason") or ""), str(failed[-1].get("message") or "")) if failed else ("", "")
    status = pods[-1].get("status") or {}
    if status.get("phase") != "Pending":
        return "", ""
    for each in [*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())]:
        waiting = (each.get("state") or {}).get("waiting") or {}
        if waiting.get("reason", "") not in USUAL:
            told = waiting.get("message") or f"the image is {each.get('image')}"
            return str(waiting["reason"]), str(told)
    for each in status.get("conditions") or ():
        if each["type"] == "PodScheduled" and each["status"] == "False":
            return str(each.get("reason") or "Unschedulable"), str(each.get("message") or "")
    return "", ""


def at_rest(pods: Sequence[Mapping[str, Any]], *, begun: bool) -> bool:
    """Whether no container of pods works any more; begun: one has begun, whatever they say yet."""
    return all(_rests(pod.get("status") or {}, begun) for pod in pods)


def _rests(status: Mapping[str, Any], begun: bool) -> bool:
    if status.get("phase") in ("Failed", "Succeeded"):
        return True
    states = [each.get("state") or {} for each in status.get("containerStatuses") or ()]
    if begun:
        return bool(states) and all("terminated" in state for state in states)
    return not any("running" in state for state in states)


def end_of(pods: Sequence[Mapping[str, Any]], job: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return how a job's pod ended, as evidence: pod, node, reason, message, exit code, signal."""
    found: dict[str, Any] = {}
    for pod in pods:
        status = pod.get("status") or {}
        states = [each for each in status.get("containerStatuses") or () if each.get("name") == CONTAINER]
        terminated = next((each["state"].get("terminated") for each in states if each.get("state")), None) or {}
        code = terminated.get("exitCode")
        number = code - 128 if code is not None and 128 < code < 160 else terminated.get("signal") or 0
        told = {
            "pod": pod["metadata"]["name"],
            "node": (pod.get("spec") or {}).get("nodeName"),
            "reason": status.get("reason") or terminated.get("reason"),
            "message": status.get("message") or terminated.get("message"),
            "code": code,
            "signal": signal_name(number) if number else None,
        }
        found = {name: value for name, value in told.items() if value not in (None, "")}
    condition = ended(job) if job else None
    if condition is not None and not found.get("reason"):
        found |= {"reason": condition.get("reason"), "message": condition.get("message")}
    return found


def told(end: Mapping[str, Any], spec: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a pod's end adds to how the job ended, as `api.evidence` has it: signal, limit, asked, message."""
    reason, found = end.get("reason"), {name: end[name] for name in ("signal", "code") if name in end}
    if "signal" in found:
        found.pop("code", None)
    if reason == "OOMKilled":
        memory = (spec.get("resources") or {}).get("memory") or spec.get("memory_mib") or 0
        limit = f"its limit of {memory:g} MiB" if memory else "the memory of its node"
        return {**found, "signal": "SIGKILL", "limit": "memory", "message": f"OOMKilled: it needed more than {limit}"}
    if reason == "DeadlineExceeded":
        seconds = float(spec.get("timeout_s") or 0)
        own = f"it ran longer than its timeout of {seconds:g} s" if seconds else f"{reason}: {end.get('message')}"
        return {**found, "limit": "timeout", "message": own}
    if reason in EVICTED:
        return {**found, "signal": "SIGTERM", "message": f"{reason}: {end.get('message') or 'its node gave it up'}"}
    return found
