"""Continuous pulling from the request queue, and the acknowledgements that end a delivery.

This module implements the pull protocol itself. nats-py lacks priority groups, `no_wait` and a continuous consume, and
takes a tenant's headers for status frames. All pulls of a worker share one inbox. The subject tells status frames from
jobs, never a header that a client could set.
Source: ADR-13 (pull), ADR-15 (acks), ADR-42 (priority groups).
"""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import msgspec

from mesh.broker.stores.delivery import Delivery, read_delivery
from mesh.broker.topology.streams import GROUP, NS
from mesh.broker.transport.calls import OnReply
from mesh.broker.transport.connection import Connection
from mesh.broker.transport.mesh_link import MeshLink
from mesh.errors import BrokerError, DisconnectedError
from mesh.protocol import headers

log = logging.getLogger("mesh.broker")

# empty: nothing (more) there. filled: all that was asked for came. broken: the consumer or its leader is gone.
PullEnd = Literal["empty", "filled", "broken"]
OnDelivery = Callable[[Delivery], None]
OnEnd = Callable[[str, PullEnd], None]

NO_WAIT_LIMIT_S = 2.0  # an unanswered no_wait pull is dead after this
EXPIRY_MARGIN_S = 1.0  # a waiting pull is dead when this long past its expiry without a word
ACK_TIMEOUT_S = 2.0
ACK_TRIES = 3  # an unconfirmed ack costs one redelivery that finds the Result and acks again


@dataclass(slots=True)
class _Pull:
    number: int
    left: int
    dead_at: float


class Pulls:
    """The pulls of one worker: at most one open for each consumer."""

    def __init__(self, link: MeshLink, on_delivery: OnDelivery, on_end: OnEnd) -> None:
        self._connection = link.connection
        self._names = link.names
        self._on_delivery = on_delivery
        self._on_end = on_end
        self._open: dict[str, _Pull] = {}
        self._number = 0
        self._loop = asyncio.get_running_loop()
        self._inbox = link.connection.new_inbox()
        self._skip = len(self._inbox) + 1
        self._subscription = link.connection.subscribe(self._inbox + ".*", self._heard)
        self._next = f"$JS.API.CONSUMER.MSG.NEXT.{link.names.requests_stream}."

    @property
    def open_pulls(self) -> int:
        return len(self._open)

    def pull(self, consumer: str, batch: int, expires_s: float | None, priority: int) -> None:
        """Ask for up to `batch` jobs: now or never if `expires_s` is None, else waiting so long for the first.

        Raises:
            DisconnectedError: no connection; the pull is not open.
        """
        if consumer in self._open:
            raise RuntimeError(f"a pull on {consumer} is open already")
        self._number += 1
        ask: dict[str, object] = {"batch": batch, "group": GROUP, "priority": priority}
        if expires_s is None:
            ask["no_wait"] = True
        else:
            ask["expires"] = int(expires_s * NS)
        limit_s = NO_WAIT_LIMIT_S if expires_s is None else expires_s + EXPIRY_MARGIN_S
        reply = f"{self._inbox}.{self._number}"
        self._connection.publish(self._next + consumer, msgspec.json.encode(ask), reply=reply)
        self._open[consumer] = _Pull(self._number, batch, self._loop.time() + limit_s)

    def reset(self) -> None:
        """The connection was lost, and every pull with it."""
        consumers, self._open = list(self._open), {}
        for consumer in consumers:
            self._on_end(consumer, "broken")

    def expire(self) -> None:
        """End pulls that the server forgot, as a leader that dies ends none."""
        now = self._loop.time()
        for consumer in [name for name, pull in self._open.items() if pull.dead_at <= now]:
            del self._open[consumer]
            self._on_end(consumer, "broken")

    def close(self) -> None:
        """Receive no more. Jobs in transit are redelivered after `ack_wait`."""
        self._subscription.close()
        self._open.clear()

    def _heard(self, subject: bytes, reply: bytes, payload: bytes, header: bytes) -> None:
        if subject.startswith(self._inbox.encode()):
            self._heard_status(subject, header)
            return
        delivery = read_delivery(self._names, subject, reply, payload, header)
        if delivery is None:
            log.error("a pull brought %r, which is no job", subject, extra={"event": "foreign_delivery"})
            return
        pull = self._open.get(delivery.consumer)
        if pull is not None:
            pull.left -= 1
            if pull.left == 0:
                del self._open[delivery.consumer]
        self._on_delivery(delivery)
        if pull is not None and pull.left == 0:
            self._on_end(delivery.consumer, "filled")

    def _heard_status(self, subject: bytes, header: bytes) -> None:
        number = int(subject[self._skip :] or b"0")
        consumer = next((name for name, pull in self._open.items() if pull.number == number), None)
        status = headers.status(header)
        if consumer is None or status == 100:
            return
        del self._open[consumer]
        if status in (404, 408):
            self._on_end(consumer, "empty")
            return
        description = headers.parse(header).get("Description", "")
        log.warning("the pull on %s ended: %s %s", consumer, status, description, extra={"event": "pull_ended"})
        self._on_end(consumer, "broken")


class Leases:
    """The acknowledgements of a delivery. Source: ADR-15.

    JetStream honours them from any client at any time, even after the job went to another worker. So the caller must
    hold the lease (see worker/lease).
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def extend(self, delivery: Delivery, on_reply: OnReply, timeout_s: float) -> None:
        """Start `ack_wait` anew. The answer proves that the server is there, not that the job is still ours.

        Raises:
            DisconnectedError: no connection.
        """
        self._connection.call(delivery.ack_subject, b"+WPI", b"", on_reply, timeout_s)

    async def ack(self, delivery: Delivery) -> bool:
        """Remove the job from the queue; whether the server confirmed it. Its Result must exist."""
        for _ in range(ACK_TRIES):
            try:
                await self._connection.request(delivery.ack_subject, b"+ACK", timeout_s=ACK_TIMEOUT_S)
            except DisconnectedError:
                return False
            except BrokerError:
                continue
            return True
        return False

    def nak(self, delivery: Delivery, delay_s: float = 0.0) -> None:
        """Hand the job back, to be delivered again at once or after `delay_s`.

        Raises:
            DisconnectedError: no connection; it comes again after `ack_wait`.
        """
        self.hand_back(delivery.ack_subject, delay_s)

    def hand_back(self, ack_subject: str, delay_s: float = 0.0) -> None:
        """`nak` for a worker that is dead, by the subject it had announced.

        Raises:
            DisconnectedError: no connection; the job comes again after `ack_wait`.
        """
        body = b'-NAK {"delay":%d}' % int(delay_s * NS) if delay_s > 0 else b"-NAK"
        self._connection.publish(ack_subject, body)

    def term(self, delivery: Delivery, reason: str) -> None:
        """Remove a message that can never be a job; `reason` goes into JetStream's advisory.

        Raises:
            DisconnectedError: no connection; it comes again after `ack_wait`.
        """
        self._connection.publish(delivery.ack_subject, f"+TERM {' '.join(reason.split())[:200]}".encode())
