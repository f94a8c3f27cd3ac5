"""Tokens that gather: fewer messages, the same text, and neither the first token nor the end waits."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

import mesh as mesh_api
from mesh.broker.topology import MeshSettings
from mesh.clock import SYSTEM
from mesh.engines.simulator.settings import SimulatorSettings
from mesh.protocol.messages import Delta
from mesh.worker.options import WorkerOptions
from tests.running import MODEL, RunningMesh, running_mesh, wait_until

PACED = SimulatorSettings(model=MODEL, first_token_ms=1, between_tokens_ms=5)
LONG_S = 30.0  # longer than any test: what does not wait for the window shows


@pytest.fixture
async def bare(tmp_path: Path) -> AsyncIterator[RunningMesh]:
    async with running_mesh(tmp_path / "nats", MeshSettings(lanes=1)) as running:
        yield running


def options(window_s: float) -> WorkerOptions:
    return WorkerOptions(model=MODEL, grace_s=5.0, window_s=window_s)


async def deltas(mesh: RunningMesh, job: str) -> list[Delta]:
    return [event for event in await mesh.history(job) if isinstance(event, Delta)]


async def test_tokens_gather_and_the_text_is_the_same(bare: RunningMesh) -> None:
    await bare.start_worker(PACED, options(0.05))
    async with mesh_api.connect(bare.url) as client:
        job = await client.submit(MODEL, "Tell me of the sea", max_tokens=100, temperature=0)
        text = "".join([delta.text async for delta in job])
        result = await job
    found = await deltas(bare, job.id)
    assert text == result.text == "".join(delta.text for delta in found)
    assert sum(len(delta.token_ids) for delta in found) == 100
    assert len(found) < 34, "three tokens or more in each message"


async def test_neither_the_first_token_nor_the_end_waits_for_the_window(bare: RunningMesh) -> None:
    await bare.start_worker(PACED, options(LONG_S))
    async with mesh_api.connect(bare.url) as client:
        job = await client.submit(MODEL, "Tell me of the sea", max_tokens=40, temperature=0)
        result = await job.result(timeout=10)
    first, *rest = await deltas(bare, job.id)
    assert 1 <= len(first.token_ids) < 40
    assert sum(len(delta.token_ids) for delta in rest) == 40 - len(first.token_ids)
    assert result.status == "finished"


@pytest.mark.parametrize("how", ["cancel", "expire", "drain"])
async def test_what_gathered_is_in_the_journal_however_the_attempt_ends(bare: RunningMesh, how: str) -> None:
    worker = await bare.start_worker(PACED, options(LONG_S))
    async with mesh_api.connect(bare.url) as client:
        deadline: dict[str, Any] = {"deadline_unix_ms": SYSTEM.wall_unix_ms() + 1500} if how == "expire" else {}
        job = await client.submit(MODEL, "Tell me of the sea", max_tokens=4000, temperature=0, id="cut", **deadline)
        await wait_until(lambda: worker.statistics().tokens >= 30)
        if how == "cancel":
            assert await job.cancel() == "cancelled"
        elif how == "drain":
            worker.drain()
            worker.drain()
            await asyncio.wait_for(bare.tasks[-1], 10)
            found = await deltas(bare, "cut")
            assert sum(len(delta.token_ids) for delta in found) >= 30, "whoever goes on makes none of them again"
            return
        result = await job.result(timeout=10)
    found = await deltas(bare, "cut")
    assert result.text == "".join(delta.text for delta in found)
    assert sum(len(delta.token_ids) for delta in found) == result.usage.completion_tokens >= 30
