"""`ma apply`, `get`, `describe` and `delete` for every kind.  Knows none of them by name, except what a project is."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from api.cli import names, present
from api.cli.context import client, say, warn
from api.cli.exits import OK, REFUSED, USAGE, Failure
from api.cli.failures import api_lines
from api.errors import ApiError, Unavailable


def apply(
    files: Sequence[str], *, namespace: str, dry_run: bool, manager: str, force: bool = False, replace: bool = False
) -> int:
    """Apply documents in the order in which they depend on each other, with a report each.  Returns the exit code."""
    from api.cli import documents

    found = documents.load(files, namespace=namespace)
    bad = 0
    with client() as api:
        for document in found:
            for warning in document.warnings:
                warn(warning)
            if document.resource is None:
                bad += 1
                for fault in document.faults:
                    warn(fault)
                continue
            title = f"{document.resource.DESCRIPTOR.name} {document.resource.metadata.name}"
            try:
                _, what = api.apply(document.resource, manager, force=force, replace=replace, dry_run=dry_run)
                say(f"{title} {what}{' (dry run)' if dry_run else ''}")
            except Unavailable:
                raise
            except ApiError as error:
                bad += 1
                first, *rest = api_lines(error)
                warn("\n".join((f"{document.where}: {title} refused: {first.removeprefix('ma: ')}", *rest)))
    if len(found) > 1:
        say(f"{len(found) - bad} of {len(found)} documents applied")
    return REFUSED if bad else OK


def get(kind_name: str, name: str, *, namespace: str, selector: str, form: str, limit: int) -> None:
    """Print one object or a list of them."""
    if form not in present.FORMATS:
        raise Failure(f"unknown output {form!r}: use {', '.join(present.FORMATS)}", code=USAGE)
    kind = names.kind(kind_name)
    with client() as api:
        if name:
            items = [api.get(kind.name, scope(kind.name, namespace, name), name)]
        else:
            items = api.list(kind.name, namespace, selector=selector, limit=limit)
    present.show(kind, items, form, single=bool(name), all_namespaces=not namespace)


def describe(kind_name: str, name: str, *, namespace: str) -> None:
    """Print everything that is known about one object."""
    kind = names.kind(kind_name)
    with client() as api:
        found = api.get(kind.name, scope(kind.name, namespace, name), name)
    for line in present.describe(found):
        say("".join(char if char.isprintable() else " " for char in line))


def delete(kind_name: str, object_names: Sequence[str], *, namespace: str, yes: bool) -> int:
    """Delete objects by name.  A project takes everything in it along: that wants a yes."""
    kind = names.kind(kind_name)
    if kind.name == "Project" and not yes:
        _confirm(object_names)
    bad = 0
    with client() as api:
        for name in object_names:
            try:
                api.delete(kind.name, scope(kind.name, namespace, name), name)
                say(f"{kind.name} {name} deleted")
            except Unavailable:
                raise
            except ApiError as error:
                bad += 1
                warn("\n".join(api_lines(error)))
    return REFUSED if bad else OK


def scope(kind_name: str, namespace: str, name: str) -> str:
    """Return the namespace of an object: a project lives in the one of its own name.  Raises Failure without one."""
    if kind_name == "Project":
        return namespace or name
    if not namespace:
        raise Failure("which project?  Give it with -n", code=USAGE)
    return namespace


def _confirm(object_names: Sequence[str]) -> None:
    text = ", ".join(object_names)
    if not sys.stdin.isatty():
        raise Failure(f"deleting project {text} deletes everything in it: add --yes", code=USAGE)
    say(f"Deleting project {text} deletes everything in it.  Type its name to go on:")
    if sys.stdin.readline().strip() != text:
        raise Failure("nothing was deleted")
