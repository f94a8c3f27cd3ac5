"""Follows the events of many jobs live, or of one from its first to its Result. Used by `mesh tail`.

Each event that is heard says its place in the journal, and that of the job's event before it. So what was missed, by
coming late, by being slow or with the connection, is noticed and read back: each job is told whole, once and in order.
Memory is bounded by the events that wait to be shown and the jobs that are followed at once.
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

MAX_WAITING = 20_000  # events not shown yet; what comes beyond is read back from the journal
MAX_JOBS = 20_000  # of which is known how far they were told; beyond, the one heard of longest ago is forgotten
TICK_S = 0.5  # without an event for so long, whoever shows them is told that time passes
QUIET_TICKS = 4  # without an event of the one job that is followed, its Result is looked for in the store
LAG_TRIES = 3  # a replica's journal may lag behind what is heard


@dataclass(frozen=True, slots=True)
class TailEvent:
    """One event of a job, to be shown."""

    tenant: str
    job: str
    event: Event | LaterEvent
    body: bytes  # the event as it is on the wire


@dataclass(frozen=True, slots=True)
class _Heard:
    """One message, with its place in the events stream and that of the one before it on its subject (0: none)."""

    subject: bytes
    sequence: int
    previous: int
    payload: bytes


class EventTail:
    """Hears jobs from its making until `close`."""

    def __init__(self, broker: Broker, tenant: str, job: str = "*") -> None:
        """`tenant` and `job`: "*" for any."""
        self._names = broker.names
        self._journal = broker.journal
        self._store = broker.results
        self._queue = broker.queue
        self._places: OrderedDict[JobKey, int] = OrderedDict()  # each job was told up to this stream sequence
        self._open: set[JobKey] = set()  # those of them whose Result was not told
        self._inbox: asyncio.Queue[_Heard] = asyncio.Queue(MAX_WAITING)
        self._late: dict[JobKey, None] = {}  # jobs of which events were missed, in the order in which that was noticed
        self._subscription = broker.connection.subscribe(broker.names.live(JobKey(tenant, job)), self._heard)
        self._unlisten = broker.connection.listen(self._connection_changed)

    def close(self) -> None:
        """Hear no more; idempotent."""
        self._subscription.close()
        self._unlisten()

    async def follow(self) -> AsyncGenerator[TailEvent | None, None]:
        """Events as they come, each job's in order; None where none came for a while. Does not end.

        A job that had begun before is told from its beginning when it is first heard of. While NATS is away nothing
        comes; what was missed comes after.
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
        """The events of one job, from its first to its Result, with which this ends; None as `follow`.

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
        quiet = QUIET_TICKS  # it may have ended long ago
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
        """The rest of a job that has its Result, though it was not heard; nothing if it has none."""
        try:
            stored = await self._store.get(name)
        except BrokerError:
            return []  # NATS is away; the next look is soon enough
        if stored is None:
            return []
        rest = await self._read_on(name)
        if name in self._open:  # its events are kept no longer
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
        """What a message tells, after what came before it and was not heard."""
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
        """What the journal has of a job beyond what was told; the rest later if NATS is away."""
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
            event = codec.decode_later(body)  # None: nobody but workers may publish
        self._note(name, sequence, event)
        return [TailEvent(*name, event, body)] if event is not None else []

    def _note(self, name: JobKey, sequence: int, event: Event | LaterEvent | None) -> None:
        """A job was told up to here."""
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
        """Refuse to wait for a job that nobody knows."""
        if await self._store.get(key) is not None or await self._queue.find(key) is not None:
            return
        is_begun = await self._journal.last(self._names.events(key)) is not None
        if not is_begun and await self._store.get_written(key) is None:
            raise ResultNotFoundError(
                f"job {key.id} of tenant {key.tenant} is not known: "
                "it never existed, or ended longer ago than its Result is kept"
            )


def _name_of(subject: bytes) -> JobKey | None:
    """Whose event a message is; None: nobody's."""
    tenant, job = subject.decode("utf-8", "replace").split(".")[-2:]
    return JobKey(tenant, job) if is_token(tenant) and is_token(job) else None
