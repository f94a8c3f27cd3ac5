"""A job's events in JetStream: published under a fence, heard live, read back.

One publish is both the live message and the journal entry. `Nats-Expected-Last-Subject-Sequence` makes the
server refuse it once anybody else has written, so a job has one history. Used by worker/emitter and client/job.
"""

import base64
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import msgspec

from mesh.broker.calls import OnReply
from mesh.broker.connection import Connection, Subscription
from mesh.broker.mapping import NO_MESSAGE, ApiError, api_error, read_api, read_puback
from mesh.errors import BrokerError, MeshError, ProtocolError
from mesh.protocol import codec, headers
from mesh.protocol.messages import Event, Returned
from mesh.protocol.subjects import Names

PAGE = 500  # events a read-back asks for at once
_CONTENT_TYPE_MSGPACK = headers.line("Content-Type", headers.MSGPACK)

OnEvent = Callable[[Event], None]


@dataclass(frozen=True, slots=True)
class Entry:
    """One event as it stands in the journal."""

    sequence: int  # in the events stream; the fence of the next publish
    event: Event | None  # None: whatever it is, no worker wrote it
    body: bytes


def events_of(entries: Iterable[Entry]) -> list[Event]:
    """The events in these entries, in order."""
    return [entry.event for entry in entries if entry.event is not None]


class Journal:
    """The events stream of one mesh."""

    def __init__(self, connection: Connection, names: Names) -> None:
        self._connection = connection
        self._names = names
        self._stream = names.events_stream

    @property
    def max_bytes(self) -> int:
        """The most bytes of one event, headers included."""
        return self._connection.max_payload

    def subject(self, tenant: str, job: str) -> str:
        """Where a job's events are published."""
        return self._names.events(tenant, job)

    def attempts_subject(self, tenant: str, job: str) -> str:
        """Where the `started` events of a job that streams nothing are kept, out of its readers' sight."""
        return self._names.attempts(tenant, job)

    def publish(self, subject: str, body: bytes, last: int, on_reply: OnReply, timeout_s: float) -> None:
        """Append an event if `last` is still the subject's last sequence; `on_reply` gets the PubAck.

        Raises:
            DisconnectedError, TooLargeError: nothing was sent.
        """
        rest = b"" if body[:1] == b"{" else _CONTENT_TYPE_MSGPACK
        self._connection.call(subject, body, headers.expecting(last, rest), on_reply, timeout_s)

    async def note_returned(self, tenant: str, job: str, attempt: int) -> None:
        """Keep that an attempt was given back, out of the readers' sight.

        Raises:
            BrokerError: JetStream did not take it.
        """
        subject = self.attempts_subject(tenant, job)
        _, payload = await self._connection.request(subject, codec.encode(Returned(id=job, attempt=attempt)))
        read_puback(payload, subject)

    async def returned(self, tenant: str, job: str) -> set[int]:
        """The attempts at a job that were given back.

        Raises:
            BrokerError: NATS did not answer.
        """
        notes = [codec.decode_returned(entry.body) for entry in await self.read(self.attempts_subject(tenant, job))]
        return {note.attempt for note in notes if note is not None}

    def subscribe(self, tenant: str, job: str, on_event: OnEvent) -> Subscription:
        """Hear a job's events live; what does not decode as one is skipped (nobody but workers may publish)."""

        def heard(subject: bytes, reply: bytes, payload: bytes, header: bytes) -> None:
            try:
                event = codec.decode_event(payload)
            except ProtocolError:
                return
            on_event(event)

        return self._connection.subscribe(self.subject(tenant, job), heard)

    async def last(self, subject: str) -> Entry | None:
        """The last event on a subject, from the stream's leader: reads what was written, unlike a direct get.

        Raises:
            BrokerError: NATS did not answer, or there is no events stream.
        """
        body = msgspec.json.encode({"last_by_subj": subject})
        _, payload = await self._connection.request(f"$JS.API.STREAM.MSG.GET.{self._stream}", body)
        answer: dict[str, Any] = msgspec.json.decode(payload)
        if answer.get("error"):
            error = msgspec.convert(answer["error"], ApiError, strict=False)
            if error.err_code == NO_MESSAGE:
                return None
            raise api_error(error, f"last event on {subject}")
        message = read_api(payload, subject)["message"]
        data = base64.b64decode(message.get("data") or "")
        return Entry(message["seq"], _event(data), data)

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
            answers = await self._connection.collect(
                f"$JS.API.DIRECT.GET.{self._stream}", msgspec.json.encode(ask), _is_end_of_batch
            )
            page = [_entry(header, payload) for header, payload in answers[:-1]]
            found += page
            status = headers.status(answers[-1][0])
            if status not in (204, 404):
                raise _direct_get_error(answers[-1][0], subject)
            if len(page) < want:
                break
            after = page[-1].sequence
        return found


def _is_end_of_batch(header: bytes, payload: bytes) -> bool:
    return not payload and headers.status(header) != 0


def _entry(header: bytes, payload: bytes) -> Entry:
    sequence = headers.parse(header).get("Nats-Sequence", "")
    if not sequence.isdigit():
        raise ProtocolError("a direct get answered without Nats-Sequence")
    return Entry(int(sequence), _event(payload), payload)


def _event(body: bytes) -> Event | None:
    try:
        return codec.decode_event(body)
    except ProtocolError:
        return None


def _direct_get_error(header: bytes, what: str) -> MeshError:
    found = headers.parse(header)
    return BrokerError(f"{what}: {found.get('Status', '?')} {found.get('Description', '')}")
