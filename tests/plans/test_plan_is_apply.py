"""What a plan says is what the apply does: generated changes, each planned, applied, and looked at where it ends up."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from api.errors import ApiError
from api.gen.michelangelo.platform.v1 import resource_service_pb2 as wire
from api.kinds import kinds
from api.workflows import TEMPLATE_TYPE, typed
from tests.plans.edits import DEPLOYMENTS, Users
from tests.plans.owners import Table, few
from tests.plans.world import PROJECT, Seen, World, spec_of

PARTS = ("REVISION", "DAG", "SCHEDULE", "BACKFILL", "DEPLOYMENT")
# How many changes `make test` tries, and the long lane.
FEW, MANY = 15, 100
# What becomes of fields of several managers; each must have happened.
OWNERSHIP = {"APPLY_CONFLICT", "FORCED", "TAKEN AWAY", "LEFT TO OTHERS"}


async def test_what_a_plan_says_is_what_the_apply_does(tmp_path: Path) -> None:
    told = await changes(tmp_path, seed=1, wanted=FEW)
    assert told >= {"CREATED", "CHANGED", "UNCHANGED"}


@pytest.mark.robustness
async def test_a_hundred_plans_are_what_their_applies_do(tmp_path: Path) -> None:
    told = await changes(tmp_path, seed=2, wanted=MANY)
    assert told >= {"CREATED", "CHANGED", "REMOVED", "UNCHANGED", *OWNERSHIP}


async def test_an_entry_that_goes_takes_the_schedule_of_its_trigger_along(tmp_path: Path) -> None:
    project, pipeline = Users(seed=5).first()
    # All that the template asks for: whether the trigger fits is asked once the pipeline is built, perhaps at once.
    values = {"rows": 5, "deployment": DEPLOYMENTS[0]}
    pipeline.spec.manifest.content.Pack(typed(TEMPLATE_TYPE, values), deterministic=True)
    pipeline.spec.manifest.trigger_map["daily"].cron_schedule.cron = "0 3 * * *"
    trigger = kinds()["TriggerRun"].new(PROJECT, "nightly")
    trigger.spec.pipeline.name, trigger.spec.source_trigger_name = pipeline.metadata.name, "daily"
    trigger.spec.auto_flip = True
    async with World(tmp_path) as world:
        for resource in (project, pipeline, trigger):
            await world.ask("apply", resource)
        await world.rest()
        del pipeline.spec.manifest.trigger_map["daily"]
        plan, before = await world.ask("plan", [pipeline]), await world.seen()
        await world.ask("apply", pipeline)
        await world.rest()
        judge(plan, before, await world.seen(), "an entry that goes")
        (gone,) = [change for change in plan.changes if change.action == wire.PlannedChange.REMOVED]
        assert gone.name == f"{PROJECT}.{pipeline.metadata.name}.nightly"


async def test_a_plan_tells_what_becomes_of_the_fields_of_others(tmp_path: Path) -> None:
    """In one order: what others set stays, what goes from a document goes, a conflict is one in both, or force."""
    users = Users(seed=5)
    project, pipeline = users.first()
    pipeline.spec.description = pipeline.spec.owner.name = "mine"
    theirs = kinds()["Pipeline"].new(PROJECT, pipeline.metadata.name)
    theirs.spec.owner.proxy_user = theirs.metadata.labels["tier"] = "theirs"
    trial = Trial(seed=5)
    async with World(tmp_path) as world:

        async def both(resource: Any, **terms: Any) -> dict[str, tuple[str, str]]:
            """Plan and apply; return what the plan said of the resource's fields."""
            plan, was = await world.ask("plan", [resource], **terms), await stored(world, resource)
            if terms.get("replace"):
                await world.ask("apply", resource, **terms)
            else:
                await trial.apply(world, resource, terms)
                await trial.judge(world, [resource], str(terms))
            await world.rest()
            await judge_resources(world, plan, [resource], {resource.metadata.name: was})
            (told,) = [change for change in plan.changes if change.kind == resource.DESCRIPTOR.name]
            notes.append(told.note)
            return {each.field: (each.before, each.after) for each in told.fields}

        notes: list[str] = []
        await both(project)
        await both(pipeline)
        assert both_unset(await both(theirs, manager="ci"), {"spec.owner.proxyUser", "metadata.labels[tier]"})
        pipeline.spec.description = ""
        assert await both(pipeline) == {"spec.description": ('"mine"', "")}
        pipeline.spec.owner.proxy_user = "mine too"
        with pytest.raises(ApiError) as refused:
            await world.ask("plan", [pipeline])
        await trial.refused(world, [pipeline], {}, refused.value)
        assert (refused.value.reason, [one.field for one in refused.value.violations]) == (
            "APPLY_CONFLICT",
            ["spec.owner.proxy_user"],
        )
        assert await both(pipeline, force=True) == {"spec.owner.proxyUser": ('"theirs"', '"mine too"')}
        assert notes[-1] == "takes over spec.owner.proxy_user of 'ci'"
        theirs.spec.owner.proxy_user = ""
        del theirs.metadata.labels["tier"]
        assert await both(theirs, manager="ci") == {"metadata.labels[tier]": ('"theirs"', "")}
        found = await world.ask("get", "Pipeline", PROJECT, pipeline.metadata.name)
        found.spec.description = "by hand"
        await world.ask("update", found)
        assert await both(pipeline) == {}
        assert await both(pipeline, force=True, replace=True) == {"spec.description": ('"by hand"', "")}


def both_unset(told: dict[str, tuple[str, str]], fields: set[str]) -> bool:
    """Whether nothing is told but of fields that were not set."""
    return {field for field, (before, _) in told.items() if not before} == fields == set(told)


async def changes(folder: Path, *, seed: int, wanted: int) -> set[str]:
    """Plan and apply so many changes by several managers; return what the plans told of."""
    trial = Trial(seed)
    async with World(folder) as world:
        edit, terms, done = trial.users.first(), dict[str, Any](), 0
        while done < wanted:
            try:
                plan = await world.ask("plan", edit, **terms)
            except ApiError as refused:
                # What a plan refuses, the apply refuses.
                await trial.refused(world, edit, terms, refused)
                forced = refused.reason == "APPLY_CONFLICT" and trial.users.rng.random() < 0.6
                edit, terms = (edit, {**terms, "force": True}) if forced else await trial.next(world)
                continue
            where = f"seed {seed}, change {done}"
            before, specs = await world.seen(), {one.metadata.name: await stored(world, one) for one in edit}
            for resource in edit:
                await trial.apply(world, resource, terms)
            await world.rest()
            judge(plan, before, await world.seen(), where)
            await judge_resources(world, plan, edit, specs)
            await trial.judge(world, edit, where)
            trial.told |= {wire.PlannedChange.Action.Name(change.action) for change in plan.changes}
            again = await world.ask("plan", edit, **terms)
            assert all(change.action == wire.PlannedChange.UNCHANGED for change in again.changes), again
            done += 1
            edit, terms = await trial.next(world)
    return trial.told


class Trial:
    """One user's documents, what another manager declares, what is written by hand; and what must come of it."""

    def __init__(self, seed: int) -> None:
        self.users, self.told = Users(seed), set[str]()
        self._table, self._wanted = Table(), dict[tuple[str, str], dict[str, str]]()

    async def next(self, world: World) -> tuple[list[Any], dict[str, Any]]:
        """Return what is applied next, and how, after what somebody may have written by hand."""
        if self.users.rng.random() < 0.3 and (key := self.users.by_hand()):
            found = await world.ask("get", key[0], PROJECT, key[1])
            was = few(found)
            self.users.write(found)
            written = await world.ask("update", found)
            self._table.written(key, was, few(written))
            await world.rest()
        others = self.users.others() if self.users.rng.random() < 0.25 else []
        if others:
            return others, {"manager": "ci", "force": self.users.rng.random() < 0.5}
        return self.users.edit() or self.users.first(), {}

    async def apply(self, world: World, resource: Any, terms: Mapping[str, Any]) -> None:
        """Apply a resource, and note what must have become of it."""
        key, manager = key_of(resource), terms.get("manager", "ma")
        live = few(await found(world, resource))
        taken = self._table.conflicts(key, live, few(resource), manager)
        if taken and not terms.get("force"):
            with pytest.raises(ApiError) as refused:
                await world.ask("apply", resource, **terms)
            assert {one.field for one in refused.value.violations} == taken
            raise refused.value
        await world.ask("apply", resource, **terms)
        if taken:
            self.told.add("FORCED")
        self._wanted[key] = self._table.applied(key, live, few(resource), manager)
        if live.keys() - self._wanted[key].keys():
            self.told.add("TAKEN AWAY")
        if self._wanted[key].keys() - few(resource).keys():
            self.told.add("LEFT TO OTHERS")
        if manager == "ma":
            self.users.applied(resource)

    async def refused(self, world: World, edit: list[Any], terms: Mapping[str, Any], refused: ApiError) -> None:
        """Apply what a plan refused: it is refused too, for the same reason."""
        told: list[ApiError] = []
        for resource in edit:
            try:
                await self.apply(world, resource, terms)
            except ApiError as error:
                told.append(error)
                break
        assert [(error.code, error.reason) for error in told] == [(refused.code, refused.reason)]
        assert [one.field for one in told[0].violations] == [one.field for one in refused.violations]
        self.told.add(refused.reason)
        await world.rest()

    async def judge(self, world: World, edit: list[Any], where: str) -> None:
        """Compare what is stored with what the table says."""
        for resource in edit:
            assert few(await found(world, resource)) == self._wanted[key_of(resource)], where


def key_of(resource: Any) -> tuple[str, str]:
    return resource.DESCRIPTOR.name, resource.metadata.name


async def found(world: World, resource: Any) -> Any | None:
    return await world.ask("find", resource.DESCRIPTOR.name, resource.metadata.namespace, resource.metadata.name)


async def stored(world: World, resource: Any) -> dict[str, Any] | None:
    there = await found(world, resource)
    return None if there is None else spec_of(there)


def judge(plan: Any, before: Seen, after: Seen, where: str) -> None:
    """Compare a plan with what became of everything but the resources themselves."""
    told: dict[tuple[str, str], Any] = {
        (wire.PlannedChange.Part.Name(change.part), change.name): change
        for change in plan.changes
        if wire.PlannedChange.Part.Name(change.part) in PARTS
    }
    for key in {*before, *after, *told}:
        # Of a deployment a plan tells how it changes; that it is made is told of the resource.
        none: Any = {} if key[0] == "DEPLOYMENT" else None
        one, two = before.get(key, none), after.get(key, none)
        happened = "CREATED" if one is None else "REMOVED" if two is None else "CHANGED" if one != two else "UNCHANGED"
        if key not in told:
            assert happened == "UNCHANGED", f"{where}: {key} is {happened}, the plan says nothing: {one} -> {two}"
            continue
        said = wire.PlannedChange.Action.Name(told[key].action)
        assert (one, two) != (None, None), f"{where}: {key} is nowhere, the plan says {said}"
        assert said == happened, f"{where}: {key} is {happened}, the plan says {told[key]}: {one} -> {two}"
        fields = {change.field: (change.before, change.after) for change in told[key].fields}
        assert fields == differing(one or {}, two or {}), f"{where}: {key}"


def differing(one: dict[str, Any], two: dict[str, Any]) -> dict[str, tuple[str, str]]:
    def shown(fields: dict[str, Any], name: str) -> str:
        return json.dumps(fields[name], sort_keys=True, ensure_ascii=False) if name in fields else ""

    return {
        name: (shown(one, name), shown(two, name))
        for name in {*one, *two}
        if one.get(name) != two.get(name) or (name in one) != (name in two)
    }


def read(fields: dict[str, tuple[str, str]]) -> dict[str, list[Any]]:
    """Return values as JSON means them: 2 and 2.0 are one number."""
    return {name: [json.loads(value) if value else "unset" for value in pair] for name, pair in fields.items()}


async def judge_resources(world: World, plan: Any, edit: list[Any], before: dict[str, Any]) -> None:
    """Compare what a plan says of the resources with what is stored."""
    told = {(change.kind, change.name): change for change in plan.changes if change.part == wire.PlannedChange.RESOURCE}
    assert set(told) == {(one.DESCRIPTOR.name, one.metadata.name) for one in edit}
    for resource in edit:
        change, one = told[resource.DESCRIPTOR.name, resource.metadata.name], before[resource.metadata.name]
        two = await stored(world, resource)
        assert two is not None
        fields = {
            each.field: (each.before, each.after)
            for each in change.fields
            if each.field.startswith(("spec", "metadata.labels"))
        }
        assert read(fields) == read(differing(one or {}, two))
        assert (change.action == wire.PlannedChange.CREATED) == (one is None)
