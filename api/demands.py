"""What a task may ask for: processors, memory, GPUs, time, repetition.  Pure; grants nothing.

The same rules hold where a task is declared, where its graph is read and where the API takes it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from api.environments import environment_faults
from api.errors import FieldViolation

ENGINES = ("local", "ray", "spark", "kubernetes_job")
RESOURCES = ("cpu", "gpu", "memory")
MOST_CPU = 1024
MOST_GPU = 64
MOST_RETRIES = 10
LEAST_SPARK_MIB = 1280
MOST_TIMEOUT_S = 7 * 86_400
LONGEST_TTL_S = 3650 * 86_400

MEMORY = re.compile(r"([1-9][0-9]{0,5})(\.[0-9]{1,3})?(Ki|Mi|Gi|Ti)\Z")
MILLICORES = re.compile(r"[1-9][0-9]{0,6}m\Z")
DURATION = re.compile(
    r"(?=.)(?:([0-9]{1,9})d)?(?:([0-9]{1,9})h)?(?:([0-9]{1,9})m)?(?:([0-9]{1,9}(?:\.[0-9]{1,3})?)s)?\Z"
)
_UNITS = {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}
_LOOSE_MEMORY = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([kmgt])i?b?\s*\Z", re.IGNORECASE)
_SHOWN = 64


def demand_faults(task: Mapping[str, Any], path: str = "") -> Iterator[FieldViolation]:
    """Yield what is wrong with `engine`, `resources`, `environment`, `retries` and `timeout_s` of a task or step."""
    engine = task.get("engine", "local")
    if engine not in ENGINES:
        yield FieldViolation(_at(path, "engine"), f"must be one of {', '.join(ENGINES)}", brief(engine), "BAD_ENGINE")
    resources = task.get("resources") or {}
    if not isinstance(resources, Mapping):
        told = f"must be an object with {', '.join(RESOURCES)}"
        yield FieldViolation(_at(path, "resources"), told, brief(resources), "BAD_RESOURCES")
    else:
        yield from resource_faults(resources, _at(path, "resources"))
        if engine == "spark":
            yield from _spark_faults(resources, _at(path, "resources"))
    yield from environment_faults(task.get("environment"), _at(path, "environment"), str(engine))
    yield from retries_faults(task.get("retries", 0), _at(path, "retries"))
    if task.get("timeout_s") is not None:
        yield from timeout_faults(task["timeout_s"], _at(path, "timeout_s"))


def resource_faults(resources: Mapping[str, Any], path: str = "") -> Iterator[FieldViolation]:
    """Yield what is wrong with cpu, gpu and memory, each with the accepted form."""
    for name, value in resources.items():
        told = _RULES[name](value) if name in _RULES else f"is unknown: use {', '.join(RESOURCES)}"
        if told:
            yield FieldViolation(_at(path, brief(name)), told, brief(value), "BAD_RESOURCES")


def _spark_faults(resources: Mapping[str, Any], path: str) -> Iterator[FieldViolation]:
    gpu, memory = resources.get("gpu"), resources.get("memory")
    if gpu and not _gpu(gpu):
        yield FieldViolation(_at(path, "gpu"), "is not given to a step on Spark: use ray", brief(gpu), "BAD_RESOURCES")
    if memory and not _memory(memory) and memory_bytes(memory) < LEAST_SPARK_MIB * 2**20:
        told = f'is too little for a driver of Spark with its Java: at least "{LEAST_SPARK_MIB}Mi"'
        yield FieldViolation(_at(path, "memory"), told, brief(memory), "BAD_RESOURCES")


def retries_faults(retries: Any, path: str = "retries") -> Iterator[FieldViolation]:
    """Yield the fault of a number of retries."""
    if isinstance(retries, bool) or not isinstance(retries, int) or not 0 <= retries <= MOST_RETRIES:
        told = f"must be a whole number from 0 to {MOST_RETRIES}"
        yield FieldViolation(path, told, brief(retries), "BAD_RETRIES")


def timeout_faults(timeout: Any, path: str = "timeout") -> Iterator[FieldViolation]:
    """Yield the fault of a time limit: seconds, or a text such as "10m"."""
    seconds = seconds_of(timeout)
    if seconds is None or not 0 < seconds <= MOST_TIMEOUT_S:
        told = 'must be more than 0 and at most 7 days: seconds, or a text such as "90s", "10m", "1h30m", "2d"'
        yield FieldViolation(path, told, brief(timeout), "BAD_TIMEOUT")


def seconds_of(duration: Any) -> float | None:
    """Return seconds of a number or of a text such as "1h30m"; None for what is neither."""
    if isinstance(duration, bool):
        return None
    if isinstance(duration, int | float):
        return float(duration) if -1e15 < duration < 1e15 else None
    match = DURATION.match(duration) if isinstance(duration, str) else None
    if match is None:
        return None
    days, hours, minutes, seconds = (float(part or 0) for part in match.groups())
    return ((days * 24 + hours) * 60 + minutes) * 60 + seconds


def memory_bytes(memory: str) -> int:
    """Return the bytes of an accepted text, "2Gi" -> 2147483648.  Raises ValueError for another."""
    match = MEMORY.match(memory)
    if match is None:
        raise ValueError(_memory(memory))
    return int(float(match[1] + (match[2] or "")) * _UNITS[match[3]])


def cores(cpu: float | str) -> float:
    """Return an accepted number of cores, "500m" -> 0.5."""
    return int(cpu[:-1]) / 1000 if isinstance(cpu, str) else float(cpu)


def numbers(resources: Mapping[str, Any]) -> dict[str, float]:
    """Return accepted resources as numbers, those that were said: cpu in cores, gpu in pieces, memory in MiB."""
    found: dict[str, float] = {}
    if resources.get("cpu") is not None:
        found["cpu"] = cores(resources["cpu"])
    if resources.get("gpu"):
        found["gpu"] = int(resources["gpu"])
    if resources.get("memory"):
        found["memory"] = memory_bytes(resources["memory"]) // 2**20
    return found


def _cpu(value: Any) -> str:
    if isinstance(value, str) and MILLICORES.match(value):
        value = cores(value)
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value:
        return 'must be a number of cores such as 1 or 0.5, or a text such as "500m"'
    return "" if 0 < value <= MOST_CPU else f"must be more than 0 and at most {MOST_CPU} cores"


def _gpu(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= MOST_GPU:
        return f"must be a whole number from 0 to {MOST_GPU}"
    return ""


def _memory(value: Any) -> str:
    if isinstance(value, str) and MEMORY.match(value):
        return ""
    told = 'must be a text with a unit, Ki, Mi, Gi or Ti: "512Mi", "2Gi"'
    loose = _LOOSE_MEMORY.match(value[:_SHOWN]) if isinstance(value, str) else None
    if loose and MEMORY.match(near := f"{loose[1]}{loose[2].title()}i"):
        return f"{told}; did you mean {near!r}?"
    return told


_RULES = {"cpu": _cpu, "gpu": _gpu, "memory": _memory}


def _at(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def brief(value: object) -> str:
    """Return a value short enough for a message."""
    if isinstance(value, int) and value.bit_length() > _SHOWN:
        return "a very large number"
    text = value if isinstance(value, str) else repr(value)
    return text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"
