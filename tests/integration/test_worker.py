"""The worker against a real server: capacity, tiers, drain, faults of the connection."""

import asyncio
import statistics
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import mesh as mesh_api
from mesh.broker import topology
from mesh.broker.stores.journal import notes_in
from mesh.broker.topology import MeshSettings
from mesh.broker.transport.connection import connect
from mesh.engines.simulator.settings import SimulatorSettings
from mesh.job_key import JobKey
from mesh.protocol import codec
from mesh.protocol.messages import Result
from mesh.signals import AttemptStarted, JobDelivered, JobEnded, Signal
from mesh.worker.credits import WAIT_IDLE_S
from mesh.worker.worker import Worker, WorkerOptions
from tests.running import RunningMesh, present, running_mesh, wait_until

FAST = SimulatorSettings(model="simulator", first_token_ms=1, between_tokens_ms=1)


@pytest.fixture
async def bare(tmp_path: Path) -> AsyncIterator[RunningMesh]:
    """A mesh without a worker."""
    async with running_mesh(tmp_path / "nats") as running:
        yield running


def runs(worker: Worker, n_jobs: int) -> bool:
    return worker.statistics().running == n_jobs


async def ack_pending(mesh: RunningMesh) -> int:
    """Jobs in flight, as the server counts them."""
    consumers = await topology.consumer_states(mesh.connection, mesh.names.requests_stream)
    return sum(state["num_ack_pending"] for state in consumers.values())


@pytest.mark.parametrize("capacity", [1, 5, 20])
async def test_no_more_jobs_run_than_the_engine_can_start(bare: RunningMesh, capacity: int) -> None:
    running, most = 0, 0

    def watch(signal: Signal) -> None:
        nonlocal running, most
        if isinstance(signal, AttemptStarted):
            running += 1
            most = max(most, running)
        elif isinstance(signal, JobEnded):
            running -= 1

    settings = SimulatorSettings(model="simulator", first_token_ms=1, between_tokens_ms=1, capacity=capacity)
    await bare.start_worker(settings, observer=watch)
    async with mesh_api.connect(bare.url) as client:
        jobs = [await client.submit("simulator", f"Job {n}", max_tokens=8) for n in range(60)]
        results = await asyncio.wait_for(asyncio.gather(*jobs), 40)
    assert {result.status for result in results} == {"finished"}
    assert most <= capacity
    if capacity > 1:
        assert most > 1


async def test_a_full_worker_leaves_the_rest_in_the_queue(bare: RunningMesh) -> None:
    await bare.start_worker(SimulatorSettings(model="simulator", between_tokens_ms=20, capacity=16))
    async with mesh_api.connect(bare.url) as client:
        jobs = [await client.submit("simulator", f"Job {n}", max_tokens=20) for n in range(60)]
        seen: list[int] = []
        while len(seen) < 20:
            seen.append(await ack_pending(bare))
        assert max(seen) <= 16
        await asyncio.gather(*jobs)


async def test_every_slot_is_used_when_one_tier_is_busy(bare: RunningMesh) -> None:
    worker = await bare.start_worker(SimulatorSettings(model="simulator", between_tokens_ms=20, capacity=32))
    async with mesh_api.connect(bare.url) as client:
        jobs = [await client.submit("simulator", "the same start", max_tokens=500) for _ in range(40)]
        await wait_until(lambda: worker.statistics().running == 32, 5)
        await asyncio.gather(*(job.cancel() for job in jobs))


async def test_a_small_engine_serves_at_once_whatever_tier_and_lane(bare: RunningMesh) -> None:
    await bare.start_worker(SimulatorSettings(model="simulator", first_token_ms=1, between_tokens_ms=1, capacity=1))
    async with mesh_api.connect(bare.url) as client:
        queued_ms = [
            (await client.generate("simulator", f"{tier} {n}", max_tokens=1, tier=tier)).timing.queued_ms
            for tier in ("batch", "standard", "interactive")
            for n in range(4)
        ]
    # Where a consumer had to wait for its turn, most would wait for several pulls of the others to end.
    assert statistics.median(queued_ms) < 1000 * WAIT_IDLE_S


async def test_higher_tiers_go_first_and_the_lowest_is_not_starved(bare: RunningMesh) -> None:
    order = []

    def watch(signal: Signal) -> None:
        if isinstance(signal, JobDelivered):
            order.append(signal.tier)

    async with mesh_api.connect(bare.url) as client:
        jobs = []
        for tier in ("batch", "standard", "interactive"):
            jobs += [await client.submit("simulator", f"{tier} {n}", max_tokens=4, tier=tier) for n in range(40)]
        settings = SimulatorSettings(model="simulator", first_token_ms=5, between_tokens_ms=2, capacity=13)
        await bare.start_worker(settings, observer=watch)
        await asyncio.wait_for(asyncio.gather(*jobs), 40)
    first = order[:60]
    assert first.count("interactive") > first.count("standard") > first.count("batch") >= 1


async def test_two_workers_share_the_queue(bare: RunningMesh) -> None:
    one = await bare.start_worker(FAST)
    two = await bare.start_worker(FAST)
    async with mesh_api.connect(bare.url) as client:
        results = await asyncio.gather(*[client.generate("simulator", f"Job {n}", max_tokens=10) for n in range(300)])
    assert {result.status for result in results} == {"finished"}
    assert one.statistics().finished > 20
    assert two.statistics().finished > 20


async def test_drain_lets_running_jobs_finish(bare: RunningMesh) -> None:
    worker = await bare.start_worker()
    async with mesh_api.connect(bare.url) as client:
        job = await client.submit("simulator", "Finish me", max_tokens=100)
        async for _ in job:
            break
        worker.drain()
        await asyncio.wait_for(bare.tasks[0], 10)
        result = await job
        assert result.status == "finished"
        assert result.attempts == 1
        late = await client.submit("simulator", "Too late", max_tokens=1)
        assert await bare.result(late.id) is None
    assert await bare.queued() == 1


async def test_a_second_drain_hands_running_jobs_to_another_worker_at_once(bare: RunningMesh) -> None:
    first = await bare.start_worker(options=WorkerOptions(model="simulator", grace_s=60))
    async with mesh_api.connect(bare.url) as client:
        job = await client.submit("simulator", "Move me", max_tokens=200, temperature=0)
        reader = aiter(job)
        shown = (await anext(reader)).text
        await bare.start_worker()
        first.drain()
        first.drain()
        await asyncio.wait_for(bare.tasks[0], 5)
        shown += "".join([delta.text async for delta in reader])
        result = await job
    assert result.status == "finished"
    assert result.attempts == 2
    assert shown == result.text
    assert result.usage.completion_tokens == 200


@pytest.mark.parametrize("stream", [True, False])
async def test_a_job_that_every_worker_hands_back_is_not_given_up(bare: RunningMesh, stream: bool) -> None:
    """Rolling restarts with less grace than the job needs, before it has shown a token."""
    slow = SimulatorSettings(model="simulator", first_token_ms=3000)
    async with mesh_api.connect(bare.url) as client:
        job = await client.submit("simulator", "Patience", max_tokens=3, stream=stream)
        for number in range(5):
            worker = await bare.start_worker(slow, WorkerOptions(model="simulator", grace_s=0))
            await wait_until(partial(runs, worker, 1))
            worker.drain()
            await asyncio.wait_for(bare.tasks[number], 5)
        await bare.start_worker(FAST)
        result = await job.result(timeout=20)
    assert result.status == "finished"


async def test_a_drained_worker_leaves_no_presence_and_no_pull(bare: RunningMesh) -> None:
    worker = await bare.start_worker()
    async with mesh_api.connect(bare.url) as client:
        await wait_until(lambda: worker.statistics().open_pulls > 0)
        assert [each.worker for each in await client.workers()] == [worker.name]
        worker.drain()
        await asyncio.wait_for(bare.tasks[0], 5)
        assert await client.workers() == []


async def test_a_lease_is_renewed_while_a_job_runs_longer_than_ack_wait(tmp_path: Path) -> None:
    async with running_mesh(tmp_path / "nats", MeshSettings(ack_wait_s=1.0)) as mesh:
        await mesh.start_worker()
        async with mesh_api.connect(mesh.url) as client:
            result = await client.generate("simulator", "Longer than a lease", max_tokens=500, stream=True)
        assert result.attempts == 1
        assert result.timing.total_ms > 2000


async def test_a_worker_goes_on_after_the_server_was_away_for_longer_than_a_lease(tmp_path: Path) -> None:
    async with running_mesh(tmp_path / "nats", MeshSettings(ack_wait_s=1.0)) as mesh:
        worker = await mesh.start_worker()
        async with mesh_api.connect(mesh.url) as client:
            job = await client.submit("simulator", "Through the dark", max_tokens=300, temperature=0)
            reader = aiter(job)
            shown = (await anext(reader)).text
            await mesh.server.stop(kill=True)
            await wait_until(lambda: worker.statistics().running == 0, 5)
            await mesh.server.start()
            shown += "".join([delta.text async for delta in reader])
            result = await job
        assert result.status == "finished"
        assert shown == result.text
        assert result.usage.completion_tokens == 300


async def test_a_worker_recreates_its_consumers_when_somebody_deletes_them(bare: RunningMesh) -> None:
    await bare.start_worker(FAST)
    async with connect(bare.options()) as connection, mesh_api.connect(bare.url) as client:
        for lane in range(4):
            name = bare.names.consumer("simulator", "standard", lane)
            await connection.request(f"$JS.API.CONSUMER.DELETE.{bare.names.requests_stream}.{name}")
        result = await asyncio.wait_for(client.generate("simulator", "Still there?", max_tokens=2), 15)
    assert result.status == "finished"


async def test_an_engine_failure_is_tried_again_and_then_buried(bare: RunningMesh) -> None:
    await bare.start_worker(FAST)
    async with mesh_api.connect(bare.url) as client:
        result = await client.generate("simulator", "Fail", metadata={"simulate": {"fail": True}}, stream=True)
    assert result.status == "failed"
    assert result.error is not None
    assert result.error.code == "attempts_exhausted"
    assert result.attempts == 3
    assert (await topology.stream_state(bare.connection, bare.names.dead_stream))["messages"] == 1
    await bare.wait_queue_empty()


async def test_statistics_and_repr_show_the_books(bare: RunningMesh) -> None:
    worker = await bare.start_worker(FAST)
    async with mesh_api.connect(bare.url) as client:
        await client.generate("simulator", "Count me", max_tokens=7)
    await wait_until(lambda: worker.statistics().finished == 1)
    assert worker.statistics().tokens == 7
    assert "1 finished" in repr(worker)


async def test_a_journal_kept_in_memory_is_there_again_after_the_server_lost_it(tmp_path: Path) -> None:
    settings = MeshSettings(lanes=1, events_storage="memory")
    async with running_mesh(tmp_path / "nats", settings) as mesh:
        await mesh.start_worker()
        await mesh.server.stop(kill=True)
        await mesh.server.start()
        async with mesh_api.connect(mesh.url) as client:
            result = await client.generate("simulator", "Tell me of the sea", max_tokens=3)
        assert result.status == "finished"


async def test_workers_are_seen_again_after_a_restart_of_the_server(mesh: RunningMesh) -> None:
    await mesh.server.stop(kill=True)
    await mesh.server.start()
    async with mesh_api.connect(mesh.url) as client:

        async def is_seen() -> bool:
            return [each.worker for each in await client.workers()] == [mesh.workers[0].name]

        await wait_until(is_seen)


async def test_a_job_delivered_again_to_the_worker_that_runs_it_goes_on_there(bare: RunningMesh) -> None:
    """As after a crash of the server, which forgets deliveries."""
    await bare.start_worker(SimulatorSettings(model="simulator", between_tokens_ms=5))
    async with mesh_api.connect(bare.url) as client:
        job = await client.submit("simulator", "Tell me of the sea", max_tokens=200, temperature=0, id="victim")
        async for _ in job:
            break
        await bare.hand_back_all()
        result = await job.result(timeout=10)
    assert (result.status, result.attempts) == ("finished", 1)
    await bare.wait_queue_empty()
    assert await ack_pending(bare) == 0


async def test_a_worker_that_loses_a_job_and_lives_says_so(bare: RunningMesh) -> None:
    worker = await bare.start_worker(SimulatorSettings(model="simulator", between_tokens_ms=5))
    async with mesh_api.connect(bare.url) as client:
        job = await client.submit("simulator", "Tell me of the sea", max_tokens=300, temperature=0, id="victim")
        async for _ in job:
            break
        next(iter(worker._runners.values())).lease.is_lost = True
        journal = bare.broker.journal

        async def is_noted() -> bool:
            entries = await journal.read(journal.notes_subject(JobKey("default", "victim")))
            return [(note.attempt, note.verdict) for note in notes_in(entries)] == [(1, "returned")]

        await wait_until(is_noted)


async def test_a_worker_whose_services_cannot_be_opened_says_why(
    bare: RunningMesh, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise MemoryError("no room for the services")

    monkeypatch.setattr("mesh.hosting.services.Doors", broken)
    with pytest.raises(MemoryError, match="no room"):
        await bare.start_worker()


@pytest.mark.parametrize("fields", [{"stream": True}, {"stream": False}, {"encoding": "msgpack"}])
async def test_a_result_is_encoded_once_for_the_store_and_the_event(
    mesh: RunningMesh, monkeypatch: pytest.MonkeyPatch, fields: dict[str, Any]
) -> None:
    encode, results = codec.encode, []

    def counted(message: Any, *more: Any) -> bytes:
        if isinstance(message, Result):
            results.append(message.id)
        return encode(message, *more)

    monkeypatch.setattr(codec, "encode", counted)
    encoding = fields.pop("encoding", "json")
    async with mesh_api.connect(mesh.url, encoding=encoding) as client:
        result = await client.generate("simulator", "a", id="once", max_tokens=4, **fields)
        stored = await mesh.broker.results.get(JobKey("default", "once"))
        journal = mesh.broker.journal
        last = await journal.last(journal.subject(JobKey("default", "once")))
    assert result.status == "finished"
    assert results == ["once"]
    assert present(stored).body == present(last).body == encode(result, encoding)
