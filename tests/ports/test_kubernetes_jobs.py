"""A job as Kubernetes' objects, and what a real cluster answered about jobs: nothing here is made up by hand.

`kubernetes_answers.json` is what `tests/robustness/test_kubernetes.py` read from a node, without ids and times.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from api.kubernetes_settings import KubernetesSettings
from api.verdicts.judging import Place, verdict
from operators.engines import kubernetes_jobs as objects
from operators.engines.base import JobSpec

ANSWERS = json.loads(Path(__file__).with_name("kubernetes_answers.json").read_text())
IMAGE = f"registry.example/platform@sha256:{'a' * 64}"
SETTINGS = KubernetesSettings(config="in-cluster", namespace="ml", image=IMAGE)
SPEC = JobSpec("fit-0123456789abcdef", "python_task", {}, 90, 2048, {"cpu": 0.5, "gpu": 1, "memory": 2048})


def made(spec: JobSpec = SPEC, template: Any = None, attempt: int = 1) -> Any:
    given: dict[str, Any] = {
        "key": objects.key_of(spec.job_id, "s3://b/ma"),
        "attempt": attempt,
        "variables": {"MA_ARTIFACTS": "s3://b"},
    }
    return objects.manifest(spec, SETTINGS, template or {}, url="s3://b/ma/jobs/fit/1", **given)


def container(job: Any) -> Any:
    return job["spec"]["template"]["spec"]["containers"][0]


def test_what_a_step_asks_for_is_requested_and_is_its_limit() -> None:
    asked = {"cpu": "500m", "memory": "2048Mi", "nvidia.com/gpu": "1"}
    assert container(made())["resources"] == {"requests": asked, "limits": asked}
    assert container(made(replace(SPEC, resources={}, memory_mib=0)))["resources"] == {"requests": {}, "limits": {}}


def test_kubernetes_ends_what_does_not_end_itself_at_its_timeout() -> None:
    pod = made()["spec"]["template"]["spec"]
    assert pod["activeDeadlineSeconds"] == 90 + objects.AFTER_TIMEOUT_S
    assert "activeDeadlineSeconds" not in made(replace(SPEC, timeout_s=0))["spec"]["template"]["spec"]


def test_a_job_has_one_name_whoever_makes_it_and_another_for_each_attempt() -> None:
    assert made()["metadata"]["name"] == made()["metadata"]["name"]
    names = {made(attempt=number)["metadata"]["name"] for number in (1, 2)}
    names |= {made(replace(SPEC, job_id=f"{'Very_long.Name' * 20}-{'0' * 16}"))["metadata"]["name"]}
    names |= {made(replace(SPEC, job_id="___-0"))["metadata"]["name"]}
    assert len(names) == 4
    for name in names:
        assert len(name) <= 63
        assert name.replace("-", "a").isalnum()
        assert name == name.lower().strip("-")
    assert objects.key_of("fit", "s3://one") != objects.key_of("fit", "s3://two"), "two platforms share a namespace"


def test_a_job_is_tried_once_and_its_pod_has_no_rights_in_the_cluster() -> None:
    job = made()
    assert job["spec"]["backoffLimit"] == 0
    assert job["spec"]["template"]["spec"]["restartPolicy"] == "Never"
    assert job["spec"]["template"]["spec"]["automountServiceAccountToken"] is False
    assert container(job)["securityContext"] == {"allowPrivilegeEscalation": False}


def test_a_template_is_completed_and_not_overruled() -> None:
    template = {
        "metadata": {"labels": {"team": "a", objects.JOB_LABEL: "mine"}},
        "spec": {
            "nodeSelector": {"pool": "gpu"},
            "serviceAccountName": "trainer",
            "automountServiceAccountToken": True,
            "containers": [
                {"name": "beside", "image": "proxy"},
                {
                    "name": "job",
                    "image": "other",
                    "command": ["sh"],
                    "env": [{"name": "AWS_REGION", "value": "eu"}, {"name": "MA_HOME", "value": "/root"}],
                    "resources": {"requests": {"ephemeral-storage": "1Gi"}},
                },
            ],
        },
    }
    before = json.dumps(template)
    job = made(template=template)
    pod, own = job["spec"]["template"]["spec"], container(job)
    assert json.dumps(template) == before
    assert (pod["nodeSelector"], pod["serviceAccountName"], pod["automountServiceAccountToken"]) == (
        {"pool": "gpu"},
        "trainer",
        True,
    )
    assert (own["name"], own["image"], own["command"]) == ("job", IMAGE, list(objects.PROGRAM))
    env = {each["name"]: each["value"] for each in own["env"]}
    assert len(env) == len(own["env"])
    assert env == {"MA_ARTIFACTS": "s3://b", "MA_HOME": objects.HOME, "AWS_REGION": "eu"}
    assert own["resources"]["requests"] == {
        "ephemeral-storage": "1Gi",
        "cpu": "500m",
        "memory": "2048Mi",
        objects.GPU: "1",
    }
    assert [each["name"] for each in pod["containers"]] == ["job", "beside"]
    labels = job["spec"]["template"]["metadata"]["labels"]
    assert labels["team"] == "a"
    assert labels[objects.JOB_LABEL] == job["metadata"]["labels"][objects.JOB_LABEL] != "mine"


def test_an_image_is_that_of_the_step_or_of_the_settings_and_always_pinned() -> None:
    own = f"other/image@sha256:{'b' * 64}"
    assert container(made(replace(SPEC, environment={"image": own})))["image"] == own
    for image in ("python:3.11", "python@sha256:abc", f"python@sha256:{'a' * 64}\n"):
        with pytest.raises(ValueError, match="digest"):
            made(replace(SPEC, environment={"image": image}))
    with pytest.raises(ValueError, match="MA_KUBERNETES_IMAGE"):
        objects.image_of(SPEC, KubernetesSettings(config="in-cluster"))


@pytest.mark.parametrize(
    ("name", "reason", "told"),
    [
        ("unschedulable", "Unschedulable", "Insufficient cpu"),
        ("image", "ImagePullBackOff", "Back-off pulling image"),
        ("quota", "FailedCreate", "exceeded quota"),
        ("running", "", ""),
        ("oom", "", ""),
        ("exit", "", ""),
    ],
)
def test_what_a_job_waits_for_is_told_with_the_clusters_own_reason(name: str, reason: str, told: str) -> None:
    found = objects.pending(ANSWERS[name]["pods"], ANSWERS[name]["events"])
    assert found[0] == reason
    assert told in found[1]


@pytest.mark.parametrize("name", ["unschedulable", "image", "quota", "running"])
def test_a_job_that_waits_or_runs_has_not_ended(name: str) -> None:
    assert objects.ended(ANSWERS[name]["job"]) is None
    assert objects.at_rest(ANSWERS[name]["pods"], begun=False) is (name != "running")
    assert objects.at_rest([], begun=True)


@pytest.mark.parametrize(
    ("name", "found", "told"),
    [
        ("oom", "OUT_OF_MEMORY", "OOMKilled: it needed more than its limit of 2048 MiB"),
        ("deadline", "TIMEOUT", "it ran longer than its timeout of 90 s"),
        ("exit", "USER_CODE", "status 7"),
    ],
)
def test_how_a_pod_ended_gets_the_right_verdict(name: str, found: str, told: str) -> None:
    """Without anything of the job's own: its pod was gone before it could say a word."""
    answer = ANSWERS[name]
    assert objects.ended(answer["job"]) is not None
    assert objects.at_rest(answer["pods"], begun=True)
    end = objects.end_of(answer["pods"], answer["job"])
    assert end["node"]
    evidence = {"ended": objects.told(end, {"timeout_s": 90, "resources": {"memory": 2048}}), "kubernetes": end}
    judged = verdict(evidence, Place("shop", "train", "train-1", step="fit", task="fit")).plain()
    assert judged["class"] == found
    assert told in json.dumps(judged)


def test_a_job_whose_pod_is_gone_says_what_the_job_says() -> None:
    assert objects.end_of([], ANSWERS["exit"]["job"])["reason"] == "BackoffLimitExceeded"
    assert objects.end_of([], None) == {}
