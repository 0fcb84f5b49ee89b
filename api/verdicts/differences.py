"""What differs between a failed run and the last green one of its pipeline: code, params, data, environment.  Pure.

Each difference is {"part", "name", "was", "is"}.  A part about which one of the runs noted nothing is not compared.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from api.messages.plain import plain

CODE, PARAMS, DATA, ENVIRONMENT = "code", "params", "data", "environment"
LONGEST_VALUE = 120
MOST = 30
REFERENCE = re.compile(r"(\w+://|sha256:)")
ABSENT = "(not set)"


def differences(
    failed: Any, green: Any, failed_began: Mapping[str, Any], green_began: Mapping[str, Any], step: str
) -> list[dict[str, str]]:
    """Return what differs, code first.  failed, green: PipelineRuns; began: what their jobs of `step` noted."""
    found = [
        *_code(failed, green, failed_began, green_began),
        *_params(failed, green),
        *_data(failed, green, step),
        *_environment(failed_began, green_began),
    ]
    return found[:MOST]


def _code(failed: Any, green: Any, now: Mapping[str, Any], then: Mapping[str, Any]) -> Iterator[dict[str, str]]:
    revisions = [run.spec.revision.name for run in (green, failed)]
    if revisions[0] != revisions[1]:
        yield _different(CODE, "revision", *revisions)
    before, after = (run.status.source_pipeline.pipeline for run in (green, failed))
    yield from _changed(CODE, "pipeline.", _flat(_spec(before)), _flat(_spec(after)))
    files = [_map(_map(began.get("code")).get("files")) for began in (then, now)]
    if all("digest" in _map(began.get("code")) for began in (then, now)):
        yield from _changed(CODE, "", files[0], files[1])


def _spec(pipeline: Any) -> Any:
    return plain(pipeline.spec) if pipeline.HasField("spec") else {}


def _params(failed: Any, green: Any) -> Iterator[dict[str, str]]:
    before, after = (_flat(plain(run.spec.input)) if run.spec.HasField("input") else {} for run in (green, failed))
    strip = len("kw_args.")
    yield from _changed(
        PARAMS,
        "",
        {name[strip:] if name.startswith("kw_args.") else name: value for name, value in before.items()},
        {name[strip:] if name.startswith("kw_args.") else name: value for name, value in after.items()},
    )


def _data(failed: Any, green: Any, step: str) -> Iterator[dict[str, str]]:
    """Yield the references of the step's inputs that differ in more than the run that made them."""
    before, after = (_references(run, step) for run in (green, failed))
    yield from _changed(DATA, f"{step}.", before, after)


def _references(run: Any, step: str) -> dict[str, Any]:
    given = next((one.input for one in _steps(run.status.steps) if one.name == step), None)
    if given is None:
        return {}
    own = run.status.workflow_run_id
    texts = {name: value for name, value in _flat(plain(given)).items() if isinstance(value, str)}
    return {
        name: value.replace(own, "RUN") if own else value for name, value in texts.items() if REFERENCE.match(value)
    }


def _steps(steps: Iterable[Any]) -> Iterator[Any]:
    for step in steps:
        yield step
        yield from _steps(step.sub_steps)


def _environment(now: Mapping[str, Any], then: Mapping[str, Any]) -> Iterator[dict[str, str]]:
    before, after = (_map(began.get("environment")) for began in (then, now))
    if not before or not after:
        return
    packages = [_map(one.get("versions")) for one in (before, after)]
    if before.get("packages") != after.get("packages") and all(packages):
        yield from _changed(ENVIRONMENT, "", *packages)
        before, after = ({**one, "packages": ""} for one in (before, after))
    kept = ("python", "machine", "packages")
    yield from _changed(ENVIRONMENT, "", {k: before.get(k) for k in kept}, {k: after.get(k) for k in kept})


def _changed(part: str, prefix: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[dict[str, str]]:
    for name in sorted(before.keys() | after.keys()):
        if before.get(name) != after.get(name):
            yield _different(part, prefix + name, before.get(name), after.get(name))


def _different(part: str, name: str, before: Any, after: Any) -> dict[str, str]:
    return {"part": part, "name": name, "was": _shown(before), "is": _shown(after)}


def _shown(value: Any) -> str:
    if value is None or value == "":
        return ABSENT
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= LONGEST_VALUE else text[: LONGEST_VALUE - 1] + "…"


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(value, Mapping):
        return {prefix.rstrip("."): value}
    found: dict[str, Any] = {}
    for name, item in value.items():
        found.update(
            _flat(item, f"{prefix}{name}.") if isinstance(item, Mapping) and item else {f"{prefix}{name}": item}
        )
    return found


def _map(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
