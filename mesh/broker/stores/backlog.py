"""The jobs in a mesh's queue as an operator looks at them: requests by queue, and the newest of each journal.

Everything is read in bounded pages, so a queue of any length costs what is shown of it. Used by control/jobs/listing
and control/jobs/job_detail.
"""

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from mesh.broker.stores.delivery import StoredRequest, read_stored
from mesh.broker.stores.reads import StoredMessage, get_batch
from mesh.broker.transport.mesh_link import MeshLink
from mesh.errors import BrokerError, ProtocolError
from mesh.job_key import JobKey
from mesh.protocol import codec, headers
from mesh.protocol.messages import Event, LaterEvent, Note
from mesh.protocol.subjects import RequestAddress

PAGE = 256  # requests read at once
PAGE_BYTES = 8 << 20  # of bodies in one page
ASKED = 300  # jobs whose newest events are asked for at once: three subjects each, and JetStream answers 1024
EVENTS = 500  # events read at once
MOST_TENANTS = 20  # that are named where an id is one of several


@dataclass(frozen=True, slots=True)
class Dated:
    """An event or a note as the events stream keeps it."""

    sequence: int
    unix_ms: int  # when it was stored, by the server's clock
    said: Event | LaterEvent | Note


@dataclass(slots=True)
class Newest:
    """The newest that was written about one job; None: nothing, or it is kept no longer."""

    event: Event | LaterEvent | None = None  # of its journal, or of its attempts if it streams nothing
    note: Note | None = None
    sequence: int = 0  # of the event in its stream


class Backlog:
    """The request and events streams of one mesh, read only."""

    def __init__(self, link: MeshLink) -> None:
        self._connection = link.connection
        self._names = link.names

    async def requests(self, at: RequestAddress, after: int, most: int = PAGE) -> list[StoredRequest]:
        """The next `most` requests (PAGE at most) after stream sequence `after`, in stream order; none at the end.

        Args:
            at: which; "*" for any.

        Raises:
            BrokerError: NATS did not answer.
        """
        ask = {
            "seq": after + 1,
            "next_by_subj": self._subject(at),
            "batch": min(most, PAGE),
            "max_bytes": PAGE_BYTES,
        }
        found = await get_batch(self._connection, self._names.requests_stream, ask, timeout_s=10.0)
        return [read_stored(self._names, m.subject, m.sequence, m.body, m.header, m.unix_ms) for m in found]

    async def count_after(self, at: RequestAddress, sequence: int) -> int:
        """How many requests there are after a stream sequence.

        Raises:
            BrokerError: NATS did not answer.
        """
        ask = {"seq": sequence + 1, "next_by_subj": self._subject(at), "batch": 1}
        found = await get_batch(self._connection, self._names.requests_stream, ask)
        if not found:
            return 0
        pending = headers.parse(found[0].header).get("Nats-Num-Pending", "")
        if not pending.isdigit():
            raise BrokerError("a direct get answered without Nats-Num-Pending")
        return 1 + int(pending)

    async def newest(self, jobs: Sequence[JobKey]) -> dict[JobKey, Newest]:
        """What was written last about each of these jobs. Names must be subject tokens.

        Raises:
            BrokerError: NATS did not answer.
        """
        found = {name: Newest() for name in jobs}
        parts = [jobs[start : start + ASKED] for start in range(0, len(jobs), ASKED)]
        for part in parts:
            for message in await self._last(part):
                self._file(message, found)
        return found

    async def first(self, name: JobKey, is_streamed: bool) -> Dated | None:
        """The oldest event that is kept of a job.

        Raises:
            BrokerError: NATS did not answer.
        """
        page = await self._events(self._journal(name, is_streamed), 0, 1)
        return page[0] if page else None

    async def story(self, name: JobKey) -> list[Dated]:
        """All events and notes of a job that are kept, in the order in which they were stored.

        Raises:
            BrokerError: NATS did not answer.
        """
        subjects = (self._journal(name, True), self._journal(name, False), self._names.notes(name))
        parts = await asyncio.gather(*(self._all(subject) for subject in subjects))
        return sorted((each for part in parts for each in part), key=lambda each: each.sequence)

    async def tenants_of(self, job: str) -> list[str]:
        """Tenants of which a job of this id has events or a Result. `job` must be a subject token.

        Raises:
            BrokerError: NATS did not answer, or the id is one of too many.
        """
        names = self._names
        asks = (
            (names.events_stream, [names.events(JobKey("*", job)), names.attempts(JobKey("*", job))]),
            (f"KV_{names.results_bucket}", [names.result_key(JobKey("*", job))]),
        )
        found: set[str] = set()
        for stream, subjects in asks:
            messages = await get_batch(self._connection, stream, {"multi_last": subjects, "batch": MOST_TENANTS})
            found |= {message.subject.split(".")[-2] for message in messages}
        return sorted(found)

    async def _all(self, subject: str) -> list[Dated]:
        found: list[Dated] = []
        after = 0
        while True:
            ask = {"seq": after + 1, "next_by_subj": subject, "batch": EVENTS}
            page = await get_batch(self._connection, self._names.events_stream, ask)
            found += _dated(page)
            if len(page) < EVENTS:
                return found
            after = page[-1].sequence

    async def _events(self, subject: str, after: int, most: int) -> list[Dated]:
        ask = {"seq": after + 1, "next_by_subj": subject, "batch": most}
        return _dated(await get_batch(self._connection, self._names.events_stream, ask))

    async def _last(self, jobs: Sequence[JobKey]) -> list[StoredMessage]:
        names = self._names
        subjects = [each(name) for name in jobs for each in (names.events, names.attempts, names.notes)]
        ask = {"multi_last": subjects, "batch": len(subjects)}
        return await get_batch(self._connection, names.events_stream, ask)

    def _file(self, message: StoredMessage, found: dict[JobKey, Newest]) -> None:
        tenant, job = message.subject.split(".")[-2:]
        newest = found.get(JobKey(tenant, job))
        dated = _read(message)
        if newest is None or dated is None:
            return
        if isinstance(dated.said, Note):
            newest.note = dated.said
        elif newest.sequence < dated.sequence:
            newest.event, newest.sequence = dated.said, dated.sequence

    def _journal(self, name: JobKey, is_streamed: bool) -> str:
        return self._names.events(name) if is_streamed else self._names.attempts(name)

    def _subject(self, at: RequestAddress) -> str:
        return self._names.request(at.model, at.tier, at.tenant, at.lane)


def _dated(messages: Iterable[StoredMessage]) -> list[Dated]:
    return [dated for dated in map(_read, messages) if dated is not None]


def _read(message: StoredMessage) -> Dated | None:
    """None: no worker wrote it."""
    said: Event | LaterEvent | Note | None = codec.decode_note(message.body)
    if said is None:
        try:
            said = codec.decode_event(message.body)
        except ProtocolError:
            said = codec.decode_later(message.body)
    return Dated(message.sequence, message.unix_ms, said) if said is not None else None
