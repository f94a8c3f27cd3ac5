"""A job's events in JetStream: published under a fence, heard live, read back.

One publish is both the live message and the journal entry. `Nats-Expected-Last-Subject-Sequence` makes the
server refuse it once anybody else has written, so a job has one history. Used by worker/publisher and client/job.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from mesh.broker.stores.purge import purge_subject
from mesh.broker.stores.reads import StoredMessage, get_batch, get_from_leader
from mesh.broker.transport.calls import OnReply
from mesh.broker.transport.connection import Subscription
from mesh.broker.transport.mapping import read_puback
from mesh.broker.transport.mesh_link import MeshLink
from mesh.errors import ProtocolError
from mesh.job_key import JobKey
from mesh.protocol import codec, headers
from mesh.protocol.messages import Event, LaterEvent, Note
from mesh.protocol.subjects import check_token

PAGE = 500  # events a read-back asks for at once
SEQUENCE = "Nats-Sequence"  # the header in which a live event, a direct get and a replay say where the event stands
_CONTENT_TYPE_MSGPACK = headers.line("Content-Type", headers.MSGPACK)

OnEvent = Callable[[Event], None]
# One event as the journal took it, and the sequence of the event before it on its subject (0: it is the first).
OnEntry = Callable[["Entry", int], None]


@dataclass(frozen=True, slots=True)
class Entry:
    """One event as it stands in the journal."""

    sequence: int  # in the events stream; the fence of the next publish
    event: Event | None  # None: one of a later minor, or nothing that a worker wrote
    body: bytes

    @property
    def later(self) -> LaterEvent | None:
        """What is known of an event of a later minor; None: it is one of ours, or none at all."""
        return codec.decode_later(self.body) if self.event is None else None


def events_of(entries: Iterable[Entry]) -> list[Event]:
    """The events in these entries, in order."""
    return [entry.event for entry in entries if entry.event is not None]


def notes_in(entries: Iterable[Entry]) -> list[Note]:
    """What these entries of a job's notes subject say."""
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
        """Where the events of a job are kept that streams nothing: its attempts, and how far they got."""
        return self._names.attempts(key)

    def notes_subject(self, key: JobKey) -> str:
        """Where it is noted how attempts ended that left no Result."""
        return self._names.notes(key)

    def publish(self, subject: str, body: bytes, last: int, on_reply: OnReply, timeout_s: float) -> None:
        """Append an event if `last` is still the subject's last sequence; `on_reply` gets the PubAck.

        Raises:
            DisconnectedError, TooLargeError: nothing was sent.
        """
        self._connection.call(subject, body, headers.expecting(last, _content_type(body)), on_reply, timeout_s)

    async def append(self, subject: str, body: bytes, last: int | None = None) -> None:
        """As `publish`, awaited; without `last`, whatever the subject ends with.

        Raises:
            SequenceError: the subject does not end at `last`.
            BrokerError: JetStream did not take it, or did not answer.
        """
        header = b"" if last is None else headers.expecting(last, _content_type(body))
        _, payload = await self._connection.request(subject, body, header)
        read_puback(payload, subject)

    def subscribe(self, key: JobKey, on_event: OnEvent, on_entry: OnEntry | None = None) -> Subscription:
        """Hear a job's events as the journal takes them; `on_entry` first, for those who pass them on as they are.

        `on_event` does not get what does not decode as one: an event of a later minor, or nothing of ours.
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

    async def read(self, subject: str, after: int = 0, limit: int | None = None) -> list[Entry]:
        """The events on a subject in order, those after stream sequence `after`; at most `limit`.

        May lag behind the newest by a moment on a replicated stream.

        Raises:
            BrokerError: NATS did not answer, or there is no events stream.
        """
        found: list[Entry] = []
        while limit is None or len(found) < limit:
            want = PAGE if limit is None else min(PAGE, limit - len(found))
            ask = {"seq": after + 1, "next_by_subj": subject, "batch": want}
            page = [_entry(message) for message in await get_batch(self._connection, self._stream, ask)]
            found += page
            if len(page) < want:
                break
            after = page[-1].sequence
        return found

    async def first(self, subject: str) -> Event | None:
        """The oldest event on a subject that this program knows; None: there is none.

        Raises:
            BrokerError: NATS did not answer, or there is no events stream.
        """
        after, want = 0, 1
        while page := await self.read(subject, after, want):
            known = events_of(page)
            if known or len(page) < want:
                return known[0] if known else None
            after, want = page[-1].sequence, PAGE
        return None

    async def purge(self, key: JobKey, last: int) -> int:
        """Remove the job's events and notes up to stream sequence `last`; how many there were. Later ones stay.

        The events go last: they tell whose the notes are, should this be cut short.

        Raises:
            InvalidRequestError: tenant or job is no subject token.
            BrokerError: NATS did not answer, or there is no events stream.
        """
        check_token("tenant", key.tenant), check_token("id", key.id)
        purged = 0
        subjects = (self.notes_subject, self.attempts_subject, self.subject)
        for subject in (each(key) for each in subjects):
            purged += await purge_subject(self._connection, self._stream, subject, last)
        return purged


def _entry(message: StoredMessage) -> Entry:
    return Entry(message.sequence, _event(message.body), message.body)


def read_entry(header: bytes, body: bytes) -> Entry | None:
    """An event that the control service read for somebody who may not; None: it names no sequence."""
    sequence = headers.parse(header).get(SEQUENCE, "")
    return Entry(int(sequence), _event(body), body) if sequence.isdigit() else None


def _content_type(body: bytes) -> bytes:
    return b"" if codec.sniff(body) == "json" else _CONTENT_TYPE_MSGPACK


def _event(body: bytes) -> Event | None:
    try:
        return codec.decode_event(body)
    except ProtocolError:
        return None
