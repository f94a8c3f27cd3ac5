"""A mesh with one simulator worker for the tests of this folder."""

import pytest

from tests.running import running_mesh


@pytest.fixture
async def mesh(tmp_path):
    async with running_mesh(tmp_path / "nats") as running:
        await running.start_worker()
        yield running
