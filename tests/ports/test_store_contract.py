"""What every store promises of single objects, of what is committed with them, and of leases.

Lists are in `test_store_lists`, watches in `test_store_watch`.
"""

from __future__ import annotations

import asyncio
import uuid
from collections import Counter
from typing import Any

import pytest

from api.audit import first_break, read
from api.errors import AlreadyExists, ApiError, Conflict, FailedPrecondition, NotFound
from api.store.base import Key, Lease, Preconditions, Query, Request, Store, Trail, Write
from tests.ports.stores import KIND, WAIT_S, Place, create, entry, key, names, resource

ANY = Preconditions()


def request(text: str = "a", id_: str = "") -> Request:
    return Request("ada Create", id_ or str(uuid.uuid4()), text.encode().ljust(32, b"."))


async def changed(store: Store, made: Any, text: str, trail: Trail = Trail(), expect: str = "") -> Any:  # noqa: B008
    """Update an object from the version that it carries."""
    new = type(made).FromString(made.SerializeToString())
    new.spec.description = text
    return await store.update(Write(new, expect or made.metadata.resourceVersion), trail)


async def test_an_object_is_what_was_written_until_it_is_deleted(store: Store) -> None:
    made = await create(store, resource("a", text="größe 线 \x00 \x01", team="x"))
    assert made.metadata.resourceVersion == str(await store.revision())
    assert await store.get(key("a")) == made
    updated = await changed(store, made, "other")
    assert int(updated.metadata.resourceVersion) > int(made.metadata.resourceVersion)
    assert (await store.get(key("a"))).spec.description == "other"
    gone = await store.delete(key("a"), ANY)
    assert gone.metadata.uid == made.metadata.uid
    assert int(gone.metadata.resourceVersion) > int(updated.metadata.resourceVersion)
    for call in (store.get(key("a")), store.delete(key("a"), ANY), changed(store, made, "late")):
        with pytest.raises(NotFound):
            await call


async def test_a_name_is_taken_once_in_each_namespace_and_kind(store: Store) -> None:
    made = await create(store, resource("a"))
    before = await store.revision()
    with pytest.raises(AlreadyExists, match=made.metadata.uid):
        await create(store, resource("a"))
    assert await store.revision() == before
    await create(store, resource("a", namespace="other"), resource("a", kind="Model"))
    assert await names(store, KIND, Query()) == ["a", "a"]


async def test_one_of_two_writers_from_the_same_version_wins(place: Place) -> None:
    stores = [await place.open(), await place.open()]
    made = await create(stores[0], resource("a", text="0"))
    for number in range(10):
        ended = await asyncio.gather(
            *(changed(store, made, f"{number}-{n}") for n, store in enumerate(stores * 3)), return_exceptions=True
        )
        won = [one for one in ended if not isinstance(one, BaseException)]
        refused = [one for one in ended if isinstance(one, BaseException)]
        assert len(won) == 1
        assert all(isinstance(one, Conflict) and made.metadata.resourceVersion in one.message for one in refused)
        made = won[0]
        assert [await store.get(key("a")) for store in stores] == [made, made]


async def test_many_writers_lose_no_update(place: Place) -> None:
    stores, each = [await place.open(), await place.open()], 15
    await create(stores[0], resource("a", text="0"))

    async def add(store: Store) -> None:
        done = 0
        while done < each:
            made = await store.get(key("a"))
            try:
                await changed(store, made, str(int(made.spec.description) + 1))
            except Conflict:
                continue
            done += 1

    await asyncio.gather(*(add(store) for store in stores * 3))
    assert (await stores[1].get(key("a"))).spec.description == str(6 * each)


async def test_a_delete_checks_what_it_is_asked_to(store: Store) -> None:
    made = await create(store, resource("a"))
    before = await store.revision()
    for wrong in (Preconditions(uid="other"), Preconditions(resource_version="999999")):
        with pytest.raises(Conflict):
            await store.delete(key("a"), wrong)
    assert await store.revision() == before
    await store.delete(key("a"), Preconditions(made.metadata.uid, made.metadata.resourceVersion))


async def test_nothing_is_written_beside_what_must_exist_and_does_not(store: Store) -> None:
    await create(store, resource("here"))
    before = await store.revision()
    for write in (store.create, lambda write: store.update(Write(resource("here"), "", write.must_exist))):
        with pytest.raises(FailedPrecondition) as refused:
            await write(Write(resource("a"), must_exist=(key("here"), key("absent"))))
        assert refused.value.reason == "REFERENCE_GONE"
        assert "absent" in refused.value.message
    assert await store.revision() == before
    await store.create(Write(resource("a"), must_exist=(key("here"),)))


async def test_a_read_that_begins_after_a_write_was_answered_sees_it(place: Place) -> None:
    writer, reader = await place.open(), await place.open()
    for number in range(30):
        made = await create(writer, resource(f"m-{number}"))
        assert await reader.get(key(f"m-{number}")) == made
        assert await reader.revision() >= int(made.metadata.resourceVersion)
        assert len((await reader.list(KIND, Query())).items) == number + 1


async def test_what_is_owned_goes_with_its_last_owner(store: Store) -> None:
    first, second = await create(store, resource("first")), await create(store, resource("second"))
    both = await create(store, resource("both", first, second))
    await create(store, resource("one", first), resource("deep", both), resource("alone"))
    namesake = resource("namesake")
    namesake.metadata.ownerReferences.add(kind=KIND, name="first", uid=str(uuid.uuid4()))
    await create(store, namesake)
    await store.delete(key("first"), ANY)
    assert await names(store, KIND, Query()) == ["alone", "both", "deep", "namesake", "second"]
    assert [owner.name for owner in (await store.get(key("both"))).metadata.ownerReferences] == ["second"]
    await store.delete(key("second"), ANY)
    assert await names(store, KIND, Query()) == ["alone", "namesake"]


async def test_orphans_stay_and_forget_their_owner(store: Store) -> None:
    owner = await create(store, resource("owner"))
    child = await create(store, resource("child", owner))
    await create(store, resource("grandchild", child))
    await store.delete(key("owner"), ANY, orphan=True)
    assert not (await store.get(key("child"))).metadata.ownerReferences
    assert [one.name for one in (await store.get(key("grandchild"))).metadata.ownerReferences] == ["child"]


async def test_an_object_with_finalizers_is_marked_and_goes_when_they_are_done(store: Store) -> None:
    owner = resource("held")
    owner.metadata.finalizers.append("a.example/one")
    owner = await create(store, owner)
    await create(store, resource("child", owner))
    marked = await store.delete(key("held"), ANY)
    assert marked.metadata.deletionTimestamp.seconds
    revision = await store.revision()
    assert (await store.delete(key("held"), ANY)).metadata == marked.metadata
    assert await store.revision() == revision, "marked once"
    assert await names(store, KIND, Query()) == ["child", "held"]
    await store.delete(key("held"), ANY, finalized=True)
    assert await names(store, KIND, Query()) == []


async def test_an_owned_object_with_finalizers_is_marked_only(store: Store) -> None:
    owner = await create(store, resource("owner"))
    child = resource("child", owner)
    child.metadata.finalizers.append("a.example/one")
    await create(store, child)
    await store.delete(key("owner"), ANY)
    assert (await store.get(key("child"))).metadata.HasField("deletionTimestamp")


async def test_a_repeated_request_has_one_effect_and_the_same_answer(store: Store) -> None:
    asked = request()
    assert await store.remembered(asked, KIND) is None
    made = await store.create(Write(resource("a")), Trail(request=asked))
    assert await store.create(Write(resource("a")), Trail(request=asked)) == made
    assert await store.remembered(asked, KIND) == made
    again = request()
    updated = await changed(store, made, "b", Trail(request=again))
    assert await changed(store, made, "b", Trail(request=again)) == updated
    last = request()
    gone = await store.delete(key("a"), ANY, trail=Trail(request=last))
    repeated = await store.delete(key("a"), ANY, trail=Trail(request=last))
    assert (repeated.metadata.name, repeated.metadata.uid) == ("a", gone.metadata.uid)
    assert await store.revision() == int(gone.metadata.resourceVersion)


async def test_a_request_id_names_one_request(store: Store) -> None:
    asked = request("a")
    await store.create(Write(resource("a")), Trail(request=asked))
    other = Request(asked.scope, asked.id, b"b" * 32)
    for call in (store.create(Write(resource("b")), Trail(request=other)), store.remembered(other, KIND)):
        with pytest.raises(AlreadyExists) as refused:
            await call
        assert refused.value.reason == "REQUEST_ID_REUSED"
    elsewhere = Request("bob Create", asked.id, b"b" * 32)
    await store.create(Write(resource("b")), Trail(request=elsewhere))


async def test_a_refused_request_may_be_asked_again(store: Store) -> None:
    await create(store, resource("a"))
    asked = request()
    with pytest.raises(AlreadyExists):
        await store.create(Write(resource("a")), Trail(request=asked))
    await store.delete(key("a"), ANY)
    assert await store.create(Write(resource("a")), Trail(request=asked))


async def test_a_request_that_is_sent_many_times_at_once_has_one_effect(place: Place) -> None:
    stores = [await place.open(), await place.open()]
    before = await stores[0].revision()
    for number in range(5):
        trail = Trail(audit=entry(f"m-{number}"), request=request())
        made = await asyncio.gather(*(s.create(Write(resource(f"m-{number}")), trail) for s in stores * 4))
        assert len({one.metadata.uid for one in made}) == 1
    assert await stores[1].revision() == before + 5
    assert len(await stores[1].audit(0, 100)) == 5


async def test_the_audit_log_has_each_effect_once_in_an_unbroken_chain(place: Place) -> None:
    stores = [await place.open(), await place.open()]

    async def live(number: int) -> list[str]:
        store, name = stores[number % 2], f"m-{number % 7}"
        done = []
        for verb in ("Create", "Update", "Delete"):
            trail = Trail(audit=entry(name, f"{verb}-{number}"))
            try:
                if verb == "Create":
                    made = await store.create(Write(resource(name)), trail)
                elif verb == "Update":
                    made = await changed(store, made, str(number), trail)
                else:
                    await store.delete(key(name), Preconditions(uid=made.metadata.uid), trail=trail)
            except ApiError:
                break
            done.append(f"{verb}-{number}")
        return done

    effects = [verb for done in await asyncio.gather(*(live(number) for number in range(40))) for verb in done]
    await stores[0].record(entry("denied", "Denied"))
    records = await stores[1].audit(0, 1000)
    assert Counter(read(record.body).verb for record in records) == Counter([*effects, "Denied"])
    assert first_break(records) is None
    assert [record.number for record in records] == list(range(1, len(records) + 1))
    assert [record.number for record in await stores[1].audit(3, 2)] == [4, 5]
    assert len(effects) >= 21, "seven names at least live three times"


async def test_an_audit_record_tells_what_was_done(store: Store) -> None:
    made = await store.create(Write(resource("a")), Trail(audit=entry("a")))
    await changed(store, made, "b", Trail(audit=entry("a", "Update")))
    await store.delete(key("a"), ANY, trail=Trail(audit=entry("a", "Delete")))
    first, second, third = [read(record.body) for record in await store.audit(0, 10)]
    assert (first.before, first.after, first.uid) == ("", made.metadata.resourceVersion, made.metadata.uid)
    assert (second.before, third.before, third.after) == (first.after, second.after, "")
    assert len({first.digest, second.digest, third.digest}) == 3


async def test_record_and_request_come_together(store: Store) -> None:
    made, asked = await create(store, resource("a")), request()
    await store.record(entry("a", "Update"), asked, made)
    assert await store.remembered(asked, KIND) == made
    assert [read(record.body).verb for record in await store.audit(0, 10)] == ["Update"]


async def test_a_refused_write_leaves_no_trail(store: Store) -> None:
    await create(store, resource("a"))
    asked = request()
    with pytest.raises(AlreadyExists):
        await store.create(Write(resource("a")), Trail(audit=entry("a"), request=asked))
    assert not await store.audit(0, 10)
    assert await store.remembered(asked, KIND) is None


async def led(store: Store, holder: str) -> Lease:
    """Return the lease, as soon as the term of the one before has passed."""
    async with asyncio.timeout(WAIT_S):
        while (lease := await store.acquire("leader", holder, 30.0)) is None:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    return lease


async def test_a_lease_has_one_holder_at_a_time_and_each_new_one_a_greater_epoch(place: Place) -> None:
    stores = [await place.open(), await place.open()]
    first = await stores[0].acquire("leader", "a", 30.0)
    assert first is not None
    assert await stores[1].acquire("leader", "b", 30.0) is None
    renewed = await stores[0].acquire("leader", "a", 30.0)
    assert renewed is not None
    assert renewed.epoch == first.epoch
    assert await stores[1].acquire("other", "b", 30.0) is not None
    await stores[0].release(first)
    second = await stores[1].acquire("leader", "b", 0.2)
    assert second is not None
    assert second.epoch > first.epoch
    await stores[0].release(first)
    assert await stores[0].acquire("leader", "a", 30.0) is None, "who lost it cannot give it back"
    await asyncio.sleep(0.3)
    third = await stores[0].acquire("leader", "a", 30.0)
    assert third is not None
    assert third.epoch > second.epoch


async def test_one_of_many_takes_a_lease(place: Place) -> None:
    stores = [await place.open(), await place.open()]
    taken = await asyncio.gather(*(s.acquire("leader", f"h-{n}", 30.0) for n, s in enumerate(stores * 5)))
    assert len([lease for lease in taken if lease is not None]) == 1


async def test_what_a_former_leader_decided_is_refused(place: Place) -> None:
    stores = [await place.open(), await place.open()]
    first = await stores[0].acquire("leader", "a", 0.2)
    made = await stores[0].create(Write(resource("a")), Trail(fence=first))
    await asyncio.sleep(0.3)
    held = await changed(stores[0], made, "nobody else led", Trail(fence=first))
    second = await led(stores[1], "b")
    for call in (
        changed(stores[0], held, "late", Trail(fence=first)),
        stores[0].create(Write(resource("b")), Trail(fence=first)),
        stores[0].delete(key("a"), ANY, trail=Trail(fence=first)),
    ):
        with pytest.raises(Conflict) as refused:
            await call
        assert refused.value.reason == "DEPOSED"
    assert await changed(stores[1], held, "led by b", Trail(fence=second))


async def test_a_refused_write_among_many_touches_no_other(store: Store) -> None:
    await create(store, resource("taken"))
    before = await store.revision()
    wanted = ["a", "taken", "b", "taken", "c", "d", "taken"]
    ended = await asyncio.gather(*(store.create(Write(resource(name))) for name in wanted), return_exceptions=True)
    assert [isinstance(one, AlreadyExists) for one in ended] == [name == "taken" for name in wanted]
    assert await names(store, KIND, Query()) == ["a", "b", "c", "d", "taken"]
    assert await store.revision() == before + 4


async def test_what_was_answered_is_there_when_the_store_opens_again(place: Place) -> None:
    store = await place.open()
    lease = await store.acquire("leader", "a", 30.0)
    made = await create(store, resource("a", text="x" * 1000, team="x"), resource("b"))
    await store.close()
    await store.close()
    for call in (store.revision(), store.get(key("a")), store.list(KIND, Query()), store.create(Write(resource("c")))):
        with pytest.raises(FailedPrecondition) as refused:
            await call
        assert refused.value.reason == "STORE_CLOSED"
    again = await place.open()
    assert await again.get(key("b")) == made
    assert await again.revision() == int(made.metadata.resourceVersion)
    renewed = await again.acquire("leader", "a", 30.0)
    assert renewed is not None
    assert lease is not None
    assert renewed.epoch == lease.epoch


async def test_keys_are_strings_of_every_kind(store: Store) -> None:
    for odd in ("a'b", 'a"b', "a;b--", "a%b_", "größe", "x" * 253):
        await create(store, resource(odd))
        assert (await store.get(Key(KIND, "shop", odd))).metadata.name == odd
