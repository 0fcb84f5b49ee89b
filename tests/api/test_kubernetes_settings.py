"""Where jobs run beyond this machine, and where what they share lies: variables, and who sees them."""

from __future__ import annotations

from pathlib import Path

import pytest

from api.cli.airflow_env import of_airflow
from api.config import ConfigurationError, load

DIGEST = f"sha256:{'0' * 64}"
IMAGE = f"registry.example/team/michelangelo:1.2@{DIGEST}"


@pytest.fixture
def kubeconfig(tmp_path: Path) -> str:
    path = tmp_path / "kubeconfig"
    path.touch()
    return str(path)


def test_a_cluster_reaches_airflow_and_comes_back(kubeconfig: str) -> None:
    given = {
        "MA_KUBERNETES": kubeconfig,
        "MA_KUBERNETES_CONTEXT": "team",
        "MA_KUBERNETES_NAMESPACE": "ml-jobs",
        "MA_KUBERNETES_IMAGE": IMAGE,
        "MA_KUBERNETES_POD": kubeconfig,
        "MA_KUBERNETES_REGISTRIES": "ghcr.io/team,registry.example",
        "MA_ARTIFACTS": "s3://bucket/ma?endpoint_override=10.0.0.1:9000&scheme=http",
    }
    config = load(given)
    assert config.kubernetes.on
    assert given.items() <= of_airflow(config.environ()).items()
    again = load(config.environ())
    assert (again.kubernetes, again.artifacts_url) == (config.kubernetes, config.artifacts_url)


def test_there_is_no_cluster_unless_one_is_named() -> None:
    assert not load({}).kubernetes.on
    assert not load({"MA_KUBERNETES_IMAGE": IMAGE}).kubernetes.on
    assert load({"MA_KUBERNETES": "in-cluster"}).kubernetes.on


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("MA_KUBERNETES", "/nowhere/kubeconfig"),
        ("MA_KUBERNETES_NAMESPACE", "Team_A"),
        ("MA_KUBERNETES_NAMESPACE", "a" * 64),
        ("MA_KUBERNETES_IMAGE", "michelangelo:latest"),
        ("MA_KUBERNETES_IMAGE", "michelangelo@sha256:abc"),
        ("MA_KUBERNETES_IMAGE", f"michelangelo@{DIGEST} --privileged"),
        ("MA_KUBERNETES_POD", "/nowhere/pod.yaml"),
        ("MA_KUBERNETES_REGISTRIES", "https://ghcr.io/team"),
        ("MA_ARTIFACTS", "s3://"),
        ("MA_ARTIFACTS", "s3://bucket/ma?access_key=canary"),
        ("MA_ARTIFACTS", "s3://user:canary@bucket/ma"),
        ("MA_ARTIFACTS", "s3://bucket/ma?&&"),
    ],
)
def test_what_cannot_be_used_is_named_and_no_key_shown(name: str, value: str) -> None:
    with pytest.raises(ConfigurationError, match=f"^{name} ") as refused:
        load({name: value})
    assert "canary" not in str(refused.value)


def test_artifacts_are_at_home_unless_they_are_elsewhere(tmp_path: Path) -> None:
    assert load({"MA_HOME": str(tmp_path)}).values_url == str(tmp_path / "artifacts" / "values")
    assert load({"MA_ARTIFACTS": f"file://{tmp_path}"}).values_url == str(tmp_path / "values")
    there = load({"MA_ARTIFACTS": "s3://bucket/ma/?region=eu"})
    assert there.values_url == "s3://bucket/ma/values?region=eu"
