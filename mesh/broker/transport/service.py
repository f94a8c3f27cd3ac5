"""A NATS micro service: `nats micro ls` finds it, `nats micro stats` counts it, `nats req` asks it.

Spoken here and not through nats.micro: there the requests of an endpoint wait for each other, and the subscriptions
end with a link that has to be replaced. Source: ADR-32 (service API), the schemas of `io.nats.micro.v1`.
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
HEARD_S = 0.3  # in which NATS says that nobody heard a message, if so
_TYPE = "io.nats.micro.v1."


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One kind of request. `on_request` must not block; whoever it hands the request to ends it."""

    name: str
    subject: str  # with wildcards
    queue: str  # one member of it hears each request
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
    """One request, from its arrival to `done`. Answered by `respond`, once or often, or by `refuse`."""

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
            DisconnectedError, TooLargeError: it was not sent.
        """
        self.connection.publish(self.reply, body, header)

    async def respond_last(self, body: bytes, header: bytes = b"") -> None:
        """Send one of the last messages. If the connection broke since the request came, until somebody hears it.

        The requester may have lost its own, and be back later than we are; it has REQUESTER_BACK_S.

        Raises:
            DisconnectedError, TooLargeError: it was not sent.
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
                return  # somebody heard it
            except UnavailableError:
                if SYSTEM.monotonic_s() >= end_s:
                    return
                await asyncio.sleep(HEARD_S)
            except DisconnectedError:
                await self.connection.wait_connected(max(0.0, end_s - SYSTEM.monotonic_s()))

    def refuse(self, code: int, reason: str, extra: tuple[tuple[str, str], ...] = ()) -> None:
        """End the request with a service error; never raises. `extra`: further headers."""
        header = self._refusal(code, reason, extra)
        with contextlib.suppress(MeshError):  # no connection: whoever asked has none to us either
            self.connection.publish(self.reply, b"", header)
        self.done()

    async def refuse_last(self, code: int, reason: str, extra: tuple[tuple[str, str], ...] = ()) -> None:
        """As `refuse`, of a request that was under way: sent as `respond_last` does."""
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
        """Nothing more is sent. Idempotent."""
        if not self._is_done:
            self._is_done = True
            self._counts.spent_ns += int((SYSTEM.monotonic_s() - self._began_s) * 1e9)


class Service:
    """The endpoints of one process, until `close`."""

    def __init__(self, link: MeshLink, id: str, endpoints: tuple[Endpoint, ...]) -> None:
        """`id` tells this process from others that serve the same: a worker's name."""
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
        """Hear no more requests to one endpoint: others of its queue group do. Idempotent."""
        self._heard[endpoint].close()

    def close(self) -> None:
        """Hear no more; requests under way are ended by those who have them. Idempotent."""
        for each in self._subscriptions:
            each.close()
        self._subscriptions.clear()

    def _hear(self, endpoint: Endpoint) -> Handler:
        counts = self._counts[endpoint.name]

        def heard(subject: bytes, reply: bytes, payload: bytes, header: bytes) -> None:
            to = reply.decode("utf-8", "replace")
            if not self._names.may_answer(to):
                return  # nobody to answer, or a subject that its sender could not publish to itself
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
