"""Reads the recorded requests of a mesh whose operator chose to record them.

The request stream republishes each request with its body, and the record stream keeps it. No submit waits for that,
so a request may be missing after a server's crash. The request stream's sequences show how many are.
"""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime

from mesh.broker import topology
from mesh.broker.stores.delivery import StoredRequest, read_stored
from mesh.broker.stores.reads import StoredMessage, read_pages
from mesh.broker.transport.mesh_link import MeshLink
from mesh.errors import TopologyError
from mesh.protocol.subjects import check_token

_REPUBLISHED = -2  # of a header's values: the last is the record's own, those before may be the submitter's


@dataclass(frozen=True, slots=True)
class TimeRange:
    """Which recorded requests are meant; None: any."""

    since_unix_ms: int | None = None
    until_unix_ms: int | None = None  # before this instant
    tenant: str | None = None
    model: str | None = None


class Recording:
    """The recorded requests of one mesh."""

    def __init__(self, link: MeshLink) -> None:
        self._connection = link.connection
        self._names = link.names
        self._stream = link.names.record_stream

    async def pages(self, span: TimeRange) -> AsyncIterator[list[StoredRequest]]:
        """The requests recorded so far, oldest first, in lists of one or more. `sequence` is the request's own.

        Raises:
            InvalidRequestError: a name in `span` is no subject token.
            TopologyError: nothing was ever recorded here; the message says how it is.
            BrokerError: NATS did not answer.
        """
        model, tenant = ("*" if each is None else each for each in (span.model, span.tenant))
        for name, token in (("model", span.model), ("tenant", span.tenant)):
            if token is not None:
                check_token(name, token)
        subject = self._names.system("queued", model, "*", tenant, "*")
        until = span.until_unix_ms
        pages = read_pages(
            self._connection, self._stream, subject, last=await self._last(), since_unix_ms=span.since_unix_ms
        )
        async for page in pages:
            found = [each for each in page if until is None or each.unix_ms < until]
            if found:
                yield [self._read(message) for message in found]
            if len(found) < len(page):
                return

    async def _last(self) -> int:
        try:
            return int((await topology.stream_state(self._connection, self._stream))["last_seq"])
        except TopologyError:
            raise TopologyError(
                f"there are no recorded requests: stream {self._stream} is missing; "
                "`mesh init --record-requests --apply` records from now on, prompts included"
            ) from None

    def _read(self, message: StoredMessage) -> StoredRequest:
        sequences = _values(message.header, b"Nats-Sequence")
        times = _values(message.header, b"Nats-Time-Stamp")
        sequence = sequences[_REPUBLISHED] if len(sequences) > 1 else ""
        stored_unix_ms = _unix_ms(times[_REPUBLISHED]) if len(times) > 1 else 0
        tokens = message.subject.split(".")
        subject = ".".join((self._names.ns, "req", *tokens[len(self._names.system("queued").split(".")) :]))
        return read_stored(
            self._names,
            subject,
            int(sequence) if sequence.isdigit() and len(sequence) <= 18 else 0,
            message.body,
            message.header,
            stored_unix_ms or message.unix_ms,
        )


def _values(raw: bytes, name: bytes) -> list[str]:
    """All values of a header, in their order."""
    found = []
    for line in raw.split(b"\r\n"):
        key, _, value = line.partition(b":")
        if key.strip() == name:
            found.append(value.strip().decode("ascii", "replace"))
    return found


def _unix_ms(time: str) -> int:
    try:
        return int(datetime.fromisoformat(time).timestamp() * 1000)
    except ValueError:
        return 0
