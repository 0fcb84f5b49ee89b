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
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from api.errors import ApiError, ResourceExhausted, Unavailable
from api.gen.etcd import kv_pb2 as kv
from api.gen.etcd import rpc_pb2 as rpc
from api.store.base import REQUESTS_KEPT_S
from api.store.etcd_client import CompactedError, EtcdClient, LeaseGoneError, one
from api.store.etcd_draft import Draft, FullError, Reads
from api.store.etcd_history import History
from api.store.etcd_keys import Head, Keys, read_head
from api.store.etcd_memory import Memory
from api.store.etcd_turn import Turn

T = TypeVar("T")

MOST_JOBS = 40
MOST_KEYS = 100
PATIENCE_S = 10.0
FIRST_PAUSE_S = 0.001
LONGEST_PAUSE_S = 0.05
# How often others may be faster before a transaction asks them to wait.
MOST_LOST = 4
COMPACT_EVERY = 1000
MOST_FORGOTTEN = 5000
# One etcd lease is shared by the requests of an hour, so that none is forgotten early.
LEASE_SHARED_S = 3600

log = logging.getLogger(__name__)

Work = Callable[[Draft], Awaitable[T]]


@dataclass(frozen=True)
class Job:
    """An effect that waits."""

    reads: Reads
    work: Work[Any]
    done: asyncio.Future[Any]


class Writer:
    """Carries out effects one after the other.  `window`, `window_s`: how many changes are kept, and for how long."""

    def __init__(self, client: EtcdClient, keys: Keys, window: int, window_s: float) -> None:
        self._client = client
        self._keys = keys
        self._window = window
        self._waiting: deque[Job] = deque()
        self._task: asyncio.Task[None] | None = None
        self._lease, self._granted = 0, 0.0
        # What our own last commit left: read from again until somebody else turns out to have written.
        self._memory: Memory | None = None
        self._history = History(window_s)
        self._compacted = 0

    async def carry_out(self, reads: Reads, work: Work[T]) -> T:
        """Return what `work` returns once its effect is durable.  Raises what it raises.

        work: computes the effect on a draft; it is called again, on another draft, when somebody else wrote first.
        """
        job = Job(reads, work, asyncio.get_running_loop().create_future())
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
            reads = self._waiting[0].reads
            keys += len(reads.keys) + len(reads.now) + len(reads.absent)
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
                began = time.monotonic()
                if (outcomes := await self._tried(batch, turn)) is not None:
                    break
                tried_s = time.monotonic() - began
                if time.monotonic() > deadline:
                    raise Unavailable("other servers write to etcd all the time: try again", reason="STORE_BUSY")
                if lost:
                    await asyncio.sleep(pause_s * random.random())
                    pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
                if lost >= MOST_LOST:
                    await turn.take(tried_s)
                lost += 1
        finally:
            await turn.give_back()
        for job, outcome in zip(batch, outcomes, strict=False):
            _answer(job, outcome)
        return batch[len(outcomes) :]

    async def _tried(self, batch: Sequence[Job], turn: Turn) -> list[Any] | None:
        """Carry out a batch and return what each job ended with, None if it has to begin again.

        It goes on from what this process wrote last, and from nothing after that turned out to be overtaken.
        """
        memory, self._memory = self._memory, None
        remembered = memory is not None
        if memory is None:
            found = await self._client.range(one(self._keys.head))
            stands = found.kvs[0] if found.kvs else kv.KeyValue()
            memory = Memory(read_head(stands.value or None), stands.mod_revision, found.header.revision)
        try:
            draft = await self._draft(memory, batch, guess=remembered)
            if remembered:
                draft.compare(self._keys.turn, 0)
            elif not turn.is_free(*await self._turn(draft)):
                return None
            outcomes = await _computed(draft, batch, sure=not remembered)
            if outcomes is None:
                draft = await self._draft(memory, batch, guess=False)
                draft.compare(self._keys.turn, 0)
                outcomes = await _computed(draft, batch, sure=True)
            if outcomes is None or not await self._commit(draft, turn, remembered=remembered):
                return None
        except CompactedError:
            log.info("etcd does not know a revision within a transaction: it begins again")
            return None
        except LeaseGoneError:
            self._lease = 0
            return None
        self._memory = memory if memory.stands else None
        return outcomes

    async def _draft(self, memory: Memory, batch: Sequence[Job], *, guess: bool) -> Draft:
        draft = Draft(self._client, self._keys, memory, uuid.uuid4().hex)
        await draft.begin([job.reads for job in batch], guess=guess)
        return draft

    async def _turn(self, draft: Draft) -> tuple[bytes | None, int]:
        """Return who is next and since which revision, and let the commit fail if that changes."""
        await draft.load_now([self._keys.turn])
        draft.compare(self._keys.turn)
        return await draft.read(self._keys.turn), draft.compared[self._keys.turn]

    async def _commit(self, draft: Draft, turn: Turn, *, remembered: bool) -> bool:
        """Write what a draft wants; False if somebody else wrote since it was read."""
        if not draft.writes:
            # An answer that changes nothing must not be older than what was acknowledged to others.
            return not remembered or await self._is_newest(draft)
        lease = await self._requests_lease() if draft.kept else 0
        self._history.saw(draft.head.revision, draft.memory.at)
        head = replace(draft.head, compacted=self._forgettable(draft.head, draft.memory.head.revision))
        try:
            answer, doubted = await self._client.txn(_transaction(draft, lease, head))
        except ResourceExhausted:
            # The transaction that reaches etcd's quota is refused, and carried out all the same.
            if await self._is_written(draft):
                return True
            raise
        if answer.succeeded:
            turn.ended()
            draft.memory.committed(head, answer.header.revision, draft.writes, self._keys.all_objects)
            await self._forget_history()
            return True
        # An earlier try may have been carried out, and its answer lost: then this one found the head changed by it.
        return doubted and await self._is_written(draft)

    async def _is_newest(self, draft: Draft) -> bool:
        found = (await self._client.range(one(self._keys.head))).kvs
        return [item.mod_revision for item in found] == [draft.memory.version]

    async def _is_written(self, draft: Draft) -> bool:
        if not draft.witness:
            return False
        found = await self._client.range(one(draft.witness))
        if not found.kvs or found.kvs[0].value != draft.writes[draft.witness]:
            return False
        # Others may have written since.
        draft.memory.stands = False
        return True

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


async def _computed(draft: Draft, batch: Sequence[Job], *, sure: bool) -> list[Any] | None:
    """Return what each job returned or raised, as far as the draft has room.

    None if one was refused, and not surely so: what it did not look for may be there and change the answer.
    """
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
            if job.reads.absent and not sure:
                return None
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


def _transaction(draft: Draft, lease: int, head: Head) -> rpc.TxnRequest:
    """Return what a draft wants to write, without the changes that `head` says are forgotten."""
    keys, request = draft.keys, rpc.TxnRequest()
    compacting = head.compacted > draft.head.compacted
    for key, version in draft.compared.items():
        request.compare.add(key=key, target=rpc.Compare.MOD, mod_revision=version)
    for key, value in draft.writes.items():
        # A transaction neither writes nor deletes a key twice: what is forgotten at once is not written at all.
        if compacting and keys.change(0) <= key <= keys.change(head.compacted):
            continue
        if value is None:
            request.success.add().request_delete_range.key = key
        else:
            put = rpc.PutRequest(key=key, value=value, lease=lease if key in draft.kept else 0)
            request.success.add(request_put=put)
    if compacting:
        dropped = rpc.DeleteRangeRequest(key=keys.change(0), range_end=keys.change(head.compacted + 1))
        request.success.add(request_delete_range=dropped)
    if draft.compared[keys.turn]:
        request.success.add().request_delete_range.key = keys.turn
    request.success.add(request_put=rpc.PutRequest(key=keys.head, value=head.encoded()))
    return request
