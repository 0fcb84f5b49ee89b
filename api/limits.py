"""How much is taken in at once: settings `MA_LIMIT_*`, as one frozen value.  Knows nothing of what is limited."""

from __future__ import annotations

import resource
from collections.abc import Mapping
from dataclasses import dataclass, fields

PREFIX = "MA_LIMIT_"
# What a server opens beside connections: the store, logs, libraries.
OTHER_FILES = 500
PORTS = 2


@dataclass(frozen=True)
class LimitsConfig:
    """Limits of one server; `docs/configuration.md` explains each.  Names ending in `_s` are seconds.

    calls: carried out at once; waiting: calls that wait for that; a caller's share of each is `…_per_caller`, and
    calls_shared of those carried out while others call too, one of a caller who was refused lately.
    streams: calls at once on one gRPC connection; bad_tokens: refusals of tokens a second and address.
    """

    calls: int = 32
    calls_per_caller: int = 16
    calls_shared: int = 4
    waiting: int = 2000
    waiting_per_caller: int = 500
    wait_s: float = 0.5
    watches: int = 1000
    watches_per_caller: int = 50
    connections: int = 10_000
    streams: int = 250
    header_s: float = 10.0
    body_s: float = 20.0
    idle_s: float = 60.0
    bad_tokens: int = 50

    def environ(self) -> dict[str, str]:
        """Return the variables from which `read` gives this value again."""
        return {_variable(field.name): str(getattr(self, field.name)) for field in fields(self)}


DEFAULT = LimitsConfig()
# Least and most of each.
BOUNDS: Mapping[str, tuple[float, float]] = {
    "calls": (1, 10_000),
    "calls_per_caller": (1, 10_000),
    "calls_shared": (1, 10_000),
    "waiting": (0, 100_000),
    "waiting_per_caller": (0, 100_000),
    "wait_s": (0.01, 30),
    "watches": (1, 100_000),
    "watches_per_caller": (1, 100_000),
    "connections": (10, 1_000_000),
    "streams": (1, 100_000),
    "header_s": (0.1, 300),
    "body_s": (0.1, 3600),
    "idle_s": (1, 86_400),
    "bad_tokens": (1, 1_000_000),
}


def read(environ: Mapping[str, str], faults: list[str]) -> LimitsConfig:
    """Return the limits; `faults` gets a line for each variable that cannot be used."""
    found: dict[str, float] = {}
    for name, (least, most) in BOUNDS.items():
        variable, default = _variable(name), getattr(DEFAULT, name)
        text = environ.get(variable, "")
        value = _number(text, whole=isinstance(default, int)) if text else default
        if value is None or not least <= value <= most:
            what = "a whole number" if isinstance(default, int) else "a number"
            faults.append(f"{variable} must be {what} from {least:g} to {most:g}, not {text[:64]!r}")
            value = default
        found[name] = value
    for name in ("calls", "waiting", "watches"):
        share, whole = found[f"{name}_per_caller"], found[name]
        if share > whole and environ.get(_variable(f"{name}_per_caller")):
            faults.append(
                f"{_variable(f'{name}_per_caller')} {share:g} is more than {_variable(name)} {whole:g}: "
                "one caller cannot have more than all"
            )
        found[f"{name}_per_caller"] = min(share, whole)
    return LimitsConfig(**found)  # type: ignore[arg-type]


def _number(text: str, *, whole: bool) -> float | None:
    """Return a plain decimal number, None for everything else."""
    if len(text) > 16 or not text.isascii() or not text.replace(".", "", 0 if whole else 1).isdigit():
        return None
    return int(text) if whole else float(text)


def _variable(name: str) -> str:
    return f"{PREFIX}{name.upper()}"


def connections_of(limits: LimitsConfig) -> int:
    """Let this process open as many files as it may, and return the connections a port can have with them."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if hard == resource.RLIM_INFINITY:
        return limits.connections
    return max(10, min(limits.connections, (hard - OTHER_FILES) // PORTS))
