"""What a plan says is what the apply does: generated changes, each planned, applied, and looked at where it ends up."""

import json
from pathlib import Path
from typing import Any

import pytest

from api.errors import ApiError
from api.gen.michelangelo.platform.v1 import resource_service_pb2 as wire
from api.kinds import kinds
from tests.plans.edits import Users
from tests.plans.world import PROJECT, Seen, World, spec_of

PARTS = ("REVISION", "DAG", "SCHEDULE", "BACKFILL", "DEPLOYMENT")
# How many changes `make test` tries, and the long lane.
FEW, MANY = 15, 100


async def test_what_a_plan_says_is_what_the_apply_does(tmp_path: Path) -> None:
    told = await changes(tmp_path, seed=1, wanted=FEW)
    assert {"CREATED", "CHANGED", "UNCHANGED"} <= told


@pytest.mark.robustness
async def test_a_hundred_plans_are_what_their_applies_do(tmp_path: Path) -> None:
    told = await changes(tmp_path, seed=2, wanted=MANY)
    assert told == {"CREATED", "CHANGED", "REMOVED", "UNCHANGED"}


async def test_an_entry_that_goes_takes_the_schedule_of_its_trigger_along(tmp_path: Path) -> None:
    users = Users(seed=3)
    project, pipeline = users.first()
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


async def changes(folder: Path, *, seed: int, wanted: int) -> set[str]:
    """Plan and apply so many changes; return which actions the plans told of."""
    users, told = Users(seed), set[str]()
    async with World(folder) as world:
        edit, done = users.first(), 0
        while done < wanted:
            try:
                plan = await world.ask("plan", edit)
            except ApiError as refused:
                # What a plan refuses, the apply refuses.
                await refusal(world, edit, refused, users)
                edit = users.edit()
                continue
            before, specs = await world.seen(), {one.metadata.name: await stored(world, one) for one in edit}
            for resource in edit:
                await world.ask("apply", resource)
                users.applied(resource)
            await world.rest()
            judge(plan, before, await world.seen(), f"seed {seed}, change {done}")
            await judge_resources(world, plan, edit, specs)
            told |= {wire.PlannedChange.Action.Name(change.action) for change in plan.changes}
            again = await world.ask("plan", edit)
            assert all(change.action == wire.PlannedChange.UNCHANGED for change in again.changes), again
            done += 1
            edit = users.edit() or users.first()
    return told


async def stored(world: World, resource: Any) -> dict[str, Any] | None:
    found = await world.ask("find", resource.DESCRIPTOR.name, resource.metadata.namespace, resource.metadata.name)
    return None if found is None else spec_of(found)


async def refusal(world: World, edit: list[Any], refused: ApiError, users: Users) -> None:
    """Apply what a plan refused: it is refused too, for the same reason."""
    told: list[ApiError] = []
    for resource in edit:
        try:
            await world.ask("apply", resource)
        except ApiError as error:
            told.append(error)
            break
        users.applied(resource)
    assert [(error.code, error.reason) for error in told] == [(refused.code, refused.reason)]
    await world.rest()


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
        fields = {each.field: (each.before, each.after) for each in change.fields if each.field.startswith("spec")}
        assert read(fields) == read(differing(one or {}, two))
        assert (change.action == wire.PlannedChange.CREATED) == (one is None)
