"""Follows the events of many jobs live, or of one job from its first event to its Result.

Each live event carries its sequence in the journal and that of the job's previous event. A gap shows missed events,
which are then read from the journal. So each job's events come once, complete and in order. Memory is bounded by the
events not yet shown and the jobs followed at once.
"""

import asyncio
import contextlib
from collections import OrderedDict
from collections.abc import AsyncGenerator
from dataclasses import dataclass

from mesh.broker.broker import Broker
from mesh.errors import BrokerError, ProtocolError, ResultNotFoundError
from mesh.job_key import JobKey
from mesh.protocol import codec, headers
from mesh.protocol.messages import Event, LaterEvent, Result
from mesh.protocol.subjects import is_token
from mesh.protocol.timing import LAG_S

MAX_WAITING = 20_000  # events not shown yet; later ones are read from the journal
MAX_JOBS = 20_000  # jobs whose last sequence is kept; beyond, the least recently active is forgotten
TICK_S = 0.5  # without an event until None is yielded, so that the caller can refresh its display
QUIET_TICKS = 4  # without an event of the followed job until its Result is looked up in the store
LAG_TRIES = 3  # a replica's journal may lag behind live events


@dataclass(frozen=True, slots=True)
class TailEvent:
    """One event of a job."""

    tenant: str
    job: str
    event: Event | LaterEvent
    body: bytes  # the event as it is on the wire


@dataclass(frozen=True, slots=True)
class _Heard:
    """One message, with its stream sequence and the previous one on its subject (0: none)."""

    subject: bytes
    sequence: int
    previous: int
    payload: bytes


class EventTail:
    """Subscribes to the events of jobs until `close`."""

    def __init__(self, broker: Broker, tenant: str, job: str = "*") -> None:
        """`tenant` and `job`: "*" for any."""
        self._names = broker.names
        self._journal = broker.journal
        self._store = broker.results
        self._queue = broker.queue
        self._places: OrderedDict[JobKey, int] = OrderedDict()  # the last yielded stream sequence of each job
        self._open: set[JobKey] = set()  # those whose Result was not yielded
        self._inbox: asyncio.Queue[_Heard] = asyncio.Queue(MAX_WAITING)
        self._late: dict[JobKey, None] = {}  # jobs with missed events, in the order of discovery
        self._subscription = broker.connection.subscribe(broker.names.live(JobKey(tenant, job)), self._heard)
        self._unlisten = broker.connection.listen(self._connection_changed)

    def close(self) -> None:
        """Unsubscribes. Idempotent."""
        self._subscription.close()
        self._unlisten()

    async def follow(self) -> AsyncGenerator[TailEvent | None, None]:
        """Yields events as they arrive, each job's in order, and None every TICK_S without one. Does not end.

        A job that was already running starts from its first event when its next event arrives. While NATS is away it
        yields no event, and then the missed ones.
        """
        while True:
            while self._late:
                name = next(iter(self._late))
                del self._late[name]
                for told in await self._read_on(name):
                    yield told
            try:
                async with asyncio.timeout(TICK_S):
                    heard = await self._inbox.get()
            except TimeoutError:
                yield None
                continue
            for told in await self._take(heard):
                yield told

    async def follow_job(self, key: JobKey) -> AsyncGenerator[TailEvent | None, None]:
        """Yields the events of one job from its first, and ends with its Result. Yields None as `follow`.

        Raises:
            ResultNotFoundError: there is no such job.
            BrokerError: NATS did not answer.
        """
        name = key
        for told in await self._read_on(name):
            yield told
        if name not in self._places:
            await self._check_known(key)
            self._note(name, 0, None)
        quiet = QUIET_TICKS  # the job may have ended long ago
        async with contextlib.aclosing(self.follow()) as events:
            while name in self._open:
                if quiet < QUIET_TICKS:
                    each = await anext(events)
                    quiet = 0 if each is not None else quiet + 1
                    yield each
                    continue
                quiet = 0
                for told in await self._look(name):
                    yield told

    async def _look(self, name: JobKey) -> list[TailEvent]:
        """Returns the remaining events of a job whose Result is stored but was not received."""
        try:
            stored = await self._store.get(name)
        except BrokerError:
            return []  # NATS is away; the next attempt repeats it
        if stored is None:
            return []
        rest = await self._read_on(name)
        if name in self._open:  # its events are gone
            self._open.discard(name)
            rest.append(TailEvent(*name, stored.result, stored.body))
        return rest

    def _heard(self, subject: bytes, reply: bytes, payload: bytes, header: bytes) -> None:
        fields = headers.parse(header)
        sequence, previous = fields.get("Nats-Sequence", ""), fields.get("Nats-Last-Sequence", "")
        if not (sequence.isdigit() and previous.isdigit()):
            return  # the stream did not send it
        try:
            self._inbox.put_nowait(_Heard(subject, int(sequence), int(previous), payload))
        except asyncio.QueueFull:
            name = _name_of(subject)
            if name is not None and len(self._late) < MAX_JOBS:
                self._late[name] = None

    def _connection_changed(self, connected: bool) -> None:
        if connected:
            self._late |= dict.fromkeys(self._open)

    async def _take(self, heard: _Heard) -> list[TailEvent]:
        """Returns a message's event, preceded by missed events."""
        name, told = _name_of(heard.subject), list[TailEvent]()
        if name is None:
            return []
        for _ in range(LAG_TRIES):
            if heard.previous <= self._places.get(name, 0):
                break
            before = await self._read_on(name)
            told += before
            if not before:
                await asyncio.sleep(LAG_S)
        if heard.sequence > self._places.get(name, 0):
            told += self._tell(name, heard.sequence, heard.payload)
        return told

    async def _read_on(self, name: JobKey) -> list[TailEvent]:
        """Returns a job's events in the journal after the last yielded one; tries again later if NATS is away."""
        found: list[TailEvent] = []
        try:
            async for page in self._journal.pages(self._names.events(name), self._places.get(name, 0)):
                for entry in page:
                    found += self._tell(name, entry.sequence, entry.body)
        except BrokerError:
            self._late[name] = None
            await asyncio.sleep(TICK_S)
        return found

    def _tell(self, name: JobKey, sequence: int, body: bytes) -> list[TailEvent]:
        event: Event | LaterEvent | None
        try:
            event = codec.decode_event(body)
        except ProtocolError:
            event = codec.decode_later(body)  # the journal holds only workers' events
        self._note(name, sequence, event)
        return [TailEvent(*name, event, body)] if event is not None else []

    def _note(self, name: JobKey, sequence: int, event: Event | LaterEvent | None) -> None:
        """Records the last yielded sequence of a job."""
        self._places[name] = sequence
        self._places.move_to_end(name)
        if isinstance(event, Result):
            self._open.discard(name)
        else:
            self._open.add(name)
        if len(self._places) > MAX_JOBS:
            forgotten, _ = self._places.popitem(last=False)
            self._open.discard(forgotten)

    async def _check_known(self, key: JobKey) -> None:
        """Raises ResultNotFoundError for an unknown job."""
        if await self._store.get(key) is not None or await self._queue.find(key) is not None:
            return
        is_begun = await self._journal.last(self._names.events(key)) is not None
        if not is_begun and await self._store.get_written(key) is None:
            raise ResultNotFoundError(
                f"job {key.id} of tenant {key.tenant} is not known: "
                "it never existed, or ended longer ago than its Result is kept"
            )


def _name_of(subject: bytes) -> JobKey | None:
    """Returns the job of an event's subject; None for other subjects."""
    tenant, job = subject.decode("utf-8", "replace").split(".")[-2:]
    return JobKey(tenant, job) if is_token(tenant) and is_token(job) else None
