"""Dead letters: requests that were given up, kept with the reason so that an operator can inspect and redrive them.

The message is the request as it was submitted. Its history is in headers, which `nats stream view` shows.
"""

from collections.abc import AsyncIterator
from dataclasses import dataclass

import msgspec

from mesh.broker import topology
from mesh.broker.stores.delivery import Delivery
from mesh.broker.stores.reads import StoredMessage, get_from_leader, read_pages
from mesh.broker.transport.mapping import DELETE_FAILED, NO_SEQUENCE, read_api, read_puback
from mesh.broker.transport.mesh_link import MeshLink
from mesh.errors import BrokerError, UnsupportedError
from mesh.protocol import codec, headers
from mesh.protocol.codec import Encoding
from mesh.protocol.messages import ErrorInfo
from mesh.protocol.subjects import RequestAddress, check_token, is_token

_MESSAGE_ID = "dead-"  # and the request's sequence in its own stream


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """One dead letter as it stands in the stream. A field that its headers lack, or garble, is empty or 0."""

    sequence: int  # in the dead-letter stream
    address: RequestAddress
    job: str
    attempts: int
    code: str  # of the error that ended the job
    reason: str
    request_sequence: int  # of the request in its own stream
    stored_unix_ms: int  # when the request was stored; the server's clock, as the next
    buried_unix_ms: int
    traceparent: str
    encoding: Encoding
    body: bytes  # the request as it was submitted

    @property
    def is_addressable(self) -> bool:
        """Whether its names may become parts of subjects: anybody with the right to may have published it."""
        at = self.address
        return all(is_token(each) for each in (at.model, at.tier, at.tenant, self.job))


@dataclass(frozen=True, slots=True)
class DeadLetterFilter:
    """Which dead letters are meant; None: any."""

    model: str | None = None
    tier: str | None = None
    tenant: str | None = None
    code: str | None = None
    since_unix_ms: int | None = None  # buried then or later


class DeadLetters:
    """The dead-letter stream of one mesh."""

    def __init__(self, link: MeshLink) -> None:
        self._connection = link.connection
        self._names = link.names
        self._stream = link.names.dead_stream

    async def bury(self, delivery: Delivery, reason: ErrorInfo, attempts: int) -> None:
        """Keep a copy of the request; the same delivery twice is kept once.

        Raises:
            BrokerError: JetStream did not take it.
        """
        stored = delivery.stored
        header = headers.block(
            ("Nats-Msg-Id", f"{_MESSAGE_ID}{stored.sequence}"),
            ("Content-Type", headers.MSGPACK if stored.encoding == "msgpack" else headers.JSON),
            ("Mesh-Job", stored.job),
            ("Mesh-Attempts", attempts),
            ("Mesh-Error-Code", reason.code),
            ("Mesh-Error", " ".join(reason.message.split())[:500]),
            ("Mesh-Stored-Unix-Ms", delivery.stored_unix_ms),
        )
        subject = self._names.dead(delivery.address)
        _, payload = await self._connection.request(subject, stored.body, header)
        read_puback(payload, f"bury {stored.job}")

    async def pages(self, selection: DeadLetterFilter) -> AsyncIterator[list[DeadLetter]]:
        """The selected dead letters that exist now, oldest first, in lists of one or more.

        Letters buried after the first page are not read, so a redrive of jobs that fail again comes to an end. On a
        replicated stream, the newest letters may be missing for a moment.

        Raises:
            InvalidRequestError: a name in `selection` is no subject token.
            TopologyError: there is no dead-letter stream.
            BrokerError: NATS did not answer.
        """
        last = int((await topology.stream_state(self._connection, self._stream))["last_seq"])
        pages = read_pages(
            self._connection,
            self._stream,
            self._filter(selection),
            last=last,
            since_unix_ms=selection.since_unix_ms,
        )
        async for page in pages:
            found = [each for each in map(_letter, page) if selection.code in (None, each.code)]
            if found:
                yield found

    async def get(self, sequence: int) -> DeadLetter | None:
        """The letter at a sequence of the stream, from its leader; None if it is gone.

        Raises:
            TopologyError: there is no dead-letter stream.
            BrokerError: NATS did not answer.
        """
        message = await get_from_leader(self._connection, self._stream, {"seq": sequence})
        return _letter(message) if message is not None else None

    async def remove(self, sequence: int) -> bool:
        """Remove one letter; whether it was there.

        Raises:
            TopologyError, BrokerError: as `get`.
        """
        body = msgspec.json.encode({"seq": sequence, "no_erase": True})
        _, payload = await self._connection.request(f"$JS.API.STREAM.MSG.DELETE.{self._stream}", body)
        try:
            read_api(payload, f"remove dead letter {sequence}")
        except BrokerError as error:
            # Of one that is gone JetStream says so in several ways, one of which it has for a failure too.
            if error.err_code in (NO_SEQUENCE, DELETE_FAILED) and await self.get(sequence) is None:
                return False
            raise
        return True

    def _filter(self, selection: DeadLetterFilter) -> str:
        parts = {"model": selection.model, "tier": selection.tier, "tenant": selection.tenant}
        tokens = {name: "*" if value is None else check_token(name, value) for name, value in parts.items()}
        return self._names.dead(RequestAddress(**tokens, lane="*"))


def _letter(message: StoredMessage) -> DeadLetter:
    fields = {key.lower(): value for key, value in headers.parse(message.header).items()}
    return DeadLetter(
        sequence=message.sequence,
        address=RequestAddress(*message.subject.split(".")[-4:]),
        job=fields.get("mesh-job", ""),
        attempts=_number(fields.get("mesh-attempts", "")),
        code=fields.get("mesh-error-code", ""),
        reason=fields.get("mesh-error", ""),
        request_sequence=_number(fields.get("nats-msg-id", "").removeprefix(_MESSAGE_ID)),
        stored_unix_ms=_number(fields.get("mesh-stored-unix-ms", "")),
        buried_unix_ms=message.unix_ms,
        traceparent=fields.get("traceparent", "")[:128],
        encoding=_encoding(fields.get("content-type", "")),
        body=message.body,
    )


def _number(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 18 else 0


def _encoding(content_type: str) -> Encoding:
    try:
        return codec.encoding_of(headers.media_type(content_type))
    except UnsupportedError:
        return "json"
