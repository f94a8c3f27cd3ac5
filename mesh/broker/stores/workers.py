"""The workers that are alive: each keeps one value in a bucket, which disappears when it stops beating."""

import contextlib
from dataclasses import dataclass

from mesh.broker.stores.reads import PageSize, StoredMessage, read_pages
from mesh.broker.transport.mesh_link import MeshLink
from mesh.errors import ProtocolError, TopologyError, UnavailableError
from mesh.protocol import codec, headers
from mesh.protocol.messages import Presence

# One page holds a mesh of 10,000 workers, at half a kilobyte each, as one replica has it.
PAGE = PageSize(messages=10_000, bytes=16 << 20, timeout_s=5.0)


@dataclass(frozen=True, slots=True)
class Beat:
    """A worker's last presence."""

    presence: Presence
    unix_ms: int  # when it was stored, by the server's clock


class PresenceStore:
    """Which workers are alive: each keeps one value here, which disappears when it stops beating."""

    def __init__(self, link: MeshLink) -> None:
        self._connection = link.connection
        self._names = link.names
        self._stream = f"KV_{link.names.workers_bucket}"

    def put(self, presence: Presence) -> None:
        """Beat once; lost beats are made good by the next.

        Raises:
            DisconnectedError: no connection.
        """
        self._connection.publish(self._names.worker_key(presence.worker), codec.encode(presence))

    def remove(self, worker: str) -> None:
        """Leave: the value goes at once, as `nats kv del` does it (ADR-8).

        Raises:
            DisconnectedError: no connection.
        """
        header = headers.block(("KV-Operation", "DEL"))
        self._connection.publish(self._names.worker_key(worker), b"", header)

    async def beats(self) -> list[Beat]:
        """Every worker alive, by id, and when it last said so. May lag by a moment on a replicated bucket.

        Raises:
            TopologyError: there is no mesh on this NATS.
            BrokerError: NATS did not answer.
        """
        # The bucket keeps the newest message of each worker. A worker that beats while this reads moves to the
        # stream's end and is read there, so none is missed.
        newest: dict[str, StoredMessage] = {}
        everyone = self._names.worker_key("*")
        try:
            async for page in read_pages(self._connection, self._stream, everyone, size=PAGE):
                newest |= {message.subject: message for message in page}
        except UnavailableError:
            raise TopologyError(
                f"bucket {self._names.workers_bucket} is missing; declare it with `mesh init --apply`"
            ) from None
        found: list[Beat] = []
        for message in newest.values():
            with contextlib.suppress(ProtocolError):  # another protocol's worker, or no worker
                if message.body:  # else the marker of a worker that left
                    found.append(Beat(codec.decode_presence(message.body), message.unix_ms))
        return sorted(found, key=lambda beat: beat.presence.worker)

    async def all(self) -> list[Presence]:
        """Every worker alive, by id.

        Raises:
            TopologyError, BrokerError: as `beats`.
        """
        return [beat.presence for beat in await self.beats()]
