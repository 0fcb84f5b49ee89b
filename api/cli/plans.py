"""`ma plan` and `ma apply --plan`: what an apply would change, and an apply that does that or nothing."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from api.cli import authored, documents, output, present
from api.cli.context import client, say, warn
from api.cli.exits import OK, REFUSED, USAGE, Failure
from api.client import MANAGER, Client
from api.errors import ApiError

WIDTH = 80
MOST_LINES = 20
FORMATS = ("table", "json")
SIGNS = {"CREATED": "+", "CHANGED": "~", "REMOVED": "-", "UNCHANGED": "="}
WORDS = {"REVISION": "Revision", "DAG": "DAG", "SCHEDULE": "Schedule", "BACKFILL": "Backfill", "DEPLOYMENT": "Rollout"}
OUTDATED = "PLAN_OUTDATED"
LISTS = {"objects": list, "changes": list}
# How what is planned is applied, as `Client.apply` names it.
TERMS = {"manager": str, "force": bool, "replace": bool}


def plan(
    files: Sequence[str],
    *,
    namespace: str,
    form: str,
    manager: str = MANAGER,
    force: bool = False,
    replace: bool = False,
) -> int:
    """Print the plan of an apply.  Returns the exit code."""
    if form not in FORMATS:
        raise Failure(f"unknown output {form!r}: use {', '.join(FORMATS)}", code=USAGE)
    terms: dict[str, Any] = {"manager": manager, "force": force, "replace": replace}
    with client() as api:
        resources = _resources(documents.load(files, namespace=namespace), api)
        planned = as_plain(api.plan(resources, **terms), resources) | terms
    if form == "json":
        print(output.as_json(planned))
    else:
        for line in lines(planned["changes"]):
            say(line)
    return OK


def _resources(found: Sequence[documents.Document], api: Client) -> list[Any]:
    """Return what documents declare.  Raises Failure unless all of them can be read: half a plan is none."""
    for document in found:
        for text in (*document.warnings, *document.faults):
            warn(text)
    bad = sum(document.resource is None for document in found)
    if bad:
        raise Failure(f"{bad} of {len(found)} documents cannot be read: there is no plan", code=REFUSED)
    resources: list[Any] = []
    for document in found:
        resource: Any = document.resource
        if authored.is_authored(resource) and not resource.spec.manifest.uniflow_tar:
            # What is told of the code is no part of the plan.
            with contextlib.redirect_stdout(sys.stderr):
                authored.fill(api, resource, "", document.where.rpartition(":")[0], keep=True)
        resources.append(resource)
    return resources


def as_plain(response: Any, resources: Sequence[Any]) -> dict[str, Any]:
    """Return a plan as JSON that `ma apply --plan` reads."""
    changes = [
        {
            "action": type(change).Action.Name(change.action),
            "part": type(change).Part.Name(change.part),
            **({"kind": change.kind} if change.kind else {}),
            "namespace": change.namespace,
            "name": change.name,
            "fields": [
                {"field": each.field, "before": _value(each.before), "after": _value(each.after)}
                for each in change.fields
            ],
            **({"note": change.note} if change.note else {}),
            **({"base": change.base} if change.base else {}),
        }
        for change in response.changes
    ]
    return {
        "kind": "Plan",
        "digest": response.digest,
        "changes": changes,
        "objects": [present.plain(resource) for resource in resources],
    }


def _value(text: str) -> Any:
    """Return a value; one that was cut stays the text that it is."""
    try:
        return json.loads(text) if text else None
    except ValueError:
        return text


def lines(changes: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Yield a plan for people, at most 80 columns wide."""
    counts = dict.fromkeys(SIGNS, 0)
    for change in changes:
        action = change["action"]
        counts[action] += 1
        what = change.get("kind") or WORDS.get(change["part"], change["part"])
        yield _cut(f"{SIGNS[action]} {what} {change['name']}")
        if note := change.get("note"):
            yield from (f"    {line}" for line in _wrapped(f"! {note}", WIDTH - 4))
        if action != "UNCHANGED":
            yield from field_lines(change["fields"])
    yield ", ".join(f"{count} {action.lower()}" for action, count in counts.items())


def field_lines(fields: Sequence[Mapping[str, Any]], most: int = MOST_LINES) -> Iterator[str]:
    """Yield the fields that differ: in a line each if they fit, else with the values below."""
    for each in fields[:most]:
        one, two = _shown(each["before"]), _shown(each["after"])
        pair = two if each["before"] is None else f"{one} ->" if each["after"] is None else f"{one} -> {two}"
        line = f"    {each['field']}: {pair}"
        if len(line) <= WIDTH:
            yield line
            continue
        yield _cut(f"    {each['field']}:")
        for sign, value in (("-", each["before"]), ("+", each["after"])):
            if value is not None:
                yield _cut(f"      {sign} {_shown(value)}")
    if len(fields) > most:
        yield f"    … and {len(fields) - most} more fields: see -o json"


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, sort_keys=True)
    return "".join(char if char.isprintable() else " " for char in text)


def _cut(line: str) -> str:
    return line if len(line) <= WIDTH else line[: WIDTH - 1] + "…"


def _wrapped(text: str, width: int) -> list[str]:
    import textwrap

    return textwrap.wrap(" ".join(text.split()), width)


def apply(file: str) -> int:
    """Apply what a plan says, unless the world has changed since.  Returns the exit code."""
    planned = _read(file)
    terms = {name: planned[name] for name in TERMS}
    with client() as api:
        found = [document for value in planned["objects"] for document in _documents(file, value)]
        resources = _resources(found, api)
        now = as_plain(api.plan(resources, **terms), resources)
        if now["digest"] != planned["digest"]:
            raise outdated(differing(planned["changes"], now["changes"]))
        bases = {
            (change["kind"], change["namespace"], change["name"]): change.get("base", "")
            for change in now["changes"]
            if change["part"] == "RESOURCE"
        }
        for done, resource in enumerate(resources):
            metadata, kind = resource.metadata, resource.DESCRIPTOR.name
            try:
                _, what = api.apply(resource, base=bases[kind, metadata.namespace, metadata.name], **terms)
            except ApiError as error:
                if done:
                    warn(f"{done} of {len(resources)} resources were applied before this one was refused")
                raise outdated([f"{kind} {metadata.name}"]) if error.reason == OUTDATED else error from None
            say(f"{kind} {metadata.name} {what}")
    return OK


def _read(file: str) -> dict[str, Any]:
    try:
        planned = json.loads(Path(file).read_bytes())
    except OSError as error:
        raise Failure(f"{file}: {error.strerror}") from None
    except ValueError as error:
        raise Failure(f"{file} is no JSON: {error}") from None
    fine = isinstance(planned, dict) and planned.get("kind") == "Plan"
    if not fine or not all(isinstance(planned.get(key), of) for key, of in (*LISTS.items(), *TERMS.items())):
        raise Failure(f"{file} is no plan: `ma plan -f FILE -o json` writes one", code=USAGE)
    return dict(planned)


def _documents(file: str, value: Any) -> Sequence[documents.Document]:
    return list(documents.parse(file, json.dumps(value).encode()))


def outdated(names: Sequence[str]) -> Failure:
    """Return the refusal of a plan that was made for another world."""
    return Failure(
        f"the world changed since this plan was made ({OUTDATED}); nothing further is applied",
        *(_cut(f"  {name}") for name in names[:MOST_LINES]),
        "make a new one with `ma plan`, read it, and apply that",
    )


def differing(one: Sequence[Mapping[str, Any]], two: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return what two plans say differently, by name."""

    def named(changes: Sequence[Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
        parts = {change["part"]: change.get("kind") or WORDS.get(change["part"], "") for change in changes}
        return {f"{change.get('kind') or parts[change['part']]} {change['name']}": change for change in changes}

    before, after = named(one), named(two)
    return sorted(name for name in {*before, *after} if before.get(name) != after.get(name))
