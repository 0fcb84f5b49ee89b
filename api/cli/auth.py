"""What `ma auth` asks the server and how it says it.  Decides nothing."""

from __future__ import annotations

from api.auth.rights import OTHERS, READS, WRITES
from api.cli import names
from api.cli.context import client, say
from api.cli.exits import OK, REFUSED, USAGE, Failure

VERBS = {verb.lower(): verb for verb in sorted((*READS, *WRITES, *OTHERS))}


def whoami() -> None:
    """Print who calls, and its groups."""
    with client() as api:
        found = api.can_i()
    say(found.subject)
    for group in found.groups:
        say(f"  {group}")


def can_i(verb: str, kind: str, *, namespace: str) -> int:
    """Print whether the caller may, and return the exit code."""
    asked = _verb(verb), names.kind(kind).name
    with client() as api:
        found = api.can_i(*asked, namespace)
    say("yes" if found.allowed else f"no: {found.reason}")
    return OK if found.allowed else REFUSED


def who_can(verb: str, kind: str, *, namespace: str) -> None:
    """Print who may, a line each."""
    asked = _verb(verb), names.kind(kind).name
    with client() as api:
        found = api.who_can(*asked, namespace)
    for subject in found or ["nobody but whoever runs the platform"]:
        say(subject)


def _verb(text: str) -> str:
    found = VERBS.get(text.lower().replace("-", "").replace("_", ""))
    if found is None:
        raise Failure(f"unknown verb {text[:64]!r}: use {', '.join(VERBS)}", code=USAGE)
    return found
