"""A NATS micro service, for `nats micro ls`, `nats micro stats` and `nats req`.

It does not use nats.micro, for two reasons. There the requests of an endpoint wait for each other. And its
subscriptions end with a link that has to be replaced. Source: ADR-32 (service API), the schemas of `io.nats.micro.v1`.
"""

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import msgspec

from mesh import __version__
from mesh.broker.transport.connection import Connection
from mesh.broker.transport.mesh_link import MeshLink
from mesh.broker.transport.nats_client import Handler
from mesh.clock import SYSTEM
from mesh.errors import BrokerTimeoutError, DisconnectedError, MeshError, UnavailableError
from mesh.protocol import headers, version
from mesh.protocol.timing import REQUESTER_BACK_S

PREFIX = "$SRV"
DESCRIPTION = "The mesh's front door: ask a model, and steer the jobs that come of it"
MAX_REASON_CHARS = 500
HEARD_S = 0.3  # NATS reports within this time that a message had no subscriber
_TYPE = "io.nats.micro.v1."


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One kind of request. `on_request` must not block; its task calls `done`, `refuse` or `refuse_last` at the end."""

    name: str
    subject: str  # with wildcards
    queue: str  # queue group: one member gets each request
    on_request: Callable[["ServiceRequest"], None]
    metadata: Mapping[str, str]  # for `nats micro info`
    data: Callable[[], dict[str, Any]] = dict  # for `nats micro stats`


@dataclass(slots=True)
class _Counts:
    requests: int = 0
    errors: int = 0
    last_error: str = ""
    spent_ns: int = 0


@dataclass(slots=True, eq=False)
class ServiceRequest:
    """One request, from its arrival to `done`. `respond` may be called several times, `refuse` once."""

    connection: Connection
    subject: str
    reply: str
    payload: bytes
    header: bytes
    _counts: _Counts
    _began_s: float = field(default_factory=SYSTEM.monotonic_s)
    _is_done: bool = False
    _reconnects: int = 0

    def __post_init__(self) -> None:
        self._reconnects = self.connection.reconnects

    def respond(self, body: bytes, header: bytes = b"") -> None:
        """Send one message to the requester.

        Raises:
            DisconnectedError, TooLargeError: the message was not sent.
        """
        self.connection.publish(self.reply, body, header)

    async def respond_last(self, body: bytes, header: bytes = b"") -> None:
        """Send a final message; after a reconnect, repeat it until a subscriber gets it.

        The requester may have lost its connection too, and may reconnect later than this process. It has
        REQUESTER_BACK_S for that.

        Raises:
            DisconnectedError, TooLargeError: the message was not sent.
        """
        end_s = SYSTEM.monotonic_s() + REQUESTER_BACK_S
        while True:
            try:
                if self.connection.reconnects == self._reconnects:
                    self.connection.publish(self.reply, body, header)
                else:
                    await self.connection.request(self.reply, body, header, HEARD_S)
                return
            except BrokerTimeoutError:
                return  # a subscriber got it
            except UnavailableError:
                if SYSTEM.monotonic_s() >= end_s:
                    return
                await asyncio.sleep(HEARD_S)
            except DisconnectedError:
                await self.connection.wait_connected(max(0.0, end_s - SYSTEM.monotonic_s()))

    def refuse(self, code: int, reason: str, extra: tuple[tuple[str, str], ...] = ()) -> None:
        """End the request with a service error; never raises. `extra`: further headers."""
        header = self._refusal(code, reason, extra)
        with contextlib.suppress(MeshError):  # without a connection, the requester cannot be reached
            self.connection.publish(self.reply, b"", header)
        self.done()

    async def refuse_last(self, code: int, reason: str, extra: tuple[tuple[str, str], ...] = ()) -> None:
        """End a request that was in progress with a service error, sent as in `respond_last`."""
        header = self._refusal(code, reason, extra)
        with contextlib.suppress(MeshError):
            await self.respond_last(b"", header)
        self.done()

    def _refusal(self, code: int, reason: str, extra: tuple[tuple[str, str], ...]) -> bytes:
        text = " ".join(reason.split())[:MAX_REASON_CHARS]
        self._counts.errors += 1
        self._counts.last_error = f"{code}:{text}"
        more = [(name, " ".join(value.split())[:MAX_REASON_CHARS]) for name, value in extra]
        return headers.block(("Nats-Service-Error-Code", code), ("Nats-Service-Error", text), *more)

    def done(self) -> None:
        """Mark the request as ended: no more messages follow. Idempotent."""
        if not self._is_done:
            self._is_done = True
            self._counts.spent_ns += int((SYSTEM.monotonic_s() - self._began_s) * 1e9)


class Service:
    """The endpoints of one process, until `close`."""

    def __init__(self, link: MeshLink, id: str, endpoints: tuple[Endpoint, ...]) -> None:
        """Subscribe to the endpoints. `id` identifies this process among the service's members: the worker's name."""
        self._connection = link.connection
        self._names = link.names
        self._identity = {
            "name": link.names.ns,
            "id": id,
            "version": __version__,
            "metadata": {"namespace": link.names.ns, "protocol": str(version.PROTOCOL)},
        }
        self._started = datetime.fromtimestamp(SYSTEM.wall_unix_ms() / 1000, UTC).isoformat()
        self._endpoints = endpoints
        self._counts = {each.name: _Counts() for each in endpoints}
        self._heard = {
            each.name: link.connection.subscribe(each.subject, self._hear(each), each.queue) for each in endpoints
        }
        self._subscriptions = list(self._heard.values())
        for verb, answer in (("PING", self._ping), ("INFO", self._info), ("STATS", self._stats)):
            for tail in ("", f".{link.names.ns}", f".{link.names.ns}.{id}"):
                self._subscriptions.append(link.connection.subscribe(f"{PREFIX}.{verb}{tail}", self._tell(answer)))

    def shut(self, endpoint: str) -> None:
        """Stop taking requests at one endpoint; other members of its queue group take them. Idempotent."""
        self._heard[endpoint].close()

    def close(self) -> None:
        """Stop taking requests; their tasks end the open ones. Idempotent."""
        for each in self._subscriptions:
            each.close()
        self._subscriptions.clear()

    def _hear(self, endpoint: Endpoint) -> Handler:
        counts = self._counts[endpoint.name]

        def heard(subject: bytes, reply: bytes, payload: bytes, header: bytes) -> None:
            to = reply.decode("utf-8", "replace")
            if not self._names.may_answer(to):
                return  # there is no reply subject, or its sender may not publish to it
            counts.requests += 1
            text = subject.decode("utf-8", "replace")
            endpoint.on_request(ServiceRequest(self._connection, text, to, payload, header, counts))

        return heard

    def _tell(self, answer: Callable[[], dict[str, Any]]) -> Handler:
        def heard(subject: bytes, reply: bytes, payload: bytes, header: bytes) -> None:
            to = reply.decode("utf-8", "replace")
            if self._names.may_answer(to) and self._connection.is_connected:
                self._connection.publish(to, msgspec.json.encode(answer()))

        return heard

    def _ping(self) -> dict[str, Any]:
        return {"type": f"{_TYPE}ping_response", **self._identity}

    def _info(self) -> dict[str, Any]:
        endpoints = [
            {"name": each.name, "subject": each.subject, "queue_group": each.queue, "metadata": dict(each.metadata)}
            for each in self._endpoints
        ]
        return {
            "type": f"{_TYPE}info_response",
            **self._identity,
            "description": DESCRIPTION,
            "endpoints": endpoints,
        }

    def _stats(self) -> dict[str, Any]:
        return {
            "type": f"{_TYPE}stats_response",
            **self._identity,
            "started": self._started,
            "endpoints": [self._stats_of(each) for each in self._endpoints],
        }

    def _stats_of(self, endpoint: Endpoint) -> dict[str, Any]:
        counts = self._counts[endpoint.name]
        return {
            "name": endpoint.name,
            "subject": endpoint.subject,
            "queue_group": endpoint.queue,
            "num_requests": counts.requests,
            "num_errors": counts.errors,
            "last_error": counts.last_error,
            "processing_time": counts.spent_ns,
            "average_processing_time": counts.spent_ns // counts.requests if counts.requests else 0,
            "data": endpoint.data(),
        }
