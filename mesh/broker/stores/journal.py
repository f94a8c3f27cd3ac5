"""A job's events in JetStream: published under a fence, received live, read back.

One publish is both the live message and the journal entry. `Nats-Expected-Last-Subject-Sequence` makes the server
refuse it once another process has written, so a job has one history.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from mesh.broker.stores.purge import purge_subject
from mesh.broker.stores.reads import PageSize, StoredMessage, get_batch, get_from_leader, read_pages
from mesh.broker.transport.calls import OnReply
from mesh.broker.transport.connection import Subscription
from mesh.broker.transport.mapping import read_puback
from mesh.broker.transport.mesh_link import MeshLink
from mesh.errors import ProtocolError
from mesh.job_key import JobKey
from mesh.protocol import codec, headers
from mesh.protocol.messages import Event, LaterEvent, Note, Started
from mesh.protocol.subjects import check_token

PAGE = PageSize(messages=500, timeout_s=5.0)  # a worker that takes a job over waits for it under its lease
MOST_ASKED = 300  # jobs in one read of newest events: three subjects each, and JetStream answers with 1024
MOST_TENANTS = 20  # named where several tenants have jobs of one id
SEQUENCE = "Nats-Sequence"  # the header with the event's sequence, in live events, direct gets and replays
_CONTENT_TYPE_MSGPACK = headers.line("Content-Type", headers.MSGPACK)

OnEvent = Callable[[Event], None]
# One event as the journal took it, and the sequence of the event before it on its subject (0: it is the first).
OnEntry = Callable[["Entry", int], None]


@dataclass(frozen=True, slots=True)
class Entry:
    """One event in the journal."""

    sequence: int  # in the events stream; the fence of the next publish
    event: Event | None  # None: an event of a later minor, or no event of a worker
    body: bytes

    @property
    def later(self) -> LaterEvent | None:
        """The envelope of an event of a later minor; None: `event` is set, or the body is no event."""
        return codec.decode_later(self.body) if self.event is None else None


@dataclass(frozen=True, slots=True)
class Dated:
    """An event or a note as the events stream keeps it."""

    sequence: int
    unix_ms: int  # when it was stored, by the server's clock
    said: Event | LaterEvent | Note


@dataclass(slots=True)
class Newest:
    """The newest event and note of one job; None: there is none, or it is kept no longer."""

    event: Event | LaterEvent | None = None  # of its journal, or of its attempts if it streams nothing
    note: Note | None = None
    sequence: int = 0  # of the event in its stream


def events_of(entries: Iterable[Entry]) -> list[Event]:
    """The events in these entries, in order."""
    return [entry.event for entry in entries if entry.event is not None]


def notes_in(entries: Iterable[Entry]) -> list[Note]:
    """The notes in these entries of a job's notes subject, in order."""
    notes = [codec.decode_note(entry.body) for entry in entries]
    return [note for note in notes if note is not None]


class Journal:
    """The events stream of one mesh."""

    def __init__(self, link: MeshLink) -> None:
        self._connection = link.connection
        self._names = link.names
        self._stream = link.names.events_stream

    @property
    def max_bytes(self) -> int:
        """The most bytes of one event, headers included."""
        return self._connection.max_payload

    def subject(self, key: JobKey) -> str:
        """Where a job's events are published."""
        return self._names.events(key)

    def attempts_subject(self, key: JobKey) -> str:
        """The subject of the attempts at a job that streams nothing, and of their progress."""
        return self._names.attempts(key)

    def notes_subject(self, key: JobKey) -> str:
        """The subject of the notes on attempts without a Result."""
        return self._names.notes(key)

    def publish(self, subject: str, body: bytes, last: int, on_reply: OnReply, timeout_s: float) -> None:
        """Append an event if `last` is still the subject's last sequence; returns at once.

        Args:
            last: stream sequence of the subject's newest event; 0: it has none.
            on_reply: called once on the loop, with the PubAck or an error.
            timeout_s: seconds until `on_reply` gets a BrokerTimeoutError.

        Raises:
            DisconnectedError, TooLargeError: nothing was sent.
        """
        self._connection.call(subject, body, headers.expecting(last, _content_type(body)), on_reply, timeout_s)

    async def append(self, subject: str, body: bytes, last: int | None = None) -> None:
        """As `publish`, awaited for five seconds at most.

        Args:
            last: as `publish`; None: wherever the subject ends.

        Raises:
            SequenceError: the subject does not end at `last`.
            DisconnectedError, BrokerTimeoutError: unknown whether it was stored; `last()` tells.
            TooLargeError: more than `max_bytes`. QuotaExceededError: the stream is full.
            BrokerError: JetStream did not take it.
        """
        header = b"" if last is None else headers.expecting(last, _content_type(body))
        _, payload = await self._connection.request(subject, body, header)
        read_puback(payload, subject)

    def subscribe(self, key: JobKey, on_event: OnEvent, on_entry: OnEntry | None = None) -> Subscription:
        """Receive a job's events as the journal stores them.

        `on_entry` is called first, with every message. `on_event` gets only the events that this version knows.
        """

        def heard(subject: bytes, reply: bytes, payload: bytes, header: bytes) -> None:
            event = _event(payload)
            if on_entry is not None:
                fields = headers.parse(header)
                sequence, previous = fields.get(SEQUENCE, ""), fields.get("Nats-Last-Sequence", "")
                if sequence.isdigit() and previous.isdigit():
                    on_entry(Entry(int(sequence), event, payload), int(previous))
            if event is not None:
                on_event(event)

        return self._connection.subscribe(self._names.live(key), heard)

    async def last(self, subject: str) -> Entry | None:
        """The last event on a subject, from the stream's leader: reads what was written, unlike a direct get.

        Raises:
            BrokerError: NATS did not answer, or there is no events stream.
        """
        message = await get_from_leader(self._connection, self._stream, {"last_by_subj": subject})
        return _entry(message) if message is not None else None

    async def pages(self, subject: str, after: int = 0) -> AsyncIterator[list[Entry]]:
        """The events on a subject in order, those after stream sequence `after`, in lists of one or more.

        May lag behind the newest by a moment on a replicated stream.

        Raises:
            BrokerError: NATS did not answer, or there is no events stream.
        """
        async for page in read_pages(self._connection, self._stream, subject, after=after, size=PAGE):
            yield [_entry(message) for message in page]

    async def read(self, subject: str, after: int = 0, limit: int | None = None) -> list[Entry]:
        """As `pages`, all in one list; at most `limit`.

        Raises:
            BrokerError: as `pages`.
        """
        if limit is not None and limit < 1:
            return []
        size = PAGE if limit is None else replace(PAGE, messages=min(limit, PAGE.messages))
        found: list[Entry] = []
        async for page in read_pages(self._connection, self._stream, subject, after=after, size=size):
            found += map(_entry, page)
            if limit is not None and len(found) >= limit:
                break
        return found[:limit]

    async def newest(self, jobs: Sequence[JobKey]) -> dict[JobKey, Newest]:
        """The newest event and note of each of these jobs. Names must be subject tokens.

        Raises:
            BrokerError: NATS did not answer.
        """
        found = {name: Newest() for name in jobs}
        parts = [jobs[start : start + MOST_ASKED] for start in range(0, len(jobs), MOST_ASKED)]
        for part in parts:
            for message in await self._last(part):
                _file(message, found)
        return found

    async def oldest(self, key: JobKey, is_streamed: bool) -> Dated | None:
        """The oldest event that is kept of a job.

        Raises:
            BrokerError: NATS did not answer.
        """
        subject = self.subject(key) if is_streamed else self.attempts_subject(key)
        ask = {"seq": 1, "next_by_subj": subject, "batch": 1}
        page = _dated(await get_batch(self._connection, self._stream, ask))
        return page[0] if page else None

    async def begun(self, key: JobKey) -> Started | None:
        """The first event that this version knows of a job, streamed or not, if it is a `started` event.

        None: the job has not begun, or the head of its journal is kept no longer.

        Raises:
            BrokerError: NATS did not answer.
        """
        for subject in (self.subject(key), self.attempts_subject(key)):
            event = await self._first(subject)
            if isinstance(event, Started):
                return event
        return None

    async def story(self, key: JobKey) -> list[Dated]:
        """All events and notes of a job that are kept, in the order in which they were stored.

        Raises:
            BrokerError: NATS did not answer.
        """
        subjects = (self.subject(key), self.attempts_subject(key), self.notes_subject(key))
        parts = await asyncio.gather(*(self._all(subject) for subject in subjects))
        return sorted((each for part in parts for each in part), key=lambda each: each.sequence)

    async def tenants_of(self, job: str) -> set[str]:
        """Tenants of which a job of this id has events. `job` must be a subject token.

        Raises:
            BrokerError: NATS did not answer, or the id is one of too many.
        """
        anybody = JobKey("*", job)
        ask = {"multi_last": [self.subject(anybody), self.attempts_subject(anybody)], "batch": MOST_TENANTS}
        found = await get_batch(self._connection, self._stream, ask)
        return {message.subject.split(".")[-2] for message in found}

    async def purge(self, key: JobKey, last: int) -> int:
        """Remove the job's events and notes up to stream sequence `last`; how many there were. Later ones stay.

        The events go last: they tell whose the notes are, should this be cut short.

        Raises:
            InvalidRequestError: tenant or job is no subject token.
            BrokerError: NATS did not answer, or there is no events stream.
        """
        check_token("tenant", key.tenant)
        check_token("id", key.id)
        purged = 0
        subjects = (self.notes_subject, self.attempts_subject, self.subject)
        for subject in (each(key) for each in subjects):
            purged += await purge_subject(self._connection, self._stream, subject, last)
        return purged

    async def _first(self, subject: str) -> Event | None:
        found = await self.read(subject, 0, 1)
        if not found or found[0].event is not None:
            return found[0].event if found else None
        async for page in self.pages(subject, found[0].sequence):  # it begins with events of a later minor
            known = events_of(page)
            if known:
                return known[0]
        return None

    async def _all(self, subject: str) -> list[Dated]:
        pages = read_pages(self._connection, self._stream, subject, size=PAGE)
        return [dated async for page in pages for dated in _dated(page)]

    async def _last(self, jobs: Sequence[JobKey]) -> list[StoredMessage]:
        """The newest event of each kind, and the newest note."""
        kinds = (self.subject, self.attempts_subject, self.notes_subject)
        subjects = [kind(key) for key in jobs for kind in kinds]
        return await get_batch(self._connection, self._stream, {"multi_last": subjects, "batch": len(subjects)})


def _entry(message: StoredMessage) -> Entry:
    return Entry(message.sequence, _event(message.body), message.body)


def read_entry(header: bytes, body: bytes) -> Entry | None:
    """An event in an answer of the control service; None: it names no sequence."""
    sequence = headers.parse(header).get(SEQUENCE, "")
    return Entry(int(sequence), _event(body), body) if sequence.isdigit() else None


def _content_type(body: bytes) -> bytes:
    return b"" if codec.sniff(body) == "json" else _CONTENT_TYPE_MSGPACK


def _event(body: bytes) -> Event | None:
    try:
        return codec.decode_event(body)
    except ProtocolError:
        return None


def _file(message: StoredMessage, found: dict[JobKey, Newest]) -> None:
    """Note a message as the newest of its job, if it is."""
    tenant, job = message.subject.split(".")[-2:]
    newest, dated = found.get(JobKey(tenant, job)), _read(message)
    if newest is None or dated is None:
        return
    if isinstance(dated.said, Note):
        newest.note = dated.said
    elif newest.sequence < dated.sequence:
        newest.event, newest.sequence = dated.said, dated.sequence


def _dated(messages: Iterable[StoredMessage]) -> list[Dated]:
    return [dated for dated in map(_read, messages) if dated is not None]


def _read(message: StoredMessage) -> Dated | None:
    """None: no worker wrote it."""
    said: Event | LaterEvent | Note | None = (
        codec.decode_note(message.body) or _event(message.body) or codec.decode_later(message.body)
    )
    return Dated(message.sequence, message.unix_ms, said) if said is not None else None
