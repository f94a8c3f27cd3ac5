"""A mesh with one simulator worker for the tests of this folder."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from mesh.server import EmbeddedServer
from tests.running import RunningMesh, running_mesh


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[EmbeddedServer]:
    running = EmbeddedServer(tmp_path / "nats")
    await running.start()
    yield running
    await running.stop()


@pytest.fixture
async def mesh(tmp_path: Path) -> AsyncIterator[RunningMesh]:
    async with running_mesh(tmp_path / "nats") as running:
        await running.start_worker()
        yield running
