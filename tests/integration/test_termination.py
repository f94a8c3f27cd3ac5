"""Jobs that no worker ends: expired in the queue with nobody alive, orphaned, cancelled where they lie."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

import mesh as mesh_api
from mesh.broker.topology import MeshSettings
from mesh.client.client import Client
from mesh.engines.simulator.settings import SimulatorSettings
from mesh.hosting.services import services
from mesh.protocol.messages import Delta, Event, Result, Started
from mesh.reconcile.expiry import Expiry
from tests.running import RunningMesh, present, running_mesh, wait_until

SLOW = SimulatorSettings(model="simulator", between_tokens_ms=20)


@pytest.fixture
async def bare(tmp_path: Path) -> AsyncIterator[RunningMesh]:
    """A mesh without a worker, whose leases outlast every test."""
    async with running_mesh(tmp_path / "nats", MeshSettings(lanes=1, ack_wait_s=60)) as running:
        yield running


@pytest.fixture
async def client(bare: RunningMesh) -> AsyncIterator[Client]:
    async with mesh_api.connect(bare.url) as connected:
        yield connected


async def is_queued(mesh: RunningMesh, n_jobs: int) -> bool:
    return await mesh.queued() == n_jobs


def in_ms(ms: int) -> int:
    return time.time_ns() // 1_000_000 + ms


async def orphan(mesh: RunningMesh, client: Client, job_id: str, **fields: Any) -> str:
    """A job whose worker vanished without a word in mid-stream; what it had streamed."""
    worker = await mesh.start_worker(SLOW)
    await client.submit("simulator", "Tell me of the sea", max_tokens=500, temperature=0, id=job_id, **fields)

    async def has_streamed() -> bool:
        return sum(isinstance(event, Delta) for event in await mesh.history(job_id)) >= 3

    await wait_until(has_streamed)
    for runner in worker._runners.values():
        runner.lease.is_lost = True  # it neither hands the job back nor ends it
    mesh.tasks[-1].cancel()
    await asyncio.gather(mesh.tasks[-1], return_exceptions=True)
    text = "".join(event.text for event in await mesh.history(job_id) if isinstance(event, Delta))
    assert await mesh.result(job_id) is None
    return text


@contextlib.asynccontextmanager
async def jobs_api(mesh: RunningMesh) -> AsyncIterator[None]:
    """The services where no worker lives, once the server knows of them."""
    async with services(mesh.broker, "jobs_api"):
        await mesh.connection.request("$JS.API.INFO")  # answered after what was sent before it
        yield


def check_gapless(events: list[Event]) -> None:
    assert [event.attempt for event in events if isinstance(event, Started)] == list(
        range(1, sum(isinstance(event, Started) for event in events) + 1)
    )
    assert [isinstance(event, Result) for event in events] == [False] * (len(events) - 1) + [True]
    index = 0
    for event in events[:-1]:
        assert not isinstance(event, Result)
        assert event.index == index
        index += len(event.token_ids) if isinstance(event, Delta) else 0


async def test_queued_jobs_expire_although_no_worker_lives(bare: RunningMesh, client: Client) -> None:
    async with services(bare.broker, "sweeper"):
        soon = [await client.submit("simulator", "a", deadline_unix_ms=in_ms(500)) for _ in range(20)]
        later = await client.submit("simulator", "a", deadline_unix_ms=in_ms(600_000))
        results = [await job.result(timeout=10) for job in soon]
        await wait_until(lambda: is_queued(bare, 1))
    assert {result.status for result in results} == {"expired"}
    assert {result.text for result in results} == {""}
    assert {present(result.error).code for result in results} == {"expired"}
    assert await bare.result(later.id) is None


async def test_a_broken_body_ends_too_when_no_worker_lives(bare: RunningMesh) -> None:
    """It has the default deadline; a sweeper that reads it must not stumble."""
    subject = bare.names.request("simulator", "standard", "default", "a")
    await bare.connection.request(subject, b"{broken")
    async with services(bare.broker, "sweeper"), mesh_api.connect(bare.url) as client:
        job = await client.submit("simulator", "a", deadline_unix_ms=in_ms(300))
        assert (await job.result(timeout=10)).status == "expired"
        await wait_until(lambda: is_queued(bare, 1))


async def test_one_of_many_sweeps_and_another_when_it_is_gone(bare: RunningMesh, client: Client) -> None:
    sweepers = [Expiry(bare.broker, f"sweeper-{n}") for n in range(3)]
    try:
        for _ in range(2):
            job = await client.submit("simulator", "a", deadline_unix_ms=in_ms(100))
            assert (await job.result(timeout=20)).status == "expired"
            await wait_until(lambda: any(sweeper.ended for sweeper in sweepers))
            busy = [sweeper for sweeper in sweepers if sweeper.ended]
            assert len(busy) == 1
            sweepers.remove(busy[0])
            await busy[0].close()
    finally:
        for sweeper in sweepers:
            await sweeper.close()


async def test_an_orphaned_job_expires_with_what_it_had_streamed(bare: RunningMesh, client: Client) -> None:
    text = await orphan(bare, client, "victim", deadline_unix_ms=in_ms(2500))
    async with services(bare.broker, "sweeper"):
        result = await client.job("victim").result(timeout=15)
        await bare.wait_queue_empty()
    events = await bare.history("victim")
    assert (result.status, result.text) == ("expired", text)
    check_gapless(events)
    close = events[-2]
    assert isinstance(close, Started)
    assert close.closing
    assert close.worker == "sweeper"
    assert result.attempts == 2


async def test_an_orphaned_job_is_cancelled_with_what_it_had_streamed(bare: RunningMesh, client: Client) -> None:
    text = await orphan(bare, client, "victim")
    async with jobs_api(bare):
        assert await client.job("victim").cancel() == "cancelled"
    result = await bare.result("victim")
    assert result is not None
    assert result.error is not None
    assert (result.status, result.text, result.error.message) == ("cancelled", text, "cancelled on request")
    check_gapless(await bare.history("victim"))
    assert await bare.queued() == 0


async def test_a_cancelled_job_that_had_finished_is_finished(bare: RunningMesh, client: Client) -> None:
    """Its worker died between the last token and the Result."""
    worker = await bare.start_worker(SLOW)
    job = await client.submit("simulator", "Tell me of the sea", max_tokens=3, temperature=0, id="victim")
    await wait_until(lambda: bare.history("victim"))
    worker._liveness._note_confirmed = lambda doubts: None  # type: ignore[method-assign]
    worker._liveness.disturbed()  # so it stores no Result

    async def is_whole() -> bool:
        events = await bare.history("victim")
        return bool(events) and isinstance(events[-1], Delta) and events[-1].finish_reason is not None

    await wait_until(is_whole)
    for runner in worker._runners.values():
        runner.lease.is_lost = True
    bare.tasks[-1].cancel()
    await asyncio.gather(bare.tasks[-1], return_exceptions=True)
    async with jobs_api(bare):
        assert await job.cancel() == "finished"
    result = await bare.result("victim")
    assert result is not None
    assert (result.status, result.finish_reason, result.usage.completion_tokens) == ("finished", "length", 3)
    check_gapless(await bare.history("victim"))


async def test_a_worker_leaves_a_closed_journal_alone_until_its_closer_must_have_died(
    bare: RunningMesh, client: Client
) -> None:
    text = await orphan(bare, client, "victim")
    last = (await bare.journal_entries("victim"))[-1]
    index = sum(len(event.token_ids) for event in await bare.history("victim") if isinstance(event, Delta))
    ends = Started(id="victim", attempt=2, index=index, worker="closer", unix_ms=1, closing=True)
    await bare.append("victim", ends, last.sequence)
    await bare.hand_back_all()
    began_s = time.monotonic()
    await bare.start_worker()
    result = await client.job("victim").result(timeout=20)
    assert time.monotonic() - began_s > 3.5, "it waited for the closer"
    assert (result.status, result.attempts) == ("finished", 3)
    assert result.text.startswith(text)
    check_gapless(await bare.history("victim"))


async def test_a_result_that_was_announced_and_not_stored_is_stored_by_the_next_who_looks(
    bare: RunningMesh, client: Client
) -> None:
    """Whoever ended the queued job died in between; the worker that gets it must not make another Result."""
    deadline = in_ms(300)
    job = await client.submit("simulator", "a", id="victim", deadline_unix_ms=deadline)
    announced = Result(id="victim", tenant="default", model="simulator", status="cancelled", text="")
    await bare.append("victim", announced, 0)
    await wait_until(lambda: in_ms(0) > deadline)
    await bare.start_worker()
    await bare.wait_queue_empty()
    assert await bare.result("victim") == announced
    assert await bare.history("victim") == [announced]
    assert (await job.result(timeout=5)).status == "cancelled"


async def test_a_job_ended_in_the_queue_was_never_begun(bare: RunningMesh, client: Client) -> None:
    job = await client.submit("simulator", "a", id="victim")
    async with jobs_api(bare):
        assert await bare.queued() == 1
        assert await job.cancel() == "cancelled"
    events = await bare.history("victim")
    (ended,) = events
    assert isinstance(ended, Result)
    assert (ended.attempts, present(ended.error).message) == (0, "cancelled before it started")
    assert await bare.result("victim") == ended
