"""A killed worker's jobs go on at once, however long a lease lasts; and nobody who lives loses one by mistake."""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import pytest

import mesh as mesh_api
from mesh.broker.topology import MeshSettings
from mesh.engines.simulator.settings import SimulatorSettings
from mesh.errors import ConfigError, UnavailableError
from mesh.hosting.services import keep_watch
from mesh.protocol.messages import Delta, LivenessRecord, Presence, Started
from mesh.worker.worker import WorkerOptions
from tests.running import CRASHING_WORKER, RunningMesh, present, running_mesh, wait_until

ACK_WAIT_S = 30.0
SOON_S = ACK_WAIT_S / 10
TOKENS = 800  # four seconds of output

SLOW = SimulatorSettings(model="simulator", between_tokens_ms=5)

pytestmark = pytest.mark.timeout(90)


@pytest.fixture
async def patient_mesh(tmp_path: Path) -> AsyncIterator[RunningMesh]:
    """A mesh whose leases last so long that no test waits for one to end; no worker yet."""
    settings = MeshSettings(lanes=1, ack_wait_s=ACK_WAIT_S)
    async with running_mesh(tmp_path / "nats", settings) as running:
        yield running


async def watched(mesh: RunningMesh, n_workers: int) -> None:
    """Return when every worker has somebody who listens to what it announces."""

    async def all_watched() -> bool:
        listeners = 0
        for worker in await presences(mesh):
            subject = mesh.names.leases(worker.worker)
            listeners += mesh.server.process is not None and await has_listener(mesh, subject)
        return listeners >= n_workers

    await wait_until(all_watched)


async def presences(mesh: RunningMesh) -> list[Presence]:
    return await mesh.broker.workers.all()


async def has_listener(mesh: RunningMesh, subject: str) -> bool:
    """Where nobody listens, the server says so before it answers what is asked after it."""
    asking = asyncio.create_task(mesh.connection.request(subject, b"-", timeout_s=30))
    await asyncio.sleep(0)
    await mesh.connection.request("$JS.API.INFO")
    asking.cancel()
    (outcome,) = await asyncio.gather(asking, return_exceptions=True)
    return not isinstance(outcome, UnavailableError)


async def test_the_jobs_of_a_killed_worker_go_on_long_before_their_leases_end(patient_mesh: RunningMesh) -> None:
    mesh = patient_mesh
    children = [await mesh.start_child(CRASHING_WORKER) for _ in range(2)]
    await watched(mesh, 2)
    async with mesh_api.connect(mesh.url) as client:
        undisturbed = await client.generate("simulator", "Tell me of the sea", max_tokens=TOKENS, temperature=0)
        gaps = []

        async def read(number: int) -> str:
            job = await client.submit(
                "simulator", "Tell me of the sea", max_tokens=TOKENS, temperature=0, id=f"victim-{number}"
            )
            text, seen_s = "", time.monotonic()
            async for chunk in job:
                now_s = time.monotonic()
                gaps.append(now_s - seen_s)
                text, seen_s = text + chunk.text, now_s
            return text

        readers = [asyncio.create_task(read(number)) for number in range(12)]
        for number in range(12):
            await wait_until(partial(mesh.history, f"victim-{number}"))
        os.kill(children[0].pid, signal.SIGKILL)
        texts = await asyncio.gather(*readers)
        assert set(texts) == {undisturbed.text}
        assert max(gaps) < SOON_S
        results = [present(await mesh.result(f"victim-{number}")) for number in range(12)]
        assert {result.attempts for result in results} == {1, 2}, "one worker's jobs moved, the other's did not"
    await mesh.wait_queue_empty()


async def test_a_worker_alone_is_watched_over_by_another_process(patient_mesh: RunningMesh) -> None:
    """As `mesh up` does: the worker that is started in its place gets the jobs at once."""
    mesh = patient_mesh
    watching = asyncio.create_task(keep_watch(mesh.options(), mesh.names, "supervisor"))
    first = await mesh.start_child(CRASHING_WORKER)
    await watched(mesh, 1)
    async with mesh_api.connect(mesh.url) as client:
        job = await client.submit("simulator", "Tell me of the sea", max_tokens=TOKENS, temperature=0, id="victim")
        async for _ in job:
            break
        os.kill(first.pid, signal.SIGKILL)
        began_s = time.monotonic()
        await mesh.start_child(CRASHING_WORKER)
        result = await job.result(timeout=ACK_WAIT_S)
    assert result.status == "finished"
    assert result.attempts == 2
    assert time.monotonic() - began_s < ACK_WAIT_S / 2
    watching.cancel()
    await asyncio.gather(watching, return_exceptions=True)


async def test_two_who_notice_the_same_death_do_no_harm(patient_mesh: RunningMesh) -> None:
    mesh = patient_mesh
    watching = [asyncio.create_task(keep_watch(mesh.options(), mesh.names, f"supervisor-{n}")) for n in range(3)]
    for _ in range(3):
        await mesh.start_child(CRASHING_WORKER)
    await watched(mesh, 3)
    async with mesh_api.connect(mesh.url) as client:
        jobs = [
            await client.submit("simulator", "Tell me of the sea", max_tokens=TOKENS, temperature=0, id=f"victim-{n}")
            for n in range(12)
        ]
        await wait_until(lambda: mesh.history("victim-11"))
        begun = (await mesh.history("victim-11"))[0]
        assert isinstance(begun, Started)
        os.kill(int(begun.worker.removeprefix("w-")), signal.SIGKILL)
        results = [await job.result(timeout=ACK_WAIT_S / 2) for job in jobs]
    assert {result.status for result in results} == {"finished"}
    assert {result.attempts for result in results} == {1, 2}
    for task in watching:
        task.cancel()
    await asyncio.gather(*watching, return_exceptions=True)


async def test_a_restarted_server_makes_nobody_take_anybody_for_dead(patient_mesh: RunningMesh) -> None:
    mesh = patient_mesh
    for _ in range(3):
        await mesh.start_child(CRASHING_WORKER)
    await watched(mesh, 3)
    async with mesh_api.connect(mesh.url) as client:
        jobs = [
            await client.submit("simulator", "Tell me of the sea", max_tokens=TOKENS, temperature=0, id=f"job-{n}")
            for n in range(6)
        ]
        for number in range(6):
            await wait_until(partial(mesh.history, f"job-{number}"))
        await mesh.server.stop(kill=True)
        await mesh.server.start()
        results = [await job.result(timeout=ACK_WAIT_S / 2) for job in jobs]
        entries = [await mesh.broker.liveness.last(each.worker) for each in await presences(mesh)]
    assert {result.status for result in results} == {"finished"}  # the server itself may have forgotten deliveries
    assert [present(present(entry).record).is_alive for entry in entries] == [True] * 3


async def test_a_worker_that_was_taken_for_dead_gives_up_what_it_held(patient_mesh: RunningMesh) -> None:
    """It was cut off for so long that another buried it; the record tells it so when it is back."""
    mesh = patient_mesh
    worker = await mesh.start_worker(SLOW)
    async with mesh_api.connect(mesh.url) as client:
        job = await client.submit("simulator", "Tell me of the sea", max_tokens=TOKENS, temperature=0, id="victim")
        async for _ in job:
            break
        liveness = mesh.broker.liveness
        entry = await liveness.last(worker.name)
        assert entry is not None
        await liveness.write(LivenessRecord(worker=worker.name, session="", is_alive=False, by="test"), entry.sequence)
        worker._liveness.disturbed()  # as the connection does when it is lost
        await wait_until(lambda: worker.statistics().returned == 1)
        events = await mesh.history("victim")
        assert present(present(await liveness.last(worker.name)).record).is_alive, "it lives on, and serves others"
        after = await client.generate("simulator", "And then?", max_tokens=3)
        assert after.status == "finished"
        assert await mesh.history("victim") == events, "nothing it held is written any more"
        assert await mesh.result("victim") is None


async def test_no_result_is_stored_before_the_server_confirmed_that_the_worker_lives(patient_mesh: RunningMesh) -> None:
    mesh = patient_mesh
    worker = await mesh.start_worker(SLOW)
    confirmed = worker._liveness._note_confirmed
    async with mesh_api.connect(mesh.url) as client:
        job = await client.submit("simulator", "Tell me", max_tokens=20, temperature=0, id="victim")
        async for _ in job:
            break
        worker._liveness._note_confirmed = lambda doubts: None  # type: ignore[method-assign]
        worker._liveness.disturbed()  # as after the loss of the connection, before any answer

        async def is_whole() -> bool:
            events = await mesh.history("victim")
            return bool(events) and isinstance(events[-1], Delta) and events[-1].finish_reason is not None

        await wait_until(is_whole)
        assert await mesh.result("victim") is None
        worker._liveness._note_confirmed = confirmed  # type: ignore[method-assign]
        worker._liveness.disturbed()
        assert (await job.result(timeout=10)).status == "finished"


async def test_a_worker_that_was_cut_off_takes_no_job_before_it_knows_that_it_lives(patient_mesh: RunningMesh) -> None:
    """Else it would take its own jobs back and give them up again, and they would wait for a lease to end."""
    mesh = patient_mesh
    worker = await mesh.start_worker(SLOW)
    worker._liveness._note_confirmed = lambda doubts: None  # type: ignore[method-assign]
    worker._liveness.disturbed()
    async with mesh_api.connect(mesh.url) as client:
        job = await client.submit("simulator", "Tell me", max_tokens=3)
        with pytest.raises(mesh_api.errors.WaitTimeoutError):
            await job.result(timeout=2.5)
        del worker._liveness._note_confirmed
        worker._liveness.disturbed()
        assert (await job.result(timeout=5)).status == "finished"


async def test_two_workers_of_one_name_do_not_take_turns_in_dying(patient_mesh: RunningMesh) -> None:
    mesh = patient_mesh
    options = [WorkerOptions(model="simulator", name="twin", grace_s=1.0) for _ in range(2)]
    await mesh.start_worker(SLOW, options[0])
    newer = await mesh.start_worker(SLOW, options[1])
    with pytest.raises(ConfigError, match="another worker is called twin"):
        await asyncio.wait_for(mesh.tasks[0], 10)
    async with mesh_api.connect(mesh.url) as client:
        assert (await client.generate("simulator", "Tell me", max_tokens=3)).worker == newer.name
    assert newer.statistics().state == "ready"
