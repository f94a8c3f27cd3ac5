"""Which worker is alive, decided by the server: one record each, written only by who read the one before.

A worker that lost its connection and one that takes it for dead write to the same subject under the same fence, so
one of the two learns from the server that it was too late. Kept in the events stream, where it survives a restart.
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
    """A worker's last sign, and the fence of the next."""

    sequence: int
    record: LivenessRecord | None  # None: nobody of ours wrote it


class LivenessStore:
    """The records of one mesh."""

    def __init__(self, link: MeshLink) -> None:
        self._connection = link.connection
        self._names = link.names

    async def write(self, record: LivenessRecord, last: int | None) -> int:
        """Write a worker's sign if its last one is at `last`, or whatever there is if None; the new fence.

        Raises:
            SequenceError: somebody wrote since.
            BrokerError: unknown whether it was written; `last` tells.
        """
        subject = self._names.liveness(record.worker)
        header = b"" if last is None else headers.expecting(last)
        _, payload = await self._connection.request(subject, codec.encode(record), header)
        return read_puback(payload, f"sign of {record.worker}").seq

    async def ask(self, worker: str) -> Pong | None:
        """What a worker answers to a ping; None: its connection is closed.

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
        """A worker's last sign, from the stream's leader; None if it has none, or none any more.

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
