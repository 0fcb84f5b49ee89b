"""The environment of the embedded Airflow: one function, all settings.  Starts nothing and imports no Airflow.

Which setting has which effect was measured: `docs/configuration.md`.  What a user's shell says about Airflow does not
reach the embedded one: `without_airflow` removes it.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path

from api.cli.keys import Keys
from api.config import CLIENT_VARIABLES, Config
from api.kubernetes_settings import IN_CLUSTER

ROOT = Path(__file__).resolve().parents[2]
POD = "pod.yaml"
"""In Airflow's home: what its tasks are made of where they are pods."""
LOCAL_BUNDLE = "airflow.dag_processing.bundles.local.LocalDagBundle"


def environment(config: Config, keys: Keys, *, inherited: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Return the whole environment of the platform: its configuration and Airflow's.  Each component gets its part."""
    return without_airflow(inherited) | config.environ() | {"MA_TOKEN": keys.token} | process() | airflow(config, keys)


def without_airflow(inherited: Mapping[str, str]) -> dict[str, str]:
    """Return an environment without Airflow's variables."""
    return {name: value for name, value in inherited.items() if not name.startswith("AIRFLOW")}


def of_api(whole: Mapping[str, str]) -> dict[str, str]:
    """Return what the API server gets: nothing of Airflow's, whose keys it does not use."""
    return without_airflow(whole)


def of_serving(whole: Mapping[str, str]) -> dict[str, str]:
    """Return what the inference server gets."""
    return without_airflow(of_airflow(whole))


def of_airflow(whole: Mapping[str, str]) -> dict[str, str]:
    """Return what Airflow and its tasks get: not the store's address, which may hold a password, nor how calls are
    let in.

    What they have of the platform they have by the API.
    """
    server_only = Config(Path(), Path()).environ().keys() - CLIENT_VARIABLES
    return {name: value for name, value in whole.items() if name not in server_only}


def process() -> dict[str, str]:
    """Return what any Python process of the platform needs: our packages, plain output, no proxy for loopback."""
    return {
        "PYTHONPATH": str(ROOT),
        "PYTHONUNBUFFERED": "1",
        "PATH": os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath))),
        "NO_PROXY": "127.0.0.1,localhost",
        "no_proxy": "127.0.0.1,localhost",
        "NO_COLOR": "1",
    }


def airflow(config: Config, keys: Keys) -> dict[str, str]:
    """Return Airflow's variables (`AIRFLOW_HOME`, `AIRFLOW__SECTION__KEY`) for a platform of this configuration."""
    sections = {
        "core": _core(config, keys),
        "database": {"sql_alchemy_conn": f"sqlite:///{config.airflow_home}/airflow.db"},
        "api": _api(config),
        "api_auth": {"jwt_secret": keys.jwt_secret},
        "scheduler": _scheduler(config),
        "triggerer": {"triggerer_health_check_threshold": "20"},
        "workers": _workers(config),
        "dag_processor": _dag_processor(config),
        "logging": _logging(config),
        **_executor(config),
        **_coordinator(),
        "usage_data_collection": {"enabled": "False"},
    }
    settings = {
        f"AIRFLOW__{section.upper()}__{key.upper()}": value
        for section, values in sections.items()
        for key, value in values.items()
    }
    return {"AIRFLOW_HOME": str(config.airflow_home), **settings}


def _core(config: Config, keys: Keys) -> dict[str, str]:
    return {
        "executor": _executor_class(config),
        "parallelism": "6",
        "fernet_key": keys.fernet_key,
        "auth_manager": "airflow.api_fastapi.auth.managers.simple.simple_auth_manager.SimpleAuthManager",
        "simple_auth_manager_all_admins": "True",
        "dags_folder": str(ROOT / "dags"),
        "plugins_folder": str(ROOT / "plugins"),
        "load_examples": "False",
        "dags_are_paused_at_creation": "False",
        "execution_api_server_url": f"{config.airflow_url}/execution/",
        # 0: an apply that follows another within seconds is not put off.
        "min_serialized_dag_update_interval": "0",
    }


def _is_warm(config: Config) -> bool:
    """Whether our executor runs the tasks: it waits for the end of processes as Linux tells it."""
    return sys.platform == "linux" and not config.airflow.in_pods


def _executor_class(config: Config) -> str:
    if config.airflow.in_pods:
        return "KubernetesExecutor"
    return "operators.warm_executor.WarmExecutor" if _is_warm(config) else "LocalExecutor"


def _coordinator() -> dict[str, dict[str, str]]:
    """Return who waits for a task's process; Airflow's own where Linux does not tell of its end."""
    if sys.platform != "linux":
        return {}
    return {
        "sdk": {
            "coordinators": json.dumps({"tasks": {"classpath": "operators.task_exit.TaskCoordinator"}}),
            "queue_to_coordinator": json.dumps({"default": "tasks"}),
        }
    }


def _executor(config: Config) -> dict[str, dict[str, str]]:
    """Return how tasks become pods; nothing for tasks that are processes."""
    settings = config.kubernetes
    if not config.airflow.in_pods:
        return {}
    inside = settings.config == IN_CLUSTER
    found = {
        "namespace": settings.namespace,
        "in_cluster": str(inside),
        "pod_template_file": str(config.airflow_home / POD),
        "worker_pods_creation_batch_size": "8",
        **({} if inside else {"config_file": settings.config}),
        **({"cluster_context": settings.context} if settings.context else {}),
    }
    return {"kubernetes_executor": found}


def _api(config: Config) -> dict[str, str]:
    return {
        "host": "127.0.0.1",
        "port": str(config.airflow_port),
        "base_url": config.airflow_url,
        "workers": "1",
    }


def _scheduler(config: Config) -> dict[str, str]:
    return {
        # The warm executor waits itself, until there is something to do.
        "scheduler_idle_sleep_time": "0" if _is_warm(config) else "0.1",
        # A worker that died is noticed after 30 + 5 s, a scheduler that was killed after 20 + 10 s.
        "task_instance_heartbeat_timeout": "30",
        "task_instance_heartbeat_timeout_detection_interval": "5",
        "scheduler_health_check_threshold": "20",
        "orphaned_tasks_check_interval": "10",
        "trigger_timeout_check_interval": "5",
        "parsing_cleanup_interval": "10",
    }


def _workers(config: Config) -> dict[str, str]:
    return {
        "min_heartbeat_interval": "1",
        # One heartbeat a second: a restart of Airflow's API server must not cost the running tasks.
        "max_failed_heartbeats": "60",
        "missing_dag_retry_delay": "5",
        # Pods begin many at a time, and each asks at once.
        **({"execution_api_timeout": "30"} if config.airflow.in_pods else {}),
    }


def _dag_processor(config: Config) -> dict[str, str]:
    bundles = {"templates": ROOT / "dags", "projects": config.dags_path}
    if config.own_dags is not None:
        bundles["own"] = config.own_dags
    listed = [
        {"name": name, "classpath": LOCAL_BUNDLE, "kwargs": {"path": str(path), "refresh_interval": 5}}
        for name, path in bundles.items()
    ]
    return {
        "dag_bundle_config_list": json.dumps(listed),
        "refresh_interval": "5",
        "bundle_refresh_check_interval": "1",
        # Whatever changes a file asks for it.
        "min_file_process_interval": "900",
        # What a parse does not show any more is gone if it was shown longer ago than this, not if it came just now.
        "stale_dag_threshold": "5",
    }


def _logging(config: Config) -> dict[str, str]:
    logs = config.airflow_home / "logs"
    return {
        "base_log_folder": str(logs),
        "dag_processor_child_process_log_directory": str(logs / "dag_processor"),
        "colored_console_log": "False",
        "file_task_handler_new_folder_permissions": "0o700",
        "file_task_handler_new_file_permissions": "0o600",
    }
