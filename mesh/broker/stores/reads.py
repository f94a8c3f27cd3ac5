"""Reading stored messages out of a stream: one from its leader, or many by direct get.

The leader's answer shows what was written a moment ago; a direct get is answered by any replica, and may lag.
Source: ADR-31 (direct get), and the JetStream API's STREAM.MSG.GET.
"""

import base64
from dataclasses import dataclass
from datetime import datetime
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
    subject = f"$JS.API.DIRECT.GET.{stream}"
    *found, (end, _) = await connection.collect(subject, msgspec.json.encode(ask), _is_end, timeout_s)
    if headers.status(end) not in (_END_OF_BATCH, _NOTHING):
        fields = headers.parse(end)
        raise BrokerError(f"read from {stream}: {fields.get('Status', '?')} {fields.get('Description', '')}")
    return [_message(header, payload) for header, payload in found]


def _is_end(header: bytes, payload: bytes) -> bool:
    return not payload and headers.status(header) != 0


def _message(header: bytes, payload: bytes) -> StoredMessage:
    fields = headers.parse(header)
    sequence = fields.get("Nats-Sequence", "")
    if not sequence.isdigit():
        raise ProtocolError("a direct get answered without Nats-Sequence")
    time = fields.get("Nats-Time-Stamp", "")
    return StoredMessage(int(sequence), fields.get("Nats-Subject", ""), payload, header, time)
