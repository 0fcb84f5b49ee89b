"""The environment that a step asks for: requirements with one version each, or the name of one that is there.  Pure.

    {"requirements": ["pandas==2.2.3", "scikit-learn==1.5.2; python_version < '3.13'"]}, {"named": "cuda12"},
    or, in Kubernetes, {"image": "registry/name@sha256:…"}

The same rules hold where a task is declared, where its graph is read and where the API takes it.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from api.errors import FieldViolation
from api.kubernetes_settings import NOT_PINNED
from api.kubernetes_settings import PINNED as PINNED_IMAGE

MOST_REQUIREMENTS = 500
LONGEST = 1000
SHOWN = 80
NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,62}[A-Za-z0-9])?\Z", re.ASCII)
_DISTRIBUTION = r"(?P<name>[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?)\s*(?P<extras>\[[A-Za-z0-9._,\s-]*\])?\s*"
PINNED = re.compile(
    _DISTRIBUTION + r"={2,3}\s*(?P<version>[A-Za-z0-9][A-Za-z0-9.!+_-]*)\s*(?P<marker>;[^#\n]*?)?"
    r"(?P<hashes>(?:\s+--hash=sha(?:256|384|512):[0-9a-f]+)*)\s*\Z",
    re.ASCII,
)
LOOSE = re.compile(_DISTRIBUTION + r"(?:[<>=!~;(].*)?\Z", re.ASCII | re.DOTALL)
COMMENT = re.compile(r"(?:^|\s)#.*\Z")
UNPINNED = "must name one version, such as {name}==1.2.3: `python -m pip freeze` shows what you have"
DIRECT = "names a file or an address, whose content may change: build a wheel of it, and pin its version"
OPTION = "is an option of pip: say it in pip's configuration, where the platform runs"
FORMS = {"requirements", "named", "image"}
IMAGE = "is an image, which steps in Kubernetes have: use @task.kubernetes_job, or list requirements"
IN_POD = "is not built in a pod: name an image that has what the task needs, {'image': 'name@sha256:…'}"
FORM = 'must be a list of requirements such as "pandas==2.2.3", a requirements file, or the name of an environment'


def environment_faults(environment: Any, path: str = "environment", engine: str = "local") -> Iterator[FieldViolation]:
    """Yield what is wrong with the environment of a task or step; None asks for none."""
    if environment is None:
        return
    if not isinstance(environment, Mapping) or len(environment) != 1 or set(environment) - FORMS:
        yield FieldViolation(path, FORM, _brief(environment), "BAD_ENVIRONMENT")
    elif "image" in environment:
        image = environment["image"]
        if engine != "kubernetes_job":
            yield FieldViolation(path, IMAGE, _brief(image), "ENVIRONMENT_NOT_SUPPORTED")
        elif not isinstance(image, str) or not PINNED_IMAGE.match(image):
            yield FieldViolation(f"{path}.image", NOT_PINNED, _brief(image), "IMAGE_NOT_PINNED")
    elif engine == "kubernetes_job":
        yield FieldViolation(path, IN_POD, _brief(environment), "ENVIRONMENT_NOT_SUPPORTED")
    elif "named" in environment:
        name = environment["named"]
        if not isinstance(name, str) or not NAME.match(name):
            told = "must be a name of at most 64 letters, digits, '.', '_' and '-'"
            yield FieldViolation(f"{path}.named", told, _brief(name), "BAD_ENVIRONMENT")
    else:
        yield from _requirements(environment["requirements"], f"{path}.requirements")


def _requirements(found: Any, path: str) -> Iterator[FieldViolation]:
    if not isinstance(found, list | tuple) or not 0 < len(found) <= MOST_REQUIREMENTS:
        told = f"must be a list of 1 to {MOST_REQUIREMENTS} requirements"
        yield FieldViolation(path, told, _brief(found), "BAD_ENVIRONMENT")
        return
    seen: dict[tuple[str, str], int] = {}
    for position, text in enumerate(found):
        at = f"{path}[{position}]"
        match = PINNED.match(text) if isinstance(text, str) and len(text) <= LONGEST else None
        if match is None:
            told, reason = _refusal(text)
            yield FieldViolation(at, told, _brief(text), reason)
            continue
        key = (normal(match["name"]), (match["marker"] or "").strip())
        if key in seen:
            told = f"names {match['name']} a second time: {path}[{seen[key]}] does too"
            yield FieldViolation(at, told, _brief(text), "BAD_REQUIREMENT")
        seen[key] = position


def _refusal(text: Any) -> tuple[str, str]:
    if not isinstance(text, str) or len(text) > LONGEST:
        return f'must be a text such as "pandas==2.2.3" of at most {LONGEST} characters', "BAD_REQUIREMENT"
    if text.lstrip().startswith("-"):
        return OPTION, "BAD_REQUIREMENT"
    loose = LOOSE.match(text.strip())
    if loose is not None:
        return UNPINNED.format(name=loose["name"]), "UNPINNED_REQUIREMENT"
    return (DIRECT if "@" in text or "/" in text else FORM), "BAD_REQUIREMENT"


def canonical(environment: Mapping[str, Any]) -> dict[str, Any]:
    """Return an accepted environment in the one form that two equal ones have."""
    if "requirements" not in environment:
        return dict(environment)
    return {"requirements": sorted({_one(text) for text in environment["requirements"]})}


def _one(text: str) -> str:
    match = PINNED.match(text)
    if match is None:
        return text
    extras = ",".join(sorted(normal(each) for each in (match["extras"] or "[]")[1:-1].split(",") if each.strip()))
    marker = f" ; {match['marker'][1:].strip()}" if match["marker"] else ""
    hashes = "".join(f" {each}" for each in sorted((match["hashes"] or "").split()))
    return f"{normal(match['name'])}{f'[{extras}]' if extras else ''}=={match['version']}{marker}{hashes}"


def versions(environment: Mapping[str, Any] | None) -> dict[str, str]:
    """Return the version that an environment pins, by normal name; none for one that is named."""
    found = (environment or {}).get("requirements", ())
    matches = (PINNED.match(text) for text in found)
    return {normal(match["name"]): match["version"] for match in matches if match}


def normal(name: str) -> str:
    """Return the one name of a distribution: `Scikit_Learn` is `scikit-learn`."""
    return re.sub(r"[-_.]+", "-", name.strip()).lower()


def lines(text: str) -> list[str]:
    """Return the requirements of a file: no comments, continued lines as one.  Options are left in, to be refused."""
    joined = text.replace("\\\r\n", " ").replace("\\\n", " ")
    found = (COMMENT.sub("", line).strip() for line in joined.splitlines())
    return [" ".join(line.split()) for line in found if line]


def digest(environment: Mapping[str, Any], *more: str) -> str:
    """Return SHA-256, in hexadecimal digits, of an environment and of what else it depends on."""
    text = json.dumps([canonical(environment), *more], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def shown(environment: Mapping[str, Any]) -> str:
    """Return an environment in a few words."""
    for name in ("named", "image"):
        if name in environment:
            return f"environment {environment[name]}"
    found: Sequence[str] = environment["requirements"]
    more = f" and {len(found) - 3} more" if len(found) > 3 else ""
    return f"environment of {', '.join(found[:3])}{more}"


def _brief(value: Any) -> str:
    text = value if isinstance(value, str) else repr(value) if not isinstance(value, int) else str(type(value))
    return text if len(text) <= SHOWN else text[: SHOWN - 1] + "…"
