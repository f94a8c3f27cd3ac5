"""Engines that die, hang, or stop getting anywhere with one job: what they cost, and whom."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

import mesh as mesh_api
from mesh.broker import topology
from mesh.broker.topology import MeshSettings
from mesh.client.client import Client
from mesh.engines.simulator.settings import SimulatorSettings
from mesh.errors import EngineDeadError
from mesh.hosting import host
from mesh.policies import restart
from mesh.policies.progress import ProgressPolicy
from mesh.protocol.messages import Started
from mesh.signals import AttemptStarted, Signal
from mesh.worker.worker import WorkerOptions
from tests.running import RunningMesh, running_mesh, wait_until

SETTINGS = SimulatorSettings(model="simulator", first_token_ms=5, between_tokens_ms=5)
LEASE_S = 60.0  # so that nothing here happens because a lease ended
pytestmark = pytest.mark.timeout(60)


@pytest.fixture(autouse=True)
def quick_restarts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(restart, "FIRST_PAUSE_S", 0.01)
    monkeypatch.setattr(restart, "MAX_PAUSE_S", 0.1)


@pytest.fixture
async def bare(tmp_path: Path) -> AsyncIterator[RunningMesh]:
    async with running_mesh(tmp_path / "nats", MeshSettings(lanes=1, ack_wait_s=LEASE_S)) as running:
        yield running


def options(stall_s: float = 120.0) -> WorkerOptions:
    return WorkerOptions(model="simulator", grace_s=5.0, progress=ProgressPolicy(stall_s))


async def undisturbed(client: Client, prompt: str, max_tokens: int) -> str:
    result = await client.generate("simulator", prompt, max_tokens=max_tokens, temperature=0)
    return result.text


async def buried(mesh: RunningMesh) -> int:
    state = await topology.stream_state(mesh.connection, mesh.names.dead_stream)
    return int(state["messages"])


async def test_an_engine_that_dies_is_started_again_in_the_same_worker(bare: RunningMesh) -> None:
    worker = await bare.start_worker(SETTINGS, options())
    async with mesh_api.connect(bare.url) as client:
        wanted = await undisturbed(client, "Tell me of the sea", 60)
        bystander = await client.submit("simulator", "Tell me of the sea", max_tokens=60, temperature=0)
        dies = {"simulate": {"die_after": 7, "fresh_only": True}}
        job = await client.submit("simulator", "Tell me of the sea", max_tokens=60, temperature=0, metadata=dies)
        result = await job.result(timeout=20)
        other = await bystander.result(timeout=20)
    assert result.text == other.text == wanted
    assert (result.attempts, other.attempts) == (2, 2)
    assert result.worker == worker.name, "the process and its name are the same"


async def test_an_engine_that_dies_again_and_again_ends_the_worker(
    bare: RunningMesh, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(host, "ENGINE_DEATHS", 2)
    await bare.start_worker(SETTINGS, options())
    async with mesh_api.connect(bare.url) as client:
        await client.submit("simulator", "Die", metadata={"simulate": {"die_after": 0}})
        with pytest.raises(EngineDeadError):
            await asyncio.wait_for(bare.tasks[-1], 20)


@pytest.mark.parametrize("kind", ["die_after", "hang_engine_after"])
async def test_poison_is_found_and_its_company_is_not_buried_with_it(bare: RunningMesh, kind: str) -> None:
    for _ in range(2):
        await bare.start_worker(SETTINGS, options(stall_s=0.5))
    async with mesh_api.connect(bare.url) as client:
        poison = await client.submit("simulator", "Die", id="poison", metadata={"simulate": {kind: 0}})
        innocents = [
            await client.submit("simulator", f"Story {n}", max_tokens=40, temperature=0, id=f"innocent-{n}")
            for n in range(30)
        ]
        results = [await job.result(timeout=40) for job in innocents]
        dead = await poison.result(timeout=40)
    assert {result.status for result in results} == {"finished"}
    assert dead.error is not None
    assert (dead.status, dead.error.code) == ("failed", "attempts_exhausted")
    assert await buried(bare) == 1
    attempts = [event for event in await bare.history("poison") if isinstance(event, Started)]
    assert [event.isolated for event in attempts] == [False, False, True, True]
    await bare.wait_queue_empty()


async def test_a_hung_engine_is_replaced_and_its_jobs_go_on(bare: RunningMesh) -> None:
    await bare.start_worker(SETTINGS, options(stall_s=0.5))
    async with mesh_api.connect(bare.url) as client:
        wanted = await undisturbed(client, "Tell me of the sea", 60)
        hangs = {"simulate": {"hang_engine_after": 7, "fresh_only": True}}
        jobs = [
            await client.submit("simulator", "Tell me of the sea", max_tokens=60, temperature=0, metadata=metadata)
            for metadata in (hangs, None, None)
        ]
        results = [await job.result(timeout=20) for job in jobs]
    assert {result.text for result in results} == {wanted}
    assert {result.attempts for result in results} == {2}


async def test_a_job_that_hangs_alone_moves_and_nothing_else_does(bare: RunningMesh) -> None:
    await bare.start_worker(SETTINGS, options(stall_s=0.5))
    async with mesh_api.connect(bare.url) as client:
        wanted = await undisturbed(client, "Tell me of the sea", 60)
        hangs = {"simulate": {"hang_after": 7, "fresh_only": True}}
        beside = await client.submit("simulator", "Tell me more", max_tokens=600, temperature=0)
        job = await client.submit("simulator", "Tell me of the sea", max_tokens=60, temperature=0, metadata=hangs)
        result = await job.result(timeout=20)
        other = await beside.result(timeout=20)
    assert (result.text, result.attempts) == (wanted, 2)
    assert (other.status, other.attempts) == ("finished", 1)


async def test_a_job_that_hangs_every_time_is_buried_and_nothing_else_is(bare: RunningMesh) -> None:
    await bare.start_worker(SETTINGS, options(stall_s=0.3))
    async with mesh_api.connect(bare.url) as client:
        beside = await client.submit("simulator", "Tell me more", max_tokens=1500, temperature=0)
        hangs = {"simulate": {"hang_after": 0}}
        result = await client.generate("simulator", "Tell me of the sea", max_tokens=60, metadata=hangs)
        other = await beside.result(timeout=30)
    assert result.error is not None
    assert (result.status, result.error.code, result.attempts) == ("failed", "attempts_exhausted", 3)
    assert (other.status, other.attempts) == ("finished", 1)
    assert await buried(bare) == 1


async def test_a_suspect_waits_for_the_others_and_they_for_it(bare: RunningMesh) -> None:
    """Alone in the engine, whatever else is queued; and the worker serves on afterwards."""
    company: list[int] = []  # in the engine with a job that is alone there, whenever one begins

    def observe(signal: Signal) -> None:
        if isinstance(signal, AttemptStarted):
            working = [runner for runner in worker._runners.values() if runner.progressed_s is not None]
            if any(runner._is_alone for runner in working):
                company.append(len(working))

    worker = await bare.start_worker(SETTINGS, options(), observer=observe)
    async with mesh_api.connect(bare.url) as client:
        long = await client.submit("simulator", "Tell me of the sea", max_tokens=100, temperature=0)
        await wait_until(lambda: bare.history(long.id))
        for attempt in (1, 2):
            event = Started(id="suspect", attempt=attempt, index=0, worker="dead", unix_ms=1)
            last = (await bare.journal_entries("suspect"))[-1].sequence if attempt > 1 else 0
            await bare.append("suspect", event, last)
        suspect = await client.submit("simulator", "Am I the one?", max_tokens=20, temperature=0, id="suspect")
        others = [await client.submit("simulator", f"Story {n}", max_tokens=5) for n in range(10)]
        assert (await long.result(timeout=10)).attempts == 1
        results = [await job.result(timeout=10) for job in (suspect, *others)]
    assert set(company) == {1}
    assert {result.status for result in results} == {"finished"}
    started = [event for event in await bare.history("suspect") if isinstance(event, Started)]
    assert [event.isolated for event in started] == [False, False, True]
