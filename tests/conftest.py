"""What a test may ask for: a real nats-server of its own, a connection, a whole mesh, a client of it."""

import pytest
from hypothesis import settings

import mesh as mesh_api
from mesh.broker import topology
from mesh.broker.connection import connect
from mesh.broker.options import ConnectOptions
from mesh.broker.topology import MeshSettings
from mesh.protocol.subjects import Names
from mesh.server import EmbeddedServer
from tests.running import MODEL, running_mesh

# A busy machine is no reason for a property to fail; the same examples on every run, so that a red test is a change.
settings.register_profile("mesh", deadline=None, derandomize=True, max_examples=100)
settings.load_profile("mesh")

# Small, so that a test's server starts with little to declare; one lane, so that an affinity token decides nothing.
SMALL = MeshSettings(lanes=1)


@pytest.fixture
async def server(tmp_path):
    """A nats-server with nothing on it."""
    running = EmbeddedServer(tmp_path / "nats")
    await running.start()
    yield running
    await running.stop(kill=True)


@pytest.fixture
async def connection(server):
    """A connection to `server`."""
    async with connect(ConnectOptions(servers=(server.url,), name="test")) as connected:
        yield connected


@pytest.fixture
async def mesh_server(server, connection):
    """`server` with the topology of one model applied: one lane per tier."""
    await topology.apply(connection, await topology.plan(connection, Names(), SMALL, [MODEL]))
    return server


@pytest.fixture
async def mesh(tmp_path):
    """Server, topology and one simulator worker in this process; `mesh.start_worker()` starts more."""
    async with running_mesh(tmp_path / "nats") as running:
        await running.start_worker()
        yield running


@pytest.fixture
async def client(mesh):
    """A client of `mesh`."""
    async with mesh_api.connect(mesh.url) as connected:
        yield connected
