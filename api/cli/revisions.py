"""`ma revision list` and `diff`, and `ma pipeline rollback`: pipelines as they were.  Reads and applies by the API."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from api.cli import output, plans, present
from api.cli.context import client, say
from api.cli.exits import USAGE, Failure
from api.client import Client

WORDS = {"created": "created again", "configured": "rolled back", "unchanged": "unchanged"}


def show(pipeline: str, *, namespace: str, form: str) -> None:
    """Print the revisions of a pipeline, newest first."""
    from api.kinds import kinds

    with client() as api:
        found = api.find("Pipeline", namespace, pipeline)
        listed = of_pipeline(api, namespace, pipeline)
    if form != "table":
        present.show(kinds()["Revision"], listed, form, single=False, all_namespaces=False)
        return
    if not listed:
        raise Failure(f"there is no Pipeline {pipeline!r} with revisions in {namespace!r}")
    current = "" if found is None else found.status.latest_revision.name
    rows = [
        [
            "*" if revision.metadata.name == current else "",
            revision.metadata.name,
            revision.spec.parent.name or "-",
            revision.spec.git_commit.git_ref[:12] or "-",
            revision.spec.git_commit.branch or "-",
            present.age(revision),
        ]
        for revision in listed
    ]
    output.table(["", "NAME", "PARENT", "COMMIT", "BRANCH", "AGE"], rows)


def of_pipeline(api: Client, namespace: str, pipeline: str) -> list[Any]:
    """Return the revisions of a pipeline, newest first."""
    found = api.list("Revision", namespace, equal={"base_resource.name": pipeline, "base_type": "Pipeline"})
    return sorted(found, key=lambda one: one.metadata.creationTimestamp.ToNanoseconds(), reverse=True)


def diff(name: str, other: str, *, namespace: str, form: str) -> None:
    """Print how a revision differs from another one, or from the one before it."""
    if form not in plans.FORMATS:
        raise Failure(f"unknown output {form!r}: use {', '.join(plans.FORMATS)}", code=USAGE)
    with client() as api:
        revision = api.get("Revision", namespace, name)
        before = other or revision.spec.parent.name
        against = api.find("Revision", namespace, before) if before else None
        if other and against is None:
            api.get("Revision", namespace, other)
    fields = differences(against, revision)
    if form == "json":
        print(output.as_json({"before": before, "after": name, "fields": fields}))
        return
    say(f"{before or 'nothing'} -> {name}{'' if against is not None or not before else ' (the first is gone)'}")
    for line in plans.field_lines(fields, most=len(fields)):
        say(line)
    if not fields:
        say("    the same")


def differences(one: Any | None, two: Any) -> list[dict[str, Any]]:
    """Return the fields in which the contents of two revisions differ."""
    from api.messages.plain import plain
    from api.plans.fields import changes, flat

    def spec(revision: Any | None) -> dict[str, Any]:
        if revision is None:
            return {}
        found = dict(flat(plain(revision.spec.content).get("spec", {})))
        found.pop("", None)
        return found

    values = changes(spec(one), spec(two))
    return [{"field": field, "before": plans._value(was), "after": plans._value(now)} for field, was, now in values]


def rollback(pipeline: str, to: str, *, namespace: str, dry_run: bool) -> None:
    """Apply a pipeline as it was in an older revision.  `to`: its name or the end of it; empty is the one before."""
    from api.revisions import content_of, is_of

    with client() as api:
        revision = _wanted(api, namespace, pipeline, to)
        was = content_of(revision)
        if was is None or not is_of(revision, was.metadata) or was.metadata.name != pipeline:
            raise Failure(f"{revision.metadata.name} is no revision of Pipeline {pipeline!r} (WRONG_REVISION)")
        resource = _fresh(was)
        if dry_run:
            planned = api.plan([resource], force=True, replace=True)
            for line in plans.lines(plans.as_plain(planned, [resource])["changes"]):
                say(line)
            return
        _, what = api.apply(resource, force=True, replace=True)
    say(f"Pipeline {pipeline} {WORDS[what]}: it is as in {revision.metadata.name}")


def _wanted(api: Client, namespace: str, pipeline: str, to: str) -> Any:
    if to:
        found = api.find("Revision", namespace, to) or api.find("Revision", namespace, f"pipeline-{pipeline}-{to}")
        if found is None:
            raise Failure(f"there is no Revision {to[:64]!r} in {namespace!r}: {_those(api, namespace, pipeline)}")
        return found
    current = api.get("Pipeline", namespace, pipeline).status.latest_revision.name
    here = api.find("Revision", namespace, current) if current else None
    before = "" if here is None else here.spec.parent.name
    found = api.find("Revision", namespace, before) if before else None
    if found is None:
        told = f"Pipeline {pipeline!r} has no revision before {current or 'this one'} (NO_GOOD_REVISION)"
        raise Failure(f"{told}: name one with --to; {_those(api, namespace, pipeline)}")
    return found


def _those(api: Client, namespace: str, pipeline: str) -> str:
    names: Sequence[str] = [one.metadata.name for one in of_pipeline(api, namespace, pipeline)]
    return f"there are {', '.join(names[:5])}" if names else f"Pipeline {pipeline!r} has none"


def _fresh(was: Any) -> Any:
    """Return a pipeline as a document declares it: without what the server keeps."""
    made = type(was)()
    made.type_meta.CopyFrom(was.type_meta)
    made.metadata.namespace, made.metadata.name = was.metadata.namespace, was.metadata.name
    made.spec.CopyFrom(was.spec)
    return made
