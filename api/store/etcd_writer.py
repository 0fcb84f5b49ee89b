"""The one way to write into etcd: effects that wait are carried out together, in one transaction.  Knows no kinds.

A round reads at one revision what the waiting effects need, computes each on top of those before it, and commits
if the head is still the one that was read; else it begins again.  Nobody is answered before the commit.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
import uuid
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from api.errors import ApiError, Unavailable
from api.gen.etcd import rpc_pb2 as rpc
from api.store.etcd_client import CompactedError, EtcdClient, LeaseGoneError, one
from api.store.etcd_draft import Draft, FullError
from api.store.etcd_history import History
from api.store.etcd_keys import Head, Keys

T = TypeVar("T")

MOST_JOBS = 40
MOST_KEYS = 100
PATIENCE_S = 10.0
FIRST_PAUSE_S = 0.001
LONGEST_PAUSE_S = 0.05
# How often others may be faster before a transaction asks them to wait; for how long they do, if it is never heard of.
MOST_LOST = 4
TURN_S = 2
COMPACT_EVERY = 1000
MOST_FORGOTTEN = 5000
REQUESTS_KEPT_S = 48 * 3600
# One etcd lease is shared by the requests of an hour, so that none is forgotten early.
LEASE_SHARED_S = 3600

log = logging.getLogger(__name__)

Work = Callable[[Draft], Awaitable[T]]


@dataclass(frozen=True)
class Job:
    """An effect that waits.  `keys`: what it will read for certain."""

    keys: Collection[bytes]
    work: Work[Any]
    done: asyncio.Future[Any]


class Turn:
    """The right of one transaction to be the next, for one that others overtook again and again.

    They see it when they begin, and wait; it ends with the transaction, or by itself if its holder dies.
    """

    def __init__(self, client: EtcdClient, keys: Keys) -> None:
        self._client = client
        self._key = keys.turn
        self._name = uuid.uuid4().hex.encode()
        self._lease = 0

    def is_free(self, holder: bytes | None) -> bool:
        """Whether nobody else is next."""
        return holder in (None, self._name)

    async def take(self) -> None:
        """Be the next, if nobody else is."""
        if not self._lease:
            self._lease = await self._client.grant(TURN_S)
        request = rpc.TxnRequest()
        request.compare.add(key=self._key, target=rpc.Compare.VERSION, version=0)
        request.success.add(request_put=rpc.PutRequest(key=self._key, value=self._name, lease=self._lease))
        try:
            await self._client.txn(request)
        except LeaseGoneError:
            self._lease = 0

    async def give_back(self) -> None:
        """Let others go on."""
        if self._lease:
            try:
                await self._client.revoke(self._lease)
            except ApiError as error:
                log.info("others wait %d s: %s", TURN_S, error.message)


class Writer:
    """Carries out effects one after the other.  `window`, `window_s`: how many changes are kept, and for how long."""

    def __init__(self, client: EtcdClient, keys: Keys, window: int, window_s: float) -> None:
        self._client = client
        self._keys = keys
        self._window = window
        self._waiting: deque[Job] = deque()
        self._task: asyncio.Task[None] | None = None
        self._lease, self._granted = 0, 0.0
        self._history = History(window_s)
        self._compacted = 0

    async def carry_out(self, keys: Collection[bytes], work: Work[T]) -> T:
        """Return what `work` returns once its effect is durable.  Raises what it raises.

        work: computes the effect on a draft; it is called again, on another draft, when somebody else wrote first.
        """
        job = Job(keys, work, asyncio.get_running_loop().create_future())
        self._waiting.append(job)
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._drain())
        done: T = await job.done
        return done

    async def close(self) -> None:
        """Wait for what is under way; the client is closed already."""
        if self._task is not None:
            await asyncio.gather(self._task, return_exceptions=True)

    async def _drain(self) -> None:
        while self._waiting:
            await self._carry(self._next_batch())

    def _next_batch(self) -> list[Job]:
        batch: list[Job] = []
        keys = 0
        while self._waiting and len(batch) < MOST_JOBS:
            keys += len(self._waiting[0].keys)
            if batch and keys > MOST_KEYS:
                break
            batch.append(self._waiting.popleft())
        return batch

    async def _carry(self, batch: Sequence[Job]) -> None:
        try:
            left = await self._settle(batch)
        except Exception as error:
            if len(batch) > 1 and not isinstance(error, Unavailable):
                # The fault may be one effect's alone, for example its size.
                for job in batch:
                    await self._carry([job])
                return
            for job in batch:
                _answer(job, error)
        else:
            self._waiting.extendleft(reversed(left))

    async def _settle(self, batch: Sequence[Job]) -> Sequence[Job]:
        """Carry out a batch and return the jobs that did not fit."""
        turn = Turn(self._client, self._keys)
        deadline, pause_s, lost = time.monotonic() + PATIENCE_S, FIRST_PAUSE_S, 0
        try:
            while True:
                draft = Draft(self._client, self._keys, uuid.uuid4().hex)
                try:
                    await draft.begin([self._keys.turn, *{key for job in batch for key in job.keys}])
                    if turn.is_free(await draft.read(self._keys.turn)):
                        outcomes = await _computed(draft, batch)
                        if await self._commit(draft):
                            break
                        lost += 1
                except CompactedError:
                    log.info("etcd forgot a revision within a transaction: it begins again")
                except LeaseGoneError:
                    self._lease = 0
                if time.monotonic() > deadline:
                    raise Unavailable("other servers write to etcd all the time: try again", reason="STORE_BUSY")
                await asyncio.sleep(pause_s * random.random())
                pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
                if lost >= MOST_LOST:
                    await turn.take()
        finally:
            await turn.give_back()
        for job, outcome in zip(batch, outcomes, strict=False):
            _answer(job, outcome)
        return batch[len(outcomes) :]

    async def _commit(self, draft: Draft) -> bool:
        """Write what a draft wants; False if somebody else wrote since it was read."""
        if not draft.writes:
            return True
        lease = await self._requests_lease() if draft.kept else 0
        self._history.saw(draft.head.revision, draft.at)
        request = _transaction(draft, lease, self._forgettable(draft.head, draft.begun_at))
        answer, doubted = await self._client.txn(request)
        if answer.succeeded:
            await self._forget_history()
            return True
        # An earlier try may have been carried out, and its answer lost: then this one found the head changed by it.
        return doubted and await self._is_written(draft)

    async def _is_written(self, draft: Draft) -> bool:
        if not draft.witness:
            return False
        found = (await self._client.range(one(draft.witness))).kvs
        return bool(found) and found[0].value == draft.writes[draft.witness]

    async def _requests_lease(self) -> int:
        now = time.monotonic()
        if not self._lease or now - self._granted > LEASE_SHARED_S:
            self._lease = await self._client.grant(REQUESTS_KEPT_S + LEASE_SHARED_S)
            self._granted = now
        return self._lease

    async def _forget_history(self) -> None:
        """Let etcd forget old states of keys, as its database would grow for ever otherwise."""
        old = self._history.old()
        if old.at < self._compacted + COMPACT_EVERY:
            return
        self._compacted = old.at
        try:
            await self._client.compact(old.at)
        except ApiError as error:
            log.warning("etcd does not compact: %s", error.message)

    def _forgettable(self, head: Head, began_at: int) -> int:
        """Return the newest of the changes that are to be forgotten now; that of the head if none is."""
        if began_at // COMPACT_EVERY == head.revision // COMPACT_EVERY:
            return head.compacted
        old = min(head.revision - self._window, self._history.old().revision, head.compacted + MOST_FORGOTTEN)
        return max(head.compacted, old)


async def _computed(draft: Draft, batch: Sequence[Job]) -> list[Any]:
    """Return what each job returned or raised, as far as the draft has room."""
    outcomes: list[Any] = []
    for job in batch:
        before = draft.mark()
        try:
            outcome = await job.work(draft)
        except (CompactedError, LeaseGoneError, Unavailable):
            raise
        except FullError:
            draft.back(before)
            break
        except Exception as error:
            draft.back(before)
            outcome = error
        if before.writes and not draft.room():
            draft.back(before)
            break
        outcomes.append(outcome)
    return outcomes


def _answer(job: Job, outcome: Any) -> None:
    if job.done.done():
        return
    if isinstance(outcome, Exception):
        job.done.set_exception(outcome)
    else:
        job.done.set_result(outcome)


def _transaction(draft: Draft, lease: int, forgotten: int) -> rpc.TxnRequest:
    """Return what a draft wants to write, without the changes up to `forgotten`."""
    keys, head = draft.keys, draft.head
    compacting = forgotten > head.compacted
    request = rpc.TxnRequest()
    for key, version in draft.compared.items():
        request.compare.add(key=key, target=rpc.Compare.MOD, mod_revision=version)
    for key, value in draft.writes.items():
        # A transaction neither writes nor deletes a key twice: what is forgotten at once is not written at all.
        if compacting and keys.change(0) <= key <= keys.change(forgotten):
            continue
        if value is None:
            request.success.add().request_delete_range.key = key
        else:
            put = rpc.PutRequest(key=key, value=value, lease=lease if key in draft.kept else 0)
            request.success.add(request_put=put)
    if compacting:
        dropped = rpc.DeleteRangeRequest(key=keys.change(0), range_end=keys.change(forgotten + 1))
        request.success.add(request_delete_range=dropped)
    value = replace(head, compacted=forgotten).encoded()
    request.success.add(request_put=rpc.PutRequest(key=keys.head, value=value))
    return request
