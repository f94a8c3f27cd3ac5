"""The workers that are alive: each keeps one value in a bucket, which disappears when it stops beating."""

import contextlib
from typing import Any

import msgspec

from mesh.broker.transport.mesh_link import MeshLink
from mesh.errors import ProtocolError, TopologyError, UnavailableError
from mesh.protocol import codec, headers
from mesh.protocol.messages import Presence


class PresenceStore:
    """Which workers are alive: each keeps one value here, which disappears when it stops beating."""

    def __init__(self, link: MeshLink) -> None:
        self._link = link
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

    async def all(self) -> list[Presence]:
        """Every worker alive, by id.

        Raises:
            TopologyError: there is no mesh on this NATS.
            BrokerError: NATS did not answer.
        """
        ask: dict[str, Any] = {"multi_last": [self._names.worker_key("*")], "batch": 10_000}
        try:
            answers = await self._connection.collect(
                f"$JS.API.DIRECT.GET.{self._stream}",
                msgspec.json.encode(ask),
                lambda header, payload: headers.status(header) != 0,
            )
        except UnavailableError:
            raise TopologyError(
                f"bucket {self._names.workers_bucket} is missing; declare it with `mesh init --apply`"
            ) from None
        found: list[Presence] = []
        for _, payload in answers:
            with contextlib.suppress(ProtocolError):  # a worker of another version, or nobody of ours
                if payload:
                    found.append(codec.decode_presence(payload))
        return sorted(found, key=lambda presence: presence.worker)
