"""In what a step runs: its declared environment, Python, and the versions of the libraries that its code names."""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Collection, Mapping, Sequence
from importlib import metadata
from typing import Any

from api.environments import digest, normal, versions

# Distributions that are not called as their module is; asking all of them takes half a second.
KNOWN = {
    "PIL": "pillow",
    "bs4": "beautifulsoup4",
    "cv2": "opencv-python",
    "dateutil": "python-dateutil",
    "sklearn": "scikit-learn",
    "skl2onnx": "skl2onnx",
    "yaml": "PyYAML",
}
OWN = ("api", "operators", "serving")


def environment_of(libraries: Collection[str], declared: Any = None) -> dict[str, str]:
    """Return what a step runs in, as text by name.  declared: the step's environment.

    What an environment pins stands in place of what the platform has of it.
    """
    found = {"python": f"{sys.version_info.major}.{sys.version_info.minor}"}
    pinned = versions(declared if isinstance(declared, Mapping) else None)
    for module in sorted(libraries):
        if module in sys.stdlib_module_names or module in OWN:
            continue
        for name in _distributions(module):
            if normal(name) not in pinned:
                found[name] = _version(name) or "not installed"
    if pinned and isinstance(declared, Mapping):
        return {**found, **pinned, "requirements": f"sha256:{digest(declared)[:32]}"}
    given = declared if isinstance(declared, Mapping) else {} if declared is None else {"environment": declared}
    for name, value in given.items():
        found[f"declared {name}"] = value if isinstance(value, str) else json.dumps(value, sort_keys=True)
    return found


def _distributions(module: str) -> Sequence[str]:
    if _version(module) is not None:
        return [module]
    if module in KNOWN and _version(KNOWN[module]) is not None:
        return [KNOWN[module]]
    return sorted(set(_all().get(module, [module])))


@functools.cache
def _all() -> Mapping[str, list[str]]:
    return metadata.packages_distributions()


@functools.cache
def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except (metadata.PackageNotFoundError, ValueError):
        return None
