"""Reads stored messages out of a stream: one from its leader, or many by direct get, page by page.

The leader's answer shows what was written a moment ago; a direct get is answered by any replica, and may lag.
Source: ADR-31 (direct get), and the JetStream API's STREAM.MSG.GET.
"""

import base64
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import msgspec

from mesh.broker.transport.connection import Connection
from mesh.broker.transport.mapping import NO_MESSAGE, read_api
from mesh.errors import BrokerError, ProtocolError
from mesh.protocol import headers

_END_OF_BATCH, _NOTHING = 204, 404


@dataclass(frozen=True, slots=True)
class StoredMessage:
    """One message as a stream keeps it."""

    sequence: int
    subject: str
    body: bytes
    header: bytes
    time: str = ""  # when it was stored, by the server's clock; RFC 3339

    @property
    def unix_ms(self) -> int:
        """When it was stored; 0 if the server did not say."""
        return int(datetime.fromisoformat(self.time).timestamp() * 1000) if self.time else 0


@dataclass(frozen=True, slots=True)
class PageSize:
    """How much is read at once."""

    messages: int = 256
    bytes: int = 8 << 20  # of bodies; the message that goes beyond is the page's last
    timeout_s: float = 10.0  # for one page to come


PAGE = PageSize()


async def get_from_leader(connection: Connection, stream: str, ask: dict[str, Any]) -> StoredMessage | None:
    """The message that `ask` names (`seq`, `last_by_subj`, `next_by_subj`), None if there is none.

    Raises:
        BrokerError: NATS did not answer, or there is no such stream.
    """
    _, payload = await connection.request(f"$JS.API.STREAM.MSG.GET.{stream}", msgspec.json.encode(ask))
    try:
        message = read_api(payload, f"read from {stream}")["message"]
    except BrokerError as error:
        if error.err_code == NO_MESSAGE:
            return None
        raise
    return StoredMessage(
        message["seq"],
        message["subject"],
        base64.b64decode(message.get("data") or ""),
        base64.b64decode(message.get("hdrs") or ""),
        message.get("time", ""),
    )


async def get_batch(
    connection: Connection, stream: str, ask: dict[str, Any], timeout_s: float = 5.0
) -> list[StoredMessage]:
    """The messages that `ask` names (`seq` and `next_by_subj` with `batch`), in stream order; none if there are none.

    Raises:
        BrokerError: NATS did not answer, or refused.
    """
    found, _ = await _get_part(connection, stream, ask, timeout_s)
    return found


async def read_pages(
    connection: Connection,
    stream: str,
    subject: str,
    *,
    after: int = 0,
    last: int | None = None,
    since_unix_ms: int | None = None,
    size: PageSize = PAGE,
) -> AsyncIterator[list[StoredMessage]]:
    """The messages on `subject`, which may hold wildcards, in stream order, in lists of one or more.

    Ends when the replica that answers has no more. A replica may lag behind its leader by a moment.

    Args:
        after: stream sequence; only later messages are read.
        last: stream sequence; later messages are not read.
        since_unix_ms: by the server's clock; messages stored before it are not read.

    Raises:
        BrokerError: NATS did not answer, or refused.
    """
    ask: dict[str, Any] = {"next_by_subj": subject, "batch": size.messages, "max_bytes": size.bytes}
    start: dict[str, Any] = {"seq": after + 1}
    if since_unix_ms is not None and not after:
        start = {"start_time": datetime.fromtimestamp(since_unix_ms / 1000, UTC).isoformat()}
    pending = 1
    while pending and (last is None or after < last):
        page, pending = await _get_part(connection, stream, ask | start, size.timeout_s)
        if not page:
            return
        after = page[-1].sequence
        start = {"seq": after + 1}
        wanted = page if last is None else [message for message in page if message.sequence <= last]
        if wanted:
            yield wanted


async def _get_part(
    connection: Connection, stream: str, ask: dict[str, Any], timeout_s: float
) -> tuple[list[StoredMessage], int]:
    """One batch, and how many messages that match are left after it."""
    subject = f"$JS.API.DIRECT.GET.{stream}"
    *found, (end, _) = await connection.collect(subject, msgspec.json.encode(ask), _is_end, timeout_s)
    fields = headers.parse(end)
    if headers.status(end) not in (_END_OF_BATCH, _NOTHING):
        raise BrokerError(f"read from {stream}: {fields.get('Status', '?')} {fields.get('Description', '')}")
    pending = fields.get("Nats-Num-Pending", "")
    return [_message(header, payload) for header, payload in found], int(pending) if pending.isdigit() else 0


def _is_end(header: bytes, payload: bytes) -> bool:
    return not payload and headers.status(header) != 0


def _message(header: bytes, payload: bytes) -> StoredMessage:
    fields = headers.parse(header)
    sequence = fields.get("Nats-Sequence", "")
    if not sequence.isdigit():
        raise ProtocolError("a direct get answered without Nats-Sequence")
    time = fields.get("Nats-Time-Stamp", "")
    return StoredMessage(int(sequence), fields.get("Nats-Subject", ""), payload, header, time)
