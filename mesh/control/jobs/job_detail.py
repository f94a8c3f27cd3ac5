"""Reads the history of one job from its stored records. Changes nothing.

By default the request is kept while the job is queued, events 15 minutes, the Result an hour, a dead letter 7 days.
Records that are gone are left out.
"""

import asyncio
from typing import Any

import msgspec
from msgspec.structs import replace

from mesh.broker import topology
from mesh.broker.broker import Broker
from mesh.broker.inspect.inspector import Inspector
from mesh.broker.stores.deadletters import DeadLetter, DeadLetterFilter
from mesh.broker.stores.delivery import StoredRequest
from mesh.broker.stores.journal import Dated
from mesh.broker.stores.reads import StoredMessage
from mesh.control.deadletters.redrive import read_request
from mesh.control.deadletters.service import DeadLetterService
from mesh.control.jobs import timeline
from mesh.control.jobs.job_state import JobSeen, job_state, without_lost
from mesh.control.jobs.listing import see
from mesh.control.jobs.pending_reasons import PendingReason, QueueContext, pending_reasons
from mesh.control.jobs.timeline import AttemptSummary, RequestSummary, TimelineEntry
from mesh.control.status import depth
from mesh.control.status.depth import QueueDepth, WorkerSeen
from mesh.errors import ProtocolError, ResultNotFoundError
from mesh.job_key import JobKey
from mesh.protocol import codec
from mesh.protocol.messages import Event, LaterEvent, Note, Request, Result, Started
from mesh.protocol.subjects import RequestAddress, check_token
from mesh.protocol.validate import deadline_of


class DeadLetterSummary(msgspec.Struct, frozen=True, kw_only=True):
    """The dead letter of a job, in short."""

    attempts: int
    code: str
    reason: str
    buried_unix_ms: int


class JobDetail(msgspec.Struct, frozen=True, kw_only=True):
    """The history of one job. None, "" and empty lists stand for records that are gone or never existed."""

    job: str
    tenant: str
    status: str  # as JobSeen.state while it is in the queue, else as Result.status; "unknown": only events are left
    model: str
    tier: str
    lane: str
    now_unix_ms: int  # the server's clock, as all instants here
    stored_unix_ms: int
    deadline_unix_ms: int
    request: RequestSummary | None
    prompt: Any  # None unless requested
    job_state: JobSeen | None  # while it is in the queue
    waits: list[PendingReason]  # why the job has not ended yet
    ahead: int | None
    attempts: list[AttemptSummary]
    moments: list[TimelineEntry]
    result: Result | None
    dead_letter: DeadLetterSummary | None


class JobDetailReader:
    """Reads histories of jobs in one mesh."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._inspector = Inspector(broker)
        self._workers = broker.workers
        self._journal = broker.journal
        self._queue = broker.queue
        self._store = broker.results
        self._dead_letters = DeadLetterService(broker)

    async def tell(self, key: JobKey, has_prompt: bool = False) -> JobDetail:
        """Returns the history of one job so far.

        Raises:
            ResultNotFoundError: no record of it is left, or it never existed.
            InvalidRequestError: a name is no subject token.
            BrokerError: NATS did not answer.
        """
        check_token("tenant", key.tenant)
        check_token("id", key.id)
        now_ms = await self._inspector.clock()
        story, message, beats = await asyncio.gather(
            self._journal.story(key), self._store.read_last(key), self._workers.beats()
        )
        result = _result(message, story)
        stored = await self._request(key, story, result)
        letter = await self._letter(key) if stored is None and _may_be_buried(result) else None
        if stored is None and result is None and letter is None and not story:
            if await self._store.get_written(key) is not None:  # the job ended during the read
                return await self.tell(key, has_prompt)
            raise ResultNotFoundError(await self._unknown(key))
        alive = {beat.presence.worker for beat in beats}
        seen = _seen(stored, story, now_ms, alive)
        at = letter.address if letter is not None else stored.address if stored is not None else None
        request = _asked(stored, letter)
        created_ms = _created(stored, result, letter)
        waits, ahead = await self._waits(seen, now_ms) if seen is not None and result is None else ([], None)
        told = [(each.unix_ms, each.said) for each in story]
        if result is not None and message is not None and not any(isinstance(said, Result) for _, said in told):
            told.append((message.unix_ms, result))
        workers = {each.said.worker for each in story if isinstance(each.said, Started)}
        return JobDetail(
            job=key.id,
            tenant=key.tenant,
            status=result.status if result is not None else seen.state if seen is not None else "unknown",
            model=at.model if at is not None else result.model if result is not None else "",
            tier=at.tier if at is not None else "",
            lane=at.lane if at is not None else "",
            now_unix_ms=now_ms,
            stored_unix_ms=created_ms,
            deadline_unix_ms=deadline_of(stored.request, stored.stored_unix_ms) if stored is not None else 0,
            request=_summary(stored, letter),
            prompt=timeline.prompt_of(request) if has_prompt and request is not None else None,
            job_state=seen,
            waits=waits,
            ahead=ahead,
            attempts=timeline.attempts(told, created_ms, workers - alive),
            moments=sorted(
                [*timeline.timeline(told, created_ms), *_burial(letter, created_ms)], key=lambda each: each.at_ms
            ),
            result=result,
            dead_letter=_as_letter(letter),
        )

    async def _request(self, key: JobKey, story: list[Dated], result: Result | None) -> StoredRequest | None:
        """Returns the queued request. One that never started is searched among all of its tenant."""
        begun = [each.said.sequence for each in story if isinstance(each.said, Started) and each.said.sequence]
        if begun:
            return await self._queue.get(begun[-1])
        return await self._queue.find(key) if result is None else None

    async def _letter(self, key: JobKey) -> DeadLetter | None:
        try:
            return (await self._dead_letters.find([key.id], DeadLetterFilter(tenant=key.tenant)))[-1]
        except ResultNotFoundError:
            return None

    async def _waits(self, seen: JobSeen, now_ms: int) -> tuple[list[PendingReason], int | None]:
        """Returns why the job waits, and how many jobs wait before it."""
        if seen.state not in ("queued", "retrying"):
            return [], None
        depths, lanes, beats, settings = await asyncio.gather(
            self._inspector.depths(),
            self._inspector.lanes(),
            self._workers.beats(),
            topology.read_settings(self._broker),
        )
        queues = [each for each in depth.read_queues(self._broker.names, depths, lanes)[0] if each.model == seen.model]
        queue = next((each for each in queues if each.tier == seen.tier), None)
        workers = [
            WorkerSeen(presence=beat.presence, beat_unix_ms=beat.unix_ms, age_ms=max(0, now_ms - beat.unix_ms))
            for beat in beats
            if beat.presence.model == seen.model
        ]
        ahead = await self._ahead(seen, queue) if queue is not None and seen.state == "queued" else None
        place = QueueContext(
            queue=queue, queues=queues, workers=workers, ahead=ahead, ack_wait_ms=int(settings.ack_wait_s * 1000)
        )
        return pending_reasons(seen, place), ahead

    async def _ahead(self, seen: JobSeen, queue: QueueDepth) -> int | None:
        """Counts undelivered jobs of its model and tier stored before it. None: it was delivered."""
        own = next((lane for lane in queue.lanes if lane.lane == seen.lane), None)
        if own is not None and seen.sequence <= own.delivered_sequence:
            return None
        if not queue.lanes:
            at = RequestAddress(seen.model, seen.tier, "*", "*")
            return await self._queue.count_after(0, at) - await self._queue.count_after(seen.sequence - 1, at)
        counts = 0
        for lane in queue.lanes:
            at = RequestAddress(lane.model, lane.tier, "*", lane.lane)
            waiting, behind = await asyncio.gather(
                self._queue.count_after(lane.delivered_sequence, at),
                self._queue.count_after(max(seen.sequence - 1, lane.delivered_sequence), at),
            )
            counts += max(0, waiting - behind)
        return counts

    async def _unknown(self, key: JobKey) -> str:
        begun, ended = await asyncio.gather(self._journal.tenants_of(key.id), self._store.tenants_of(key.id))
        others = sorted((begun | ended) - {key.tenant})
        text = (
            f"job {key.id} of tenant {key.tenant} is not known: it never existed, or all of its records have aged out"
        )
        return f"{text}; {', '.join(others)} has a job of that id (--tenant)" if others else text


def _result(message: StoredMessage | None, story: list[Dated]) -> Result | None:
    """Returns the stored Result, else the one in the journal."""
    if message is not None:
        try:
            return codec.decode_result(message.body)
        except ProtocolError:  # the marker of a deleted Result
            pass
    announced = [each.said for each in story if isinstance(each.said, Result)]
    return announced[-1] if announced else None


def _may_be_buried(result: Result | None) -> bool:
    return result is None or (result.status == "failed" and result.attempts > 0)


def _seen(stored: StoredRequest | None, story: list[Dated], now_ms: int, alive: set[str]) -> JobSeen | None:
    """Returns the job as it is in the queue, if it is there."""
    if stored is None or stored.address is None:
        return None
    events: list[Event | LaterEvent] = [each.said for each in story if not isinstance(each.said, Note)]
    notes = [each.said for each in story if isinstance(each.said, Note)]
    now = job_state(events[-1] if events else None, notes[-1] if notes else None)
    begun = [each for each in events if isinstance(each, Started) and not each.closing]
    seen = replace(see(stored, stored.address, now, now_ms), worker=begun[-1].worker if begun else "")
    return without_lost(seen, alive)


def _asked(stored: StoredRequest | None, letter: DeadLetter | None) -> Request | None:
    if stored is not None:
        return stored.request
    return read_request(letter.body, letter.encoding)[0] if letter is not None else None


def _summary(stored: StoredRequest | None, letter: DeadLetter | None) -> RequestSummary | None:
    if stored is not None:
        return timeline.summary(stored.request, str(stored.error or ""), len(stored.body), stored.encoding)
    if letter is not None:
        request, error = read_request(letter.body, letter.encoding)
        return timeline.summary(request, error, len(letter.body), letter.encoding)
    return None


def _created(stored: StoredRequest | None, result: Result | None, letter: DeadLetter | None) -> int:
    if stored is not None:
        return stored.stored_unix_ms
    if result is not None and result.created_unix_ms:
        return result.created_unix_ms
    return letter.stored_unix_ms if letter is not None else 0


def _burial(letter: DeadLetter | None, created_ms: int) -> list[TimelineEntry]:
    if letter is None:
        return []
    at_ms = letter.buried_unix_ms - (created_ms or letter.buried_unix_ms)
    return [TimelineEntry(at_ms=at_ms, kind="buried", attempt=letter.attempts, text=letter.reason)]


def _as_letter(letter: DeadLetter | None) -> DeadLetterSummary | None:
    if letter is None:
        return None
    return DeadLetterSummary(
        attempts=letter.attempts, code=letter.code, reason=letter.reason, buried_unix_ms=letter.buried_unix_ms
    )
