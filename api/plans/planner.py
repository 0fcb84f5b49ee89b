"""Plans an apply: writes it into an overlay of the store, with every check, and compares what follows from both."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

from google.protobuf.message import Message

from api.admission import refuse
from api.apply import Terms, apply, manager_faults, unpacked
from api.apply_fields import base_of
from api.client import MANAGER
from api.errors import FieldViolation, Unavailable
from api.gen.michelangelo.platform.v1 import resource_service_pb2 as wire
from api.kinds import kinds
from api.plans.effects import Effects, Item, Part, Schemas, State
from api.plans.fields import HIDDEN, changes, fields_of, is_hidden, shortened, takeover
from api.plans.overlay import Overlay
from api.resources import Resources
from api.store.base import Key, Query
from api.store.values import key_of
from api.workflows import Workflow

MOST_OBJECTS = 500
LONGEST_ASK_S = 2.0


def given(request: Any) -> list[Any]:
    """Return the resources of a PlanRequest.  Raises InvalidArgument with every fault."""
    faults = list(manager_faults(request.field_manager or MANAGER))
    found = []
    if not request.objects or len(request.objects) > MOST_OBJECTS:
        told = f"has {len(request.objects)} entries: give 1 to {MOST_OBJECTS} resources"
        refuse([FieldViolation("objects", told)], "MISSING_FIELD" if not request.objects else "TOO_MANY")
    for position, packed in enumerate(request.objects):
        path = f"objects[{position}]"
        resource, wrong = unpacked(packed, path)
        faults += [one if resource is None else replace(one, field=f"{path}.{one.field}") for one in wrong]
        found.append(resource)
    refuse(faults)
    return found


def terms_of(request: Any) -> Terms:
    """Return how what a PlanRequest holds would be declared."""
    return Terms(request.field_manager or MANAGER, request.force, request.replace, dry_run=True)


class Once:
    """Asks for the schemas of each template once a plan, and not for long.  `ask`: who knows them."""

    def __init__(self, ask: Schemas) -> None:
        self._ask = ask
        self._known: dict[str, asyncio.Task[Mapping[str, Any]]] = {}

    async def schemas(self, workflow: Workflow) -> Mapping[str, Any]:
        """Return the JSON Schema of every parameter.  Raises NotFound, Unavailable."""
        if workflow.authored.graph:
            return await self._ask(workflow)
        if workflow.template not in self._known:
            self._known[workflow.template] = asyncio.ensure_future(self._in_time(workflow))
        return await self._known[workflow.template]

    async def _in_time(self, workflow: Workflow) -> Mapping[str, Any]:
        try:
            async with asyncio.timeout(LONGEST_ASK_S):
                return await self._ask(workflow)
        except TimeoutError:
            raise Unavailable("Airflow does not answer in time") from None


class Planner:
    """Plans applies.  `schemas`: of a workflow's parameters, as the controllers ask for them."""

    def __init__(self, resources: Resources, schemas: Schemas, visible: Collection[str] | None = None) -> None:
        self._before = resources
        self._overlay = Overlay(resources.store)
        self._after = resources.on(self._overlay.as_store())
        self._schemas = Once(schemas).schemas
        self._visible = visible

    async def plan(self, objects: Sequence[Any], terms: Terms) -> Message:
        """Return the plan of an apply.  `terms`: of a dry run.  Raises what the apply would raise."""
        before, after = Effects(), Effects()
        bases: dict[Item, str] = {}
        for resource in objects:
            key = key_of(resource)
            item = Item(Part.RESOURCE, key.kind, key.namespace, key.name)
            stored = await self._after.find(key)
            if item not in bases:
                bases[item] = base_of(stored)
                if stored is not None:
                    before.items[item] = fields_of(stored)
            made, _ = await apply(self._after, resource, terms)
            self._overlay.put(key, made)
            after.items[item] = fields_of(made)
            if stored is not None and (note := takeover(stored, made, terms.manager)):
                after.notes[item] = note
        await self._follow(before, after)
        return answer(before, after, bases)

    async def _follow(self, before: Effects, after: Effects) -> None:
        """Add what follows from the resources."""
        pipelines = await self._pipelines()
        one, two = (State(reads, self._schemas, self._visible) for reads in (self._before, self._after))
        deployments = self._applied("Deployment")
        models = self._applied("Model")
        was = await one.effects(pipelines, deployments, models)
        will = await two.effects(pipelines, deployments, models)
        for of, item in will.revisions.items():
            if await self._before.find(Key("Revision", item.namespace, item.name)) is not None:
                # One that was made before is not made again.
                before.items[item] = will.items[item]
            elif of in was.revisions:
                will.items[item] = {**will.items[item], "parent": was.revisions[of].name}
        before.items |= {item: fields for item, fields in was.items.items() if item.part != Part.REVISION}
        after.items |= will.items
        after.notes |= will.notes
        for item in [item for item in {*was.items, *will.items} if item.part == Part.DEPLOYMENT]:
            # That it is made is told of the resource; others may roll out to it already.
            before.items.setdefault(item, {})
            after.items.setdefault(item, {})

    def _applied(self, kind: str) -> list[Key]:
        return [key for key in self._overlay.planned if key.kind == kind]

    async def _pipelines(self) -> list[Key]:
        """Return the pipelines that the resources have to do with: they, those of triggers, those of projects."""
        found = self._applied("Pipeline")
        for key in self._applied("TriggerRun"):
            trigger: Any = self._overlay.planned[key]
            found.append(Key("Pipeline", trigger.spec.pipeline.namespace or key.namespace, trigger.spec.pipeline.name))
        for key in self._applied("Project"):
            stored = await self._before.find(key)
            planned: Any = self._overlay.planned[key]
            if stored is not None and stored.spec.root_dir != planned.spec.root_dir:
                listed = (await self._before.list("Pipeline", Query(namespace=key.namespace))).items
                found += [key_of(pipeline) for pipeline in listed]
        return list(dict.fromkeys(found))


def answer(before: Effects, after: Effects, bases: dict[Item, str]) -> Message:
    """Return a plan as its message."""
    response = wire.PlanResponse()
    digest = hashlib.sha256()
    for item in sorted({*before.items, *after.items}):
        one, two = before.items.get(item), after.items.get(item)
        differing = changes(one, two)
        action = Part.UNCHANGED if not differing else Part.CHANGED
        if one is None or two is None:
            action = Part.CREATED if one is None else Part.REMOVED
        note, base = after.notes.get(item, ""), bases.get(item, "")
        entry = [*item, action, differing, note, base, sorted((one or {}).items(), key=lambda pair: pair[0])]
        digest.update(json.dumps(entry, sort_keys=True, ensure_ascii=False).encode() + b"\n")
        told = response.changes.add(
            part=item.part,
            action=action,
            kind=item.kind,
            namespace=item.namespace,
            name=item.name,
            note=note,
            base=base,
        )
        kind = kinds().get(item.kind)
        for path, was, will in differing:
            hidden = kind is not None and is_hidden(kind, path)
            told.fields.add(
                field=path,
                before=HIDDEN if hidden and was else shortened(was),
                after=HIDDEN if hidden and will else shortened(will),
            )
    response.digest = digest.hexdigest()
    return response
