"""Lists the jobs in a mesh's queue. Changes nothing.

JetStream knows the last delivered sequence of each lane, so running jobs are found without reading waiting ones.
"""

import asyncio
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import msgspec
from msgspec.structs import replace

from mesh.broker.broker import Broker
from mesh.broker.inspect.facts import LaneFacts
from mesh.broker.inspect.inspector import Inspector
from mesh.broker.stores.delivery import StoredRequest
from mesh.broker.stores.journal import Newest
from mesh.control.jobs.job_state import JobSeen, JobState, State, in_order, job_state, without_lost
from mesh.job_key import JobKey
from mesh.protocol.messages import Event, LaterEvent, Result, Started
from mesh.protocol.subjects import RequestAddress, check_tier, check_token, is_token
from mesh.protocol.validate import deadline_of

MOST_GIVEN = 4096  # most delivered requests to read, over all lanes
AT_ONCE = 16  # concurrent reads


@dataclass(frozen=True, slots=True)
class JobSelection:
    """Selects jobs. None matches all."""

    model: str | None = None
    tier: str | None = None
    tenant: str | None = None
    state: State | None = None


class Listing(msgspec.Struct, frozen=True, kw_only=True):
    """Some jobs of a queue, and counts of all. The counts ignore the selected state."""

    jobs: list[JobSeen]
    total: int  # jobs that model, tier and tenant select
    delivered: int  # of them, delivered: they run, or wait for redelivery
    waiting: int  # of them, never delivered
    truncated: bool  # more jobs exist, or may exist, than are listed
    tenants: dict[str, int]  # jobs of each, the largest first


class JobLister:
    """Lists jobs of one mesh."""

    def __init__(self, broker: Broker) -> None:
        self._names = broker.names
        self._inspector = Inspector(broker)
        self._workers = broker.workers
        self._queue = broker.queue
        self._journal = broker.journal
        self._gate = asyncio.Semaphore(AT_ONCE)

    async def listing(self, selection: JobSelection, limit: int) -> Listing:
        """Returns at most `limit` selected jobs: running ones first, then waiting ones, each the oldest first.

        Raises:
            InvalidRequestError: a name in `selection` is no subject token.
            TopologyError: there is no mesh on this NATS. BrokerError: NATS did not answer.
        """
        meant = _pattern(selection)
        now_ms, depths, lanes, beats = await asyncio.gather(
            self._inspector.clock(), self._inspector.depths(), self._inspector.lanes(), self._workers.beats()
        )
        tenants: Counter[str] = Counter()
        queues: set[tuple[str, str, str]] = set()
        for subject, count in depths.items():
            at = self._names.read_request(subject)
            if at is not None and _matches(at, meant):
                tenants[at.tenant] += count
                queues.add((at.model, at.tier, at.lane))
        lanes = [lane for lane in lanes if _matches(RequestAddress(lane.model, lane.tier, "*", lane.lane), meant)]
        look = _Look(now_ms, {beat.presence.worker for beat in beats}, meant, selection.state, limit)
        found = await self._given(look, [lane for lane in lanes if lane.in_flight])
        if selection.state in (None, "queued") and len(found) < limit:
            delivered_to = dict.fromkeys(queues, 0)  # also those without a consumer
            delivered_to |= {(lane.model, lane.tier, lane.lane): lane.delivered_sequence for lane in lanes}
            found += await self._waiting(look, delivered_to, limit - len(found))
        delivered = sum(await asyncio.gather(*(self._count_delivered(lane, meant) for lane in lanes if lane.in_flight)))
        total = tenants.total()
        shown = in_order(found)[:limit]
        return Listing(
            jobs=shown,
            total=total,
            delivered=delivered,
            waiting=total - delivered,
            truncated=len(found) > limit or (len(shown) < total if selection.state is None else len(shown) == limit),
            tenants=dict(tenants.most_common()),
        )

    async def _given(self, look: "_Look", lanes: list[LaneFacts]) -> list[JobSeen]:
        """Returns delivered jobs, the oldest of each lane."""
        if not lanes:
            return []
        share = max(1, MOST_GIVEN // len(lanes))
        most = share if look.state is not None else min(look.limit, share)
        parts = await asyncio.gather(*(self._given_of(look, lane, most) for lane in lanes))
        return [each for part in parts for each in part]

    async def _given_of(self, look: "_Look", lane: LaneFacts, most: int) -> list[JobSeen]:
        found: list[JobSeen] = []
        at = RequestAddress(lane.model, lane.tier, look.meant.tenant, lane.lane)
        pages, left = self._queue.pages(0, at, last=lane.delivered_sequence, most=most), most
        while left > 0 and len(found) < look.limit:
            async with self._gate:
                page = await anext(pages, None)
            if page is None:
                break
            left -= len(page)
            found += await self._see(look, page)
        return found

    async def _waiting(
        self, look: "_Look", delivered_to: Mapping[tuple[str, str, str], int], most: int
    ) -> list[JobSeen]:
        """Returns undelivered jobs, the oldest first.

        Args:
            delivered_to: by model, tier and lane: the last delivered stream sequence.
        """
        found: list[JobSeen] = []
        after = min(delivered_to.values(), default=0)
        async for page in self._queue.pages(after, look.meant):
            for each in page:
                at = each.address
                if at is not None and each.sequence > delivered_to.get((at.model, at.tier, at.lane), 0):
                    found.append(look.seen(each, at, Newest()))
            if len(found) >= most:
                break
        return found[:most]

    async def _count_delivered(self, lane: LaneFacts, meant: RequestAddress) -> int:
        at = RequestAddress(lane.model, lane.tier, meant.tenant, lane.lane)
        async with self._gate:
            total = await self._queue.count_after(0, at)
            return total - await self._queue.count_after(lane.delivered_sequence, at)

    async def _see(self, look: "_Look", page: list[StoredRequest]) -> list[JobSeen]:
        """Returns the jobs of a page in the selected state."""
        named = [(each, each.address) for each in page]
        keys = [JobKey(at.tenant, each.job) for each, at in named if at is not None and is_token(at.tenant)]
        newest = await self._journal.newest(keys)
        known = [
            newest.get(JobKey(at.tenant, each.job), Newest()) if at is not None else Newest() for each, at in named
        ]
        workers = await asyncio.gather(
            *(self._worker(each, at, new.event) for (each, at), new in zip(named, known, strict=True))
        )
        seen = [
            without_lost(replace(look.seen(each, at, new), worker=worker), look.alive)
            for (each, at), new, worker in zip(named, known, workers, strict=True)
            if at is not None
        ]
        return [each for each in seen if look.state in (None, each.state)]

    async def _worker(self, stored: StoredRequest, at: RequestAddress | None, event: Event | LaterEvent | None) -> str:
        """Returns the worker of the newest attempt; "" if its event is gone."""
        if at is None or event is None:
            return ""
        if isinstance(event, Started | Result):
            return event.worker
        name = JobKey(at.tenant, stored.job)
        async with self._gate:
            first = await self._journal.oldest(name, stored.request is None or stored.request.stream)
            if event.attempt == 1 and first is not None and isinstance(first.said, Started):
                return first.said.worker
            begun = [each.said for each in await self._journal.story(name) if isinstance(each.said, Started)]
        return begun[-1].worker if begun else ""


@dataclass(frozen=True, slots=True)
class _Look:
    """The inputs of one listing."""

    now_ms: int  # the server's clock
    alive: set[str]  # workers
    meant: RequestAddress  # "*" for any
    state: State | None
    limit: int

    def seen(self, stored: StoredRequest, at: RequestAddress, newest: Newest) -> JobSeen:
        """Combines a request with its newest event and note."""
        return see(stored, at, job_state(newest.event, newest.note), self.now_ms)


def see(stored: StoredRequest, at: RequestAddress, now: JobState, now_ms: int) -> JobSeen:
    """Converts a queued request to a job.

    Args:
        at: its place in the queue.
        now: its state, from the journal.
        now_ms: the server's clock.
    """
    return JobSeen(
        job=stored.job,
        tenant=at.tenant,
        model=at.model,
        tier=at.tier,
        lane=at.lane,
        state=now.state,
        sequence=stored.sequence,
        age_ms=max(0, now_ms - stored.stored_unix_ms),
        deadline_ms=deadline_of(stored.request, stored.stored_unix_ms) - now_ms,
        attempt=now.attempt,
        tokens=now.tokens,
        is_streamed=stored.request is None or stored.request.stream,
        reason=now.reason,
    )


def _pattern(selection: JobSelection) -> RequestAddress:
    return RequestAddress(
        model="*" if selection.model is None else check_token("model", selection.model),
        tier="*" if selection.tier is None else check_tier(selection.tier),
        tenant="*" if selection.tenant is None else check_token("tenant", selection.tenant),
        lane="*",
    )


def _matches(at: RequestAddress, meant: RequestAddress) -> bool:
    wanted = ((at.model, meant.model), (at.tier, meant.tier), (at.tenant, meant.tenant))
    return all("*" in (have, want) or have == want for have, want in wanted)
