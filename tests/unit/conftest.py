"""For the tests of one module against a real nats-server: its mesh, a second process's connection, and the wire."""

from collections.abc import AsyncIterator

import pytest

from mesh.broker.broker import Broker
from mesh.broker.transport.connection import Connection, connect
from mesh.broker.transport.options import ConnectOptions
from mesh.protocol.subjects import Names
from mesh.server import EmbeddedServer
from tests.clocks import Hands
from tests.wire import Wire


@pytest.fixture
def hands() -> Hands:
    """The clock of `broker`."""
    return Hands()


@pytest.fixture
async def broker(mesh_server: EmbeddedServer, connection: Connection, hands: Hands) -> Broker:
    """The mesh of `mesh_server`, with one lane, on `connection`; its time passes by `hands` alone."""
    return Broker(connection, Names(), hands.clock)


@pytest.fixture
async def peer(mesh_server: EmbeddedServer) -> AsyncIterator[Broker]:
    """The same mesh on another process's connection."""
    async with connect(ConnectOptions(servers=(mesh_server.url,), name="peer")) as connected:
        yield Broker(connected, Names())


@pytest.fixture
async def wire(mesh_server: EmbeddedServer) -> AsyncIterator[Wire]:
    """Every message on `mesh_server`."""
    async with connect(ConnectOptions(servers=(mesh_server.url,), name="wire")) as connected:
        yield await Wire(connected).ready()


@pytest.fixture
async def spy(mesh_server: EmbeddedServer) -> AsyncIterator[Wire]:
    """Every message of the mesh but pings, so that these find nobody where nobody is."""
    async with connect(ConnectOptions(servers=(mesh_server.url,), name="spy")) as connected:
        yield await Wire(connected, ("$JS.>", "$KV.>", "mesh.sys.liveness.*", "mesh.sys.leases.*")).ready()
