"""Where tasks of the embedded Airflow run, `MA_AIRFLOW_EXECUTOR`: processes of this machine, or pods.  Starts none."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

LOCAL, KUBERNETES = "local", "kubernetes"
EXECUTORS = (LOCAL, KUBERNETES)


@dataclass(frozen=True)
class AirflowSettings:
    """executor: local or kubernetes; pod: path of the template of a task's pod, YAML; `docs/kubernetes.md`."""

    executor: str = LOCAL
    pod: Path | None = None

    @property
    def in_pods(self) -> bool:
        """Whether each task is a pod of the cluster of `MA_KUBERNETES`."""
        return self.executor == KUBERNETES

    def environ(self) -> dict[str, str]:
        """Return the variables from which `read` gives this value again."""
        return {"MA_AIRFLOW_EXECUTOR": self.executor, "MA_AIRFLOW_POD": str(self.pod or "")}


def read(environ: Mapping[str, str], faults: list[str]) -> AirflowSettings:
    """Return the settings; `faults` gets a line for each variable that cannot be used."""
    executor, pod = environ.get("MA_AIRFLOW_EXECUTOR") or LOCAL, environ.get("MA_AIRFLOW_POD", "")
    if executor not in EXECUTORS:
        faults.append(f"MA_AIRFLOW_EXECUTOR is {' or '.join(EXECUTORS)}, not {executor[:64]!r}")
        executor = LOCAL
    found = AirflowSettings(executor, Path(pod).absolute() if pod else None)
    if found.in_pods:
        needed = ("MA_KUBERNETES", "MA_KUBERNETES_IMAGE", "MA_AIRFLOW_POD")
        faults += [f"{name} is missing: MA_AIRFLOW_EXECUTOR is kubernetes" for name in needed if not environ.get(name)]
    if found.pod is not None and not found.pod.is_file():
        faults.append(f"MA_AIRFLOW_POD is the path of a pod template: there is no file {str(found.pod)[:200]!r}")
    return found
