"""The Kubernetes engine on a real node: the contract of every engine, and what only a cluster does to a job."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from operators.engines.base import JobState
from operators.engines.kubernetes import KubernetesEngine
from operators.engines.kubernetes_cluster import ClusterAway
from tests.ports import test_engine_contract as contract
from tests.ports.test_engine_contract import PROGRAMS, Place, until
from tests.processes import lives
from tests.robustness import kubernetes_node

pytestmark = [
    pytest.mark.robustness,
    pytest.mark.skipif(bool(kubernetes_node.missing()), reason=kubernetes_node.missing() or "all there"),
]

CANCEL_S = 3.0
ENGINE = "kubernetes_job"

# What operators rely on holds here as it does for processes of this machine.
test_a_job_that_ignores_being_asked_is_killed = contract.test_a_job_that_ignores_being_asked_is_killed
test_cancelling_what_does_not_run_is_no_error = contract.test_cancelling_what_does_not_run_is_no_error
test_a_wrong_input_and_a_fault_of_the_system_are_told_apart = (
    contract.test_a_wrong_input_and_a_fault_of_the_system_are_told_apart
)
test_a_job_that_was_never_submitted_is_lost = contract.test_a_job_that_was_never_submitted_is_lost
test_submitting_again_finds_the_job_that_runs = contract.test_submitting_again_finds_the_job_that_runs
test_processes_that_submit_at_the_same_moment_start_one_job = (
    contract.test_processes_that_submit_at_the_same_moment_start_one_job
)
test_a_job_outlives_the_processes_that_submitted_it = contract.test_a_job_outlives_the_processes_that_submitted_it
test_a_killed_job_is_lost_and_runs_again = contract.test_a_killed_job_is_lost_and_runs_again
test_a_failed_job_runs_again_with_its_new_arguments = contract.test_a_failed_job_runs_again_with_its_new_arguments
test_a_result_is_kept_until_it_was_taken = contract.test_a_result_is_kept_until_it_was_taken
test_the_end_of_a_long_log_is_shown = contract.test_the_end_of_a_long_log_is_shown
test_a_wait_that_is_given_up_leaves_the_job_alone = contract.test_a_wait_that_is_given_up_leaves_the_job_alone


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[kubernetes_node.Node]:
    """One node for all tests of the file."""
    with kubernetes_node.running(tmp_path_factory.mktemp("node")) as made:
        yield made


class Far(Place):
    """A place whose jobs are pods of the node.  They write to its folder, which they see."""

    def processes(self) -> set[int]:
        """Return the first process of every pod and all below it that lives."""
        return {process for process in super().processes() if lives(process)}


@pytest.fixture
def place(node: kubernetes_node.Node, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    """Jobs of a namespace of their own."""
    monkeypatch.setattr(contract, "LONGEST_S", 300.0)
    namespace = f"t{time.monotonic_ns()}"
    node.kubectl("create", "namespace", namespace)
    until(lambda: "default" in node.kubectl("get", "serviceaccounts", "-n", namespace), "its service account")
    for name, value in {
        "MA_KUBERNETES": node.kubeconfig,
        "MA_KUBERNETES_NAMESPACE": namespace,
        "MA_KUBERNETES_IMAGE": node.image,
        "MA_KUBERNETES_POD": node.template(
            tmp_path / "pod.yaml", tmp_path, PYTHONPATH=f"{kubernetes_node.ROOT}:{PROGRAMS}"
        ),
        "MA_ARTIFACTS": tmp_path / "artifacts",
        "MA_HOME": tmp_path / "home",
        "PYTHONPATH": PROGRAMS,
    }.items():
        monkeypatch.setenv(name, str(value))
    made = Far(ENGINE, tmp_path)
    yield made
    for job_id in set(made.submitted):
        made.engine.cancel(job_id)
    node.kubectl("delete", "namespace", namespace, "--wait=false")


def pods(node: kubernetes_node.Node) -> list[Any]:
    """Return the pods of the test's namespace."""
    found = node.kubectl("get", "pods", "-n", os.environ["MA_KUBERNETES_NAMESPACE"], "-o", "json")
    return list(json.loads(found or "{}").get("items", ()))


def told(place: Place, job_id: str) -> dict[str, str]:
    """Return what a job is said to wait for, once something is said."""
    path = place.folder / "artifacts" / "jobs" / job_id / "pending.json"

    async def looked() -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(place.engine.wait(job_id), 2.0)

    deadline = time.monotonic() + 120
    while True:
        asyncio.run(looked())
        found: dict[str, str] = json.loads(path.read_text()) if path.exists() else {}
        if found or time.monotonic() > deadline:
            return found


def test_a_job_gives_its_outputs_and_shows_what_it_printed(place: Place) -> None:
    given: dict[str, Any] = {"text": "{{ 7*7 }} $(id) $(MA_HOME)\n\u2028é", "number": 0.1, "list": [1, None, True]}
    place.submit(**given)
    assert place.engine.result("job").state is JobState.RUNNING
    result = place.ended()
    assert result.state is JobState.SUCCEEDED, place.engine.log("job")
    got = json.loads(result.outputs["args"])
    assert {name: got[name] for name in given} == given
    assert "hello" in place.engine.log("job")
    assert place.engine.result("job") == result


def test_a_program_sees_no_secret_of_the_platform(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AIRFLOW__CORE__FERNET_KEY", "MA_TOKEN", "MA_KUBERNETES_CONTEXT"):
        monkeypatch.setenv(name, "canary" if name != "MA_KUBERNETES_CONTEXT" else "")
    place.submit("environment")
    seen = json.loads(place.ended().outputs["environment"])
    assert "canary" not in seen.values()
    assert "MA_KUBERNETES" not in seen
    assert not Path("/var/run/secrets/kubernetes.io").exists()


def test_a_cancelled_job_leaves_no_process(place: Place, node: kubernetes_node.Node) -> None:
    """And it is gone within 3 seconds on a machine that has nothing else to do: the figure is printed."""
    place.submit("family", children=3)
    pids = place.pids()
    began = time.monotonic()
    place.engine.cancel("job")
    until(lambda: not [pid for pid in pids if lives(pid)], "processes of a cancelled job")
    print(f"cancelled after {time.monotonic() - began:.2f} s, goal {CANCEL_S:g} s")
    assert place.engine.result("job").state is JobState.LOST
    assert place.engine.evidence("job")["ended"]["asked"] is True
    until(lambda: pods(node) == [], "pods of a cancelled job")


def test_a_job_over_its_memory_is_told_as_that(place: Place) -> None:
    spec = replace(place.spec("hungry", mib=400), resources={"memory": 128}, memory_mib=128)
    place.engine.submit(spec)
    result = place.ended()
    assert (result.state, result.message) == (JobState.LOST, "OOMKilled: it needed more than its limit of 128 MiB")
    found = place.engine.evidence("job")
    assert (found["ended"]["signal"], found["ended"]["limit"]) == ("SIGKILL", "memory")
    assert found["kubernetes"]["reason"] == "OOMKilled"
    assert found["began"]


def test_a_job_over_its_time_says_where_it_stood(place: Place) -> None:
    place.engine.submit(replace(place.spec("family"), timeout_s=3))
    result = place.ended()
    assert (result.state, result.message) == (JobState.FAILED, "it ran longer than its timeout of 3 s")
    found = place.engine.evidence("job")
    assert found["ended"]["limit"] == "timeout"
    assert any("family" in frame["file"] for frame in found["stack"])
    assert len(found["curve"]) > 3


def test_a_job_that_dies_without_a_word_has_its_exit_code(place: Place) -> None:
    place.submit("gone")
    assert place.ended().state is JobState.LOST
    assert place.engine.evidence("job")["ended"]["code"] == 7


def test_a_job_that_no_node_can_take_says_so_and_is_cancelled(place: Place) -> None:
    place.engine.submit(replace(place.spec(), resources={"cpu": 100}))
    found = told(place, "job")
    assert (found["reason"], "Insufficient cpu" in found["message"]) == ("Unschedulable", True)
    place.engine.cancel("job")
    assert place.engine.result("job").state is JobState.LOST
    assert place.runs() == 0


def test_an_image_that_is_not_there_is_told(place: Place) -> None:
    absent = f"127.0.0.1:1/none@sha256:{'0' * 64}"
    place.engine.submit(replace(place.spec(), environment={"image": absent}))
    assert told(place, "job")["reason"] in ("ErrImagePull", "ImagePullBackOff")


def test_a_job_beyond_the_quota_says_so(place: Place, node: kubernetes_node.Node) -> None:
    node.kubectl("create", "quota", "none", "--hard=pods=0", "-n", os.environ["MA_KUBERNETES_NAMESPACE"])
    # The quota is enforced as soon as the controllers have counted.
    counted = (
        "get",
        "quota",
        "none",
        "-n",
        os.environ["MA_KUBERNETES_NAMESPACE"],
        "-o",
        "jsonpath={.status.hard.pods}",
    )
    until(lambda: node.kubectl(*counted) == "0", "the quota")
    place.submit()
    found = told(place, "job")
    assert (found["reason"], "exceeded quota" in found["message"]) == ("FailedCreate", True)


def test_a_pod_in_place_of_a_deleted_one_does_no_work_again(place: Place, node: kubernetes_node.Node) -> None:
    place.submit("family")
    place.pids()
    (pod,) = pods(node)
    namespace = os.environ["MA_KUBERNETES_NAMESPACE"]
    node.kubectl("delete", "pod", pod["metadata"]["name"], "-n", namespace, "--grace-period=1", "--wait=false")
    assert place.ended().state is JobState.LOST
    assert place.runs() == 1
    place.submit()
    assert place.ended().state is JobState.SUCCEEDED, "the next try is another attempt"


def test_a_job_ends_though_nobody_can_look_meanwhile(place: Place, node: kubernetes_node.Node) -> None:
    """The API server is frozen while the job works; who waits goes on waiting."""
    place.submit("family")
    place.pids()
    server = node.processes["kube-apiserver"]

    async def waited() -> Any:
        waiting = asyncio.ensure_future(place.engine.wait("job"))
        await asyncio.sleep(1)
        server.send_signal(19)
        try:
            place.finish()
            await asyncio.sleep(12)
            with pytest.raises(ClusterAway):
                await asyncio.to_thread(place.engine.result, "job")
            assert not waiting.done()
        finally:
            server.send_signal(18)
        return await asyncio.wait_for(waiting, 240)

    assert asyncio.run(waited()).state is JobState.SUCCEEDED


def test_results_outlive_the_jobs_of_the_cluster(place: Place, node: kubernetes_node.Node) -> None:
    place.submit()
    result = place.ended()
    node.kubectl("delete", "jobs", "--all", "-n", os.environ["MA_KUBERNETES_NAMESPACE"], "--wait=true")
    assert place.engine.result("job") == result
    assert "hello" in place.engine.log("job")
    place.submit()
    assert place.runs() == 1
    place.engine.take("job")
    place.submit()
    assert place.ended().state is JobState.SUCCEEDED
    assert place.runs() == 2


def test_an_engine_keeps_nothing_but_how_to_ask(place: Place) -> None:
    engine = place.engine
    assert isinstance(engine, KubernetesEngine)
    place.submit()
    assert place.ended().state is JobState.SUCCEEDED
    assert engine.result("job").state is JobState.SUCCEEDED, "one that was there before sees what another submitted"
