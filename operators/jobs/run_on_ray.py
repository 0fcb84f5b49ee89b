"""Runs one program as a task of Ray, its own or a cluster's: the driver of the Ray engine's jobs.  Starts no cluster.

    python -m operators.jobs.run_on_ray <job folder>

The task asks Ray for what the job's spec says: cores, GPUs, memory.  On this machine it writes to the job's log itself:
what Ray forwards to a driver may come after the driver has ended.
"""

from __future__ import annotations

import os
import socket
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from api.config import load
from operators.errors import NotProvided
from operators.jobs import evidence, supervise, traces
from operators.jobs.run import LOG, LONGEST_MESSAGE, begin, execute, failed, root_of, write

OWN_MIB = 1536
"""What Ray's own processes may use beside a step that has a limit of memory: they are its driver's children."""
FORWARD_S = 0.5
REACH_S = 10.0
REFUSED = "InvalidAuthToken"


def on_worker(spec: Mapping[str, Any], log: str) -> dict[str, Any]:
    """Run the program of `spec` in a Ray worker, everything that it prints to `log`, to the driver if that is empty."""
    if log:
        sys.stdout.flush()
        sys.stderr.flush()
        descriptor = os.open(log, os.O_WRONLY | os.O_APPEND)
        for stream in (1, 2):
            os.dup2(descriptor, stream)
        os.close(descriptor)
    if root := root_of(spec):
        sys.path.insert(0, root)
    try:
        return execute(spec)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()


def asked(resources: Mapping[str, float]) -> dict[str, Any]:
    """Return what a task of Ray asks for.  resources: cores, pieces, MiB."""
    found: dict[str, Any] = {"max_retries": 0}
    if "cpu" in resources:
        found["num_cpus"] = resources["cpu"]
    if "gpu" in resources:
        found["num_gpus"] = resources["gpu"]
    if "memory" in resources:
        found["memory"] = int(resources["memory"]) * 2**20
    return found


def lacking(resources: Mapping[str, float], there: Mapping[str, float]) -> str:
    """Return what a Ray that grows no further has too little of, empty if it has enough.  there: as Ray says it."""
    has = {"cpu": there.get("CPU", 0.0), "gpu": there.get("GPU", 0.0), "memory": there.get("memory", 0.0) // 2**20}
    units = {"cpu": " cores", "gpu": " GPUs", "memory": " MiB of memory"}
    short = [f"{want:g}{units[name]}, there are {has[name]:g}" for name, want in resources.items() if want > has[name]]
    return "; ".join(short)


def unreached(address: str, error: BaseException) -> str:
    """Return why a cluster of Ray could not be joined, and what to do.  address: empty for one of this machine."""
    place = f"the cluster of Ray at {address}" if address else "the Ray of this machine"
    if REFUSED in str(error) or REFUSED in str(error.__cause__):
        return f"{place} wants a token: start the platform with RAY_AUTH_MODE=token and RAY_AUTH_TOKEN, see engines.md"
    first = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
    return f"{place} cannot be reached: {first.strip()}"


def _knock(address: str) -> None:
    """Return if something listens there; Ray would ask for ever.  Raises OSError."""
    host, port = address.removeprefix("ray://").rsplit(":", 1)
    socket.create_connection((host.strip("[]"), int(port)), timeout=REACH_S).close()


def main(folder: Path) -> int:
    """Reach or start Ray, run the program of the job in `folder` as a task."""
    spec = begin(folder)
    address = load().engines.ray_address

    def work() -> int:
        result = _on_ray(spec, folder, address)
        write(folder, result)
        return 0 if result["state"] == "SUCCEEDED" else 1

    limit_mib = int(spec.get("memory_mib") or 0)
    if limit_mib and not address:
        limit_mib += OWN_MIB
    return supervise.supervised(folder, {**spec, "memory_mib": limit_mib}, work)


def _on_ray(spec: Mapping[str, Any], folder: Path, address: str) -> dict[str, Any]:
    """Return what the program's worker gave, or how it was lost."""
    import ray

    root = root_of(spec)
    log = "" if address else str(folder / LOG)
    environment = spec.get("environment") or {}
    if address and "named" in environment:
        told = "a cluster of Ray has no environments of a name: list its requirements"
        return failed("user", told, NotProvided(told), root)
    try:
        if address:
            _knock(address)
        ray.init(
            address=address or "local",
            log_to_driver=bool(address),
            **_place(address, root, list(environment.get("requirements", ()))),
        )
    except (OSError, ray.exceptions.RayError) as error:
        return failed("system", unreached(address, error), error, root)
    running = None
    try:
        there = ray.cluster_resources()  # type: ignore[no-untyped-call]
        if not address and (short := lacking(spec["resources"], there)):
            told = f"it asks Ray for {short}: ask for less, or set MA_RAY_ADDRESS to a cluster that has them"
            return failed("user", told, NotProvided(told), root)
        running = ray.remote(**asked(spec["resources"]))(on_worker).remote(spec, log)
        result: dict[str, Any] = ray.get(running)
        if address:
            time.sleep(FORWARD_S)
    except ray.exceptions.RayError as error:
        message = f"{type(error).__name__}: {' '.join(str(error).split())}"[:LONGEST_MESSAGE]
        told_of = {"kind": "system", "message": message, "exception": traces.described(error, root)}
        return {"state": "FAILED", "error": evidence.masked(told_of)}
    except SystemExit:
        # Ray turns the signal that asks a driver to end into this; its cluster goes on without it.
        if running is not None:
            ray.cancel(running, force=True)
        raise
    finally:
        ray.shutdown()
    return result


def _place(address: str, root: str, requirements: list[str]) -> dict[str, Any]:
    """Return what is said of a Ray of one's own, and of a cluster: whose workers have neither our code nor settings."""
    if not address:
        return {"include_dashboard": False}
    shown = {name: value for name, value in os.environ.items() if name.startswith("MA_") and name != "MA_JOB"}
    brought = {"working_dir": root, "pip": requirements}
    return {"runtime_env": {"env_vars": shown, **{name: value for name, value in brought.items() if value}}}


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
