"""A mesh that serves `demo`, for clients that are not ours."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from mesh.engines.simulator.settings import SimulatorSettings
from mesh.worker.worker import WorkerOptions
from tests.running import RunningMesh, running_mesh


@pytest.fixture
async def demo(tmp_path: Path) -> AsyncIterator[RunningMesh]:
    """Forty tokens of it take six seconds: time to cut a connection in the middle."""
    async with running_mesh(tmp_path / "nats") as running:
        settings = SimulatorSettings(model="demo", first_token_ms=1, between_tokens_ms=150)
        await running.start_worker(settings, WorkerOptions(model="demo", grace_s=5))
        yield running
