"""Where tasks of the embedded Airflow run: variables, who sees them, and what their pods are made of."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest
import yaml

from api.cli import keys
from api.cli.airflow_env import POD, environment
from api.cli.platform import task_pods
from api.config import Config, ConfigurationError, load

IMAGE = f"registry.example/platform@sha256:{'0' * 64}"


@pytest.fixture
def given(tmp_path: Path) -> dict[str, str]:
    """A configuration whose tasks are pods."""
    for name in ("kubeconfig", "task.yaml"):
        (tmp_path / name).write_text("spec: {hostNetwork: true, containers: [{name: base}]}")
    return {
        "MA_HOME": str(tmp_path / "home"),
        "MA_KUBERNETES": str(tmp_path / "kubeconfig"),
        "MA_KUBERNETES_NAMESPACE": "ml",
        "MA_KUBERNETES_IMAGE": IMAGE,
        "MA_AIRFLOW_EXECUTOR": "kubernetes",
        "MA_AIRFLOW_POD": str(tmp_path / "task.yaml"),
    }


def prepared(given: dict[str, str]) -> tuple[Config, dict[str, str]]:
    """Return the configuration and the environment of its platform, its folders made."""
    config = load(given)
    for folder in (config.home, config.run_path, config.airflow_home):
        folder.mkdir(parents=True, exist_ok=True)
    environ = environment(config, keys.ensure(config), inherited={"PATH": "/bin", "SHELL_SECRET": "canary"})
    task_pods.prepare(config, environ)
    return config, environ


def test_tasks_are_processes_unless_told_otherwise() -> None:
    config = load({})
    assert not config.airflow.in_pods
    environ = environment(config, keys.Keys("token", "fernet", "secret"), inherited={})
    assert "Kubernetes" not in environ["AIRFLOW__CORE__EXECUTOR"]
    assert not [name for name in environ if "KUBERNETES_EXECUTOR" in name]


def test_tasks_are_pods_where_that_is_asked_for(given: dict[str, str]) -> None:
    config, environ = prepared(given)
    assert load(config.environ()).airflow == config.airflow
    assert environ["AIRFLOW__CORE__EXECUTOR"] == "KubernetesExecutor"
    assert environ["AIRFLOW__KUBERNETES_EXECUTOR__NAMESPACE"] == "ml"
    assert environ["AIRFLOW__KUBERNETES_EXECUTOR__POD_TEMPLATE_FILE"] == str(config.airflow_home / POD)


def test_a_pod_has_its_keys_from_a_file_of_the_owner_and_not_in_its_spec(given: dict[str, str]) -> None:
    config, environ = prepared(given)
    text = (config.airflow_home / POD).read_text()
    pod = yaml.safe_load(text)
    (container,) = pod["spec"]["containers"]
    assert (container["name"], container["image"]) == ("base", IMAGE)
    assert pod["spec"]["hostNetwork"] is True
    assert pod["spec"]["automountServiceAccountToken"] is False
    fernet = environ["AIRFLOW__CORE__FERNET_KEY"]
    assert fernet not in text
    assert environ["MA_TOKEN"] not in text
    file = Path(container["command"][-1])
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    seen = json.loads(file.read_text())
    assert seen["AIRFLOW__CORE__FERNET_KEY"] == fernet
    assert seen["MA_HOME"] == str(config.home)
    assert "MA_STORE_URL" not in seen
    assert "canary" not in seen.values()


def test_the_command_of_a_pod_runs_with_the_variables_of_its_file(tmp_path: Path) -> None:
    import subprocess
    import sys

    (tmp_path / "variables").write_text(json.dumps({"MA_HOME": "there"}))
    show = "import os; print(os.environ['MA_HOME'], os.environ['OF_POD'])"
    ended = subprocess.run(
        [sys.executable, "-m", task_pods.MODULE, str(tmp_path / "variables"), sys.executable, "-c", show],
        env={"MA_HOME": "here", "OF_POD": "kept", "PATH": "/bin"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert ended.stdout.split() == ["there", "kept"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("MA_AIRFLOW_EXECUTOR", "CeleryExecutor"),
        ("MA_AIRFLOW_POD", ""),
        ("MA_AIRFLOW_POD", "/nowhere/task.yaml"),
        ("MA_KUBERNETES", ""),
        ("MA_KUBERNETES_IMAGE", ""),
    ],
)
def test_what_cannot_be_used_is_named(given: dict[str, str], name: str, value: str) -> None:
    with pytest.raises(ConfigurationError, match=rf"(^|; ){name} is"):
        load({**given, name: value})


@pytest.mark.parametrize("text", ["[1]", "spec: 1", "a: [", "spec: {containers: [{name: other}]}", ""])
def test_a_template_that_is_no_pod_is_refused(given: dict[str, str], text: str) -> None:
    Path(given["MA_AIRFLOW_POD"]).write_text(text)
    with pytest.raises(ValueError, match=r"^MA_AIRFLOW_POD .*task\.yaml"):
        prepared(given)
