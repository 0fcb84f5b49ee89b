"""Spark sessions: on this machine, on a master, or by Spark Connect.  The one door to pyspark; runs no step.

Spark's JVM is started here and not by pyspark's scripts: they need bash, and a module that small builds of Java lack.
It ends when the process that started it does, however that ends: its standard input is a pipe of that process.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from api.demands import LEAST_SPARK_MIB
from api.engine_settings import CONNECT, NO_JAVA, NO_PYSPARK, java_home
from operators.errors import NotProvided

HEAP_MIB = 1024
BESIDE_HEAP_MIB = 768
"""What a driver needs beside its heap: Python, and the JVM's own memory."""
START_S = 300.0
LOOK_S = 0.02
OPENED = (
    *("lang", "lang.invoke", "lang.reflect", "io", "net", "nio", "util", "util.concurrent", "util.concurrent.atomic"),
)
OPENED_INSIDE = ("jdk.internal.ref", "sun.nio.ch", "sun.nio.cs", "sun.security.action", "sun.util.calendar")
# Those of Spark's own launcher, but for the incubator of vectors, which Spark does without.
JVM = (
    "-XX:+IgnoreUnrecognizedVMOptions",
    *(f"--add-opens=java.base/java.{name}=ALL-UNNAMED" for name in OPENED),
    *(f"--add-opens=java.base/{name}=ALL-UNNAMED" for name in OPENED_INSIDE),
    "--add-opens=java.security.jgss/sun.security.krb5=ALL-UNNAMED",
    "-Dio.netty.tryReflectionSetAccessible=true",
    "-Dio.netty.allocator.type=pooled",
    "--sun-misc-unsafe-memory-access=allow",
    "--enable-native-access=ALL-UNNAMED",
    "-Dderby.connection.requireAuthentication=false",
)
ALWAYS = {
    "spark.ui.enabled": "false",
    "spark.ui.showConsoleProgress": "false",
    # What is passed between steps has one time zone, and one text.
    "spark.sql.session.timeZone": "UTC",
    # The driver's own memory is the limit of what comes back to it.
    "spark.driver.maxResultSize": "0",
}
HERE = {
    "spark.driver.host": "127.0.0.1",
    "spark.driver.bindAddress": "127.0.0.1",
    "spark.authenticate": "true",
}


def session(
    name: str, *, url: str = "", resources: Mapping[str, float] | None = None, scratch: Path | None = None
) -> Any:
    """Return a new session, which `SparkSession.builder.getOrCreate()` then returns too.

    url: a master, or `sc://` of Spark Connect, empty for this machine; resources: cpu (cores), memory (MiB);
    scratch: for what Spark spills.  Raises NotProvided where pyspark or Java is missing.
    """
    if importlib.util.find_spec("pyspark") is None:
        raise NotProvided(f"a step on Spark {NO_PYSPARK}")
    asked = resources or {}
    from pyspark.sql import SparkSession

    if url.startswith(CONNECT):
        return SparkSession.builder.remote(url).config("spark.sql.session.timeZone", "UTC").getOrCreate()
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    is_here = not url or url.startswith("local")
    if is_here:
        # Else Spark tells at length which of the machine's addresses it takes.
        os.environ.setdefault("SPARK_LOCAL_IP", "127.0.0.1")
    _start_jvm(heap_mib(int(asked.get("memory", 0))) if is_here else HEAP_MIB)
    settings = {**ALWAYS, "spark.app.name": name, **(_here(asked, scratch) if is_here else _cluster(asked))}
    builder = SparkSession.builder.master(url or _local(asked))
    for key, value in settings.items():
        builder = builder.config(key, value)
    return builder.getOrCreate()


def current() -> Any:
    """Return the session of this process, a new one on this machine if there is none.  Raises NotProvided."""
    if importlib.util.find_spec("pyspark") is None:
        raise NotProvided(f"a step on Spark {NO_PYSPARK}")
    from pyspark.sql import SparkSession

    return SparkSession.getActiveSession() or session("ma")


def heap_mib(memory_mib: int) -> int:
    """Return how much of a step's memory is the JVM's heap; Spark's own default if the step asks for none."""
    return max(memory_mib - BESIDE_HEAP_MIB, LEAST_SPARK_MIB - BESIDE_HEAP_MIB) if memory_mib else HEAP_MIB


def _local(asked: Mapping[str, float]) -> str:
    return f"local[{max(1, -int(-asked['cpu'] // 1))}]" if "cpu" in asked else "local[*]"


def _here(asked: Mapping[str, float], scratch: Path | None) -> dict[str, str]:
    if scratch is None:
        return dict(HERE)
    return {**HERE, "spark.local.dir": str(scratch), "spark.sql.warehouse.dir": str(scratch / "warehouse")}


def _cluster(asked: Mapping[str, float]) -> dict[str, str]:
    """Return what the executors of a cluster are asked for."""
    found: dict[str, str] = {}
    if "cpu" in asked:
        found["spark.cores.max"] = str(max(1, -int(-asked["cpu"] // 1)))
    if "memory" in asked:
        found["spark.executor.memory"] = f"{int(asked['memory'])}m"
    return found


def _start_jvm(heap: int) -> None:
    """Start the JVM that pyspark then talks to.  Raises NotProvided if there is no Java or it does not start."""
    if "PYSPARK_GATEWAY_PORT" in os.environ:
        return
    java = java_home()
    if not java:
        raise NotProvided(f"a step on Spark {NO_JAVA}")
    import pyspark

    home = str(Path(pyspark.__file__).parent)
    folder = tempfile.mkdtemp(prefix="ma-spark-")
    told = Path(folder, "gateway")
    environ = {**os.environ, "SPARK_HOME": home, "SPARK_CONNECT_MODE": "0", "_PYSPARK_DRIVER_CONN_INFO_PATH": str(told)}
    command = [
        *(f"{java}/bin/java", f"-Xmx{heap}m", *JVM, "-cp", f"{home}/jars/*"),
        *("org.apache.spark.deploy.SparkSubmit", "pyspark-shell"),
    ]
    try:
        process = subprocess.Popen(command, stdin=subprocess.PIPE, env=environ)  # noqa: S603
        port, secret = _gateway(process, told)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    _processes.append(process)
    os.environ.update(PYSPARK_GATEWAY_PORT=str(port), PYSPARK_GATEWAY_SECRET=secret, SPARK_HOME=home)


# Dropping one closes its standard input, and it ends.
_processes: list[subprocess.Popen[bytes]] = []


def _gateway(process: subprocess.Popen[bytes], told: Path) -> tuple[int, str]:
    deadline = time.monotonic() + START_S
    while not told.exists():
        if process.poll() is not None or time.monotonic() > deadline:
            process.kill()
            raise NotProvided("Spark's Java does not start: its log says why; Spark needs Java 17 or newer")
        time.sleep(LOOK_S)
    content = told.read_bytes()
    port, length = struct.unpack_from("!ii", content)
    return port, content[8 : 8 + length].decode()


def stop(found: Any) -> None:
    """End a session, and the JVM that was started for it."""
    found.stop()
    for name in ("PYSPARK_GATEWAY_PORT", "PYSPARK_GATEWAY_SECRET"):
        os.environ.pop(name, None)
    while _processes:
        process = _processes.pop()
        if process.stdin is not None:
            process.stdin.close()
        process.wait()
