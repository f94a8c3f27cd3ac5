"""A mesh with one simulator worker for the tests of this folder."""

import pytest

from mesh.server import EmbeddedServer
from tests.running import running_mesh


@pytest.fixture
async def server(tmp_path):
    running = EmbeddedServer(tmp_path / "nats")
    await running.start()
    yield running
    await running.stop()


@pytest.fixture
async def mesh(tmp_path):
    async with running_mesh(tmp_path / "nats") as running:
        await running.start_worker()
        yield running
