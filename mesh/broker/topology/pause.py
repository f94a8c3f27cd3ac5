"""JetStream's pause of a consumer: it delivers nothing until it is resumed, or until its time is over.

The server stores the pause in the consumer's configuration, so it survives restarts and leader changes. During a
pause, a no-wait pull gets an empty answer, and a waiting pull waits until it expires. Earlier deliveries can still be
renewed, acknowledged and handed back, but none is redelivered. Source: ADR-49 (consumer pause; nats-server 2.11).
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import msgspec

from mesh.broker.topology.declaration import consumer_states, stream_clock
from mesh.broker.topology.streams import NS
from mesh.broker.transport.mapping import read_api
from mesh.broker.transport.mesh_link import MeshLink


@dataclass(frozen=True, slots=True)
class Lane:
    """One consumer of the request queue."""

    consumer: str
    model: str
    tier: str
    lane: str
    waiting: int  # jobs stored and never delivered
    running: int  # jobs that a worker holds, or held when it died
    pause_s: float  # seconds until the pause ends; 0: not paused


class Lanes:
    """The consumers of one mesh."""

    def __init__(self, link: MeshLink) -> None:
        self._link = link
        self._connection = link.connection
        self._names = link.names
        self._stream = link.names.requests_stream

    async def all(self) -> list[Lane]:
        """Return every lane of every model, sorted by consumer name.

        Raises:
            BrokerError: NATS did not answer.
        """
        states = await consumer_states(self._connection, self._stream)
        found = [self._read(name, states[name]) for name in sorted(states)]
        return [each for each in found if each is not None]

    async def pause(self, consumer: str, until_unix_ms: int) -> float:
        """Pause a consumer until an instant of the server's clock; return the seconds until then.

        A later pause replaces it.

        Raises:
            TopologyError: the consumer does not exist.
            BrokerError: NATS did not answer; it is safe to pause again.
        """
        until = datetime.fromtimestamp(until_unix_ms / 1000, UTC).isoformat(timespec="milliseconds")
        return _seconds(await self._set(consumer, {"pause_until": until.replace("+00:00", "Z")}))

    async def resume(self, consumer: str) -> None:
        """Resume a consumer for pulls that are sent from now on; pulls that already wait are not served.

        nats-server (2.15.1) serves waiting pulls when a pause ends by itself, but not when it is resumed. So let a
        short pause end first.

        Raises:
            TopologyError, BrokerError: as in `pause`.
        """
        await self._set(consumer, {})

    async def clock_unix_ms(self) -> int:
        """Return the server's time in Unix ms.

        Raises:
            TopologyError: there is no mesh on this NATS.
        """
        return (await stream_clock(self._link, self._stream))[1]

    async def _set(self, consumer: str, body: dict[str, Any]) -> dict[str, Any]:
        subject = f"$JS.API.CONSUMER.PAUSE.{self._stream}.{consumer}"
        _, payload = await self._connection.request(subject, msgspec.json.encode(body))
        return read_api(payload, f"pause of {consumer}")

    def _read(self, name: str, state: dict[str, Any]) -> Lane | None:
        """Return the lane of a consumer; None: the consumer is not a lane of this mesh."""
        address = self._names.read_request(state["config"].get("filter_subject") or "")
        if address is None or name != self._names.consumer(address.model, address.tier, address.lane):
            return None
        return Lane(
            consumer=name,
            model=address.model,
            tier=address.tier,
            lane=address.lane,
            waiting=int(state.get("num_pending", 0)),
            running=int(state.get("num_ack_pending", 0)),
            pause_s=_seconds(state),
        )


def _seconds(state: dict[str, Any]) -> float:
    return float(state.get("pause_remaining") or 0) / NS if state.get("paused") else 0.0
