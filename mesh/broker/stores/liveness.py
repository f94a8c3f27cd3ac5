"""One liveness record for each worker. The server accepts a write only from a process that read the record before.

A disconnected worker and a peer that declares it dead write to one subject under one fence. So the server tells one of
them that it was too late. The records are in the events stream, where they survive a restart.
"""

from dataclasses import dataclass

from mesh.broker.stores.reads import get_from_leader
from mesh.broker.transport.mapping import read_puback
from mesh.broker.transport.mesh_link import MeshLink
from mesh.errors import ProtocolError, UnavailableError
from mesh.protocol import codec, headers
from mesh.protocol.messages import LivenessRecord, Pong

PING_S = 1.0  # a worker that works answers within milliseconds


@dataclass(frozen=True, slots=True)
class LivenessEntry:
    """A worker's last record, and the fence of the next."""

    sequence: int
    record: LivenessRecord | None  # None: the message is no liveness record


class LivenessStore:
    """The records of one mesh."""

    def __init__(self, link: MeshLink) -> None:
        self._connection = link.connection
        self._names = link.names

    async def write(self, record: LivenessRecord, last: int | None) -> int:
        """Write a worker's record if its last one is at `last`; None: in any case. Returns the new fence.

        Raises:
            SequenceError: another process wrote since.
            BrokerError: unknown whether it was written; `last` tells.
        """
        subject = self._names.liveness(record.worker)
        header = b"" if last is None else headers.expecting(last)
        _, payload = await self._connection.request(subject, codec.encode(record), header)
        return read_puback(payload, f"liveness record of {record.worker}").seq

    async def ask(self, worker: str) -> Pong | None:
        """A worker's answer to a ping; None: its connection is closed.

        Raises:
            BrokerTimeoutError: it is connected and does not answer: it is suspended, or very busy.
            DisconnectedError: NATS could not be asked.
        """
        try:
            _, payload = await self._connection.request(self._names.system("ping", worker), timeout_s=PING_S)
        except UnavailableError:
            return None
        return codec.decode_pong(payload)

    async def last(self, worker: str) -> LivenessEntry | None:
        """A worker's last record, from the stream's leader; None: it has none, or it is kept no longer.

        Raises:
            BrokerError: NATS did not answer.
        """
        ask = {"last_by_subj": self._names.liveness(worker)}
        message = await get_from_leader(self._connection, self._names.events_stream, ask)
        if message is None:
            return None
        try:
            return LivenessEntry(message.sequence, codec.decode_liveness_record(message.body))
        except ProtocolError:
            return LivenessEntry(message.sequence, None)
