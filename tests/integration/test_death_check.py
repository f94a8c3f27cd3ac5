"""A job that lost workers while it ran alone: it is buried if they died, and for nothing less."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

import mesh as mesh_api
from mesh.broker.stores.journal import notes_in
from mesh.broker.topology import MeshSettings
from mesh.clock import SYSTEM
from mesh.job_key import JobKey
from mesh.protocol import codec
from mesh.protocol.messages import Note, Result, Started
from mesh.worker import death_check
from tests.running import RunningMesh, present, running_mesh, wait_until

pytestmark = pytest.mark.timeout(60)
GONE = "w-gone"  # nobody of this name is connected


@pytest.fixture
async def bare(tmp_path: Path) -> AsyncIterator[RunningMesh]:
    async with running_mesh(tmp_path / "nats", MeshSettings(lanes=1)) as running:
        yield running


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(death_check, "OBJECTION_S", 0.1)


async def suspect(mesh: RunningMesh, *alone: tuple[str, int]) -> None:
    """The journal of a job that lost two workers in company, and then these (name, begun at) alone."""
    begun = [(GONE, 1, False), (GONE, 1, False), *((worker, unix_ms, True) for worker, unix_ms in alone)]
    last = 0
    for number, (worker, unix_ms, is_alone) in enumerate(begun, 1):
        event = Started(id="suspect", attempt=number, index=0, worker=worker, unix_ms=unix_ms, isolated=is_alone)
        await mesh.append("suspect", event, last)
        last = (await mesh.journal_entries("suspect"))[-1].sequence


async def run(mesh: RunningMesh, **fields: Any) -> Result:
    async with mesh_api.connect(mesh.url) as client:
        job = await client.submit("simulator", "Was it me?", max_tokens=5, id="suspect", **fields)
        return await job.result(timeout=30)


async def notes(mesh: RunningMesh) -> list[tuple[int, str]]:
    journal = mesh.broker.journal
    entries = await journal.read(journal.notes_subject(JobKey("default", "suspect")))
    return [(note.attempt, note.verdict) for note in notes_in(entries)]


async def test_a_job_whose_workers_are_gone_is_buried(bare: RunningMesh, quick: None) -> None:
    await bare.start_worker()
    await suspect(bare, (GONE, 1), (GONE, 1))
    result = await run(bare)
    assert result.error is not None
    assert (result.status, result.error.code, result.attempts) == ("failed", "attempts_exhausted", 5)


async def test_a_job_is_not_buried_for_a_worker_that_is_suspended(bare: RunningMesh, quick: None) -> None:
    """A suspended worker is connected and says nothing."""
    await bare.start_worker()
    silence = bare.connection.subscribe(bare.names.system("ping", "w-frozen"), lambda *_: None)
    await suspect(bare, (GONE, 1), ("w-frozen", 1))
    result = await run(bare)
    silence.close()
    assert (result.status, result.attempts) == ("finished", 5)
    assert (4, "returned") in await notes(bare), "whoever takes it over next need not ask again"


async def test_a_job_is_not_buried_for_a_worker_that_lives(bare: RunningMesh, quick: None) -> None:
    worker = await bare.start_worker()
    await suspect(bare, (GONE, 1), (worker.name, SYSTEM.wall_unix_ms()))
    assert (await run(bare)).status == "finished"


async def test_another_process_under_the_name_of_a_worker_does_not_speak_for_it(bare: RunningMesh, quick: None) -> None:
    worker = await bare.start_worker()
    await suspect(bare, (GONE, 1), (worker.name, 1))
    assert present((await run(bare)).error).code == "attempts_exhausted"


async def test_a_worker_that_was_cut_off_gets_the_time_to_object(
    bare: RunningMesh, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(death_check, "OBJECTION_S", 1.5)
    worker = await bare.start_worker()
    await suspect(bare, (GONE, 1), (GONE, 1))
    running = asyncio.create_task(run(bare))
    await wait_until(lambda: any(each.waits_for_objections for each in worker._runners.values()))
    journal = bare.broker.journal
    note = Note(id="suspect", attempt=4, verdict="returned", reason="lost")
    await journal.append(journal.notes_subject(JobKey("default", "suspect")), codec.encode(note))
    assert (await running).status == "finished"


async def test_a_worker_that_stops_while_it_waits_for_objections_buries_nobody(bare: RunningMesh) -> None:
    worker = await bare.start_worker()
    await suspect(bare, (GONE, 1), (GONE, 1))
    async with mesh_api.connect(bare.url) as client:
        await client.submit("simulator", "Was it me?", max_tokens=5, id="suspect")
        await wait_until(lambda: any(each.waits_for_objections for each in worker._runners.values()))
        worker.drain()
        worker.drain()
        await asyncio.wait_for(bare.tasks[-1], 10)
    assert await bare.result("suspect") is None
    assert await bare.queued() == 1


async def test_a_cancel_reaches_a_job_that_waits_for_objections(bare: RunningMesh) -> None:
    worker = await bare.start_worker()
    await suspect(bare, (GONE, 1), (GONE, 1))
    async with mesh_api.connect(bare.url) as client:
        job = await client.submit("simulator", "Was it me?", max_tokens=5, id="suspect")
        await wait_until(lambda: any(each.waits_for_objections for each in worker._runners.values()))
        assert await job.cancel() == "cancelled"
        assert (await job.result(timeout=10)).status == "cancelled"


async def test_the_time_to_object_is_counted_once_whoever_counts_it(bare: RunningMesh) -> None:
    await bare.start_worker()
    await suspect(bare, (GONE, 1), (GONE, 1))
    journal = bare.broker.journal
    asked = Note(id="suspect", attempt=4, verdict="probing", unix_ms=SYSTEM.wall_unix_ms() - 60_000)
    await journal.append(journal.notes_subject(JobKey("default", "suspect")), codec.encode(asked))
    result = await run(bare)
    assert result.error is not None
    assert (result.status, result.error.code) == ("failed", "attempts_exhausted")
    assert await notes(bare) == [(4, "probing")]


async def test_a_clock_that_is_ahead_does_not_make_a_job_wait_for_ever(bare: RunningMesh, quick: None) -> None:
    await bare.start_worker()
    await suspect(bare, (GONE, 1), (GONE, 1))
    journal = bare.broker.journal
    asked = Note(id="suspect", attempt=4, verdict="probing", unix_ms=SYSTEM.wall_unix_ms() + 3_600_000)
    await journal.append(journal.notes_subject(JobKey("default", "suspect")), codec.encode(asked))
    assert present((await run(bare)).error).code == "attempts_exhausted"
