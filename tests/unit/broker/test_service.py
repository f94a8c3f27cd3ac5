"""A service answers its requesters, and never publishes to a subject that a requester may not use."""

import json
from collections.abc import AsyncIterator

import pytest

from mesh.broker.broker import Broker
from mesh.broker.transport.service import Endpoint, Service, ServiceRequest
from mesh.protocol.subjects import MAX_REPLY_BYTES
from tests.wire import Wire

FORBIDDEN = [
    "$JS.API.STREAM.DELETE.MESH_REQUESTS",
    "$JS.ACK.MESH_REQUESTS.simulator-standard-0.1.1.1.1.0",
    "$KV.mesh_results.bob.x",
    "$SYS.REQ.SERVER.PING",
    "mesh.out.bob.x",
    "mesh.req.simulator.standard.bob.x",
    "mesh.sys.drain.w-1",
    "x" * (MAX_REPLY_BYTES + 1),
]


class Echo:
    """An endpoint, and its requests."""

    def __init__(self, broker: Broker) -> None:
        self.asked: list[ServiceRequest] = []
        endpoint = Endpoint("echo", "echo.*", "q", self._asked, {})
        self.service = Service(broker, "w-1", (endpoint,))

    def _asked(self, request: ServiceRequest) -> None:
        self.asked.append(request)
        request.respond(request.payload)
        request.done()


@pytest.fixture
async def echo(broker: Broker) -> AsyncIterator[Echo]:
    made = Echo(broker)
    await broker.connection.request("$JS.API.INFO")
    yield made
    made.service.close()


async def test_a_requester_is_answered(echo: Echo, peer: Broker) -> None:
    _, payload = await peer.connection.request("echo.a", b"Hello")
    assert payload == b"Hello"
    assert len(echo.asked) == 1


@pytest.mark.parametrize("reply", FORBIDDEN, ids=lambda each: each[:20])
async def test_a_reply_into_the_mesh_is_neither_served_nor_answered(
    echo: Echo, broker: Broker, peer: Broker, wire: Wire, reply: str
) -> None:
    for subject in ("echo.a", "$SRV.PING", "$SRV.INFO", "$SRV.STATS"):
        peer.connection.publish(subject, b"Hello", reply=reply)
    await peer.connection.request("echo.b", b"served after it")
    await wire.settle(broker.connection)
    assert [each.subject for each in echo.asked] == ["echo.b"]
    assert wire.on(reply) == []


async def test_a_message_without_a_reply_is_not_served(echo: Echo, peer: Broker) -> None:
    peer.connection.publish("echo.a", b"Hello")
    await peer.connection.request("echo.b", b"served after it")
    assert [each.subject for each in echo.asked] == ["echo.b"]


async def test_the_discovery_of_services_is_answered(echo: Echo, peer: Broker) -> None:
    for verb in ("PING", "INFO", "STATS"):
        _, payload = await peer.connection.request(f"$SRV.{verb}.mesh.w-1")
        assert json.loads(payload)["id"] == "w-1"
