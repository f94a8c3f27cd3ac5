"""A paused queue: what waits, what goes on, what workers do meanwhile, and how soon they are back."""

import asyncio
import json
import time
from collections import Counter
from collections.abc import AsyncIterator

import pytest

import mesh as library
from mesh.broker import topology
from mesh.broker.topology.pause import Lanes
from mesh.client.client import Client
from mesh.control.queues import pause
from mesh.control.queues.pause import PauseTarget, read_target
from mesh.engines.simulator.settings import SimulatorSettings
from mesh.errors import InvalidRequestError, ModelNotFoundError
from mesh.worker import credits
from tests.running import MODEL, RunningMesh, wait_until

CONSUMERS = 12  # three tiers of four lanes
SOON_S = 1.0  # for a worker to notice that a queue goes on


@pytest.fixture
async def client(mesh: RunningMesh) -> AsyncIterator[Client]:
    async with library.connect(mesh.url) as connected:
        yield connected


def pulls_of(mesh: RunningMesh) -> str:
    """Where workers ask for jobs."""
    return f"$JS.API.CONSUMER.MSG.NEXT.{mesh.names.requests_stream}.>"


async def queue_of(mesh: RunningMesh, tier: str) -> pause.PausableQueue:
    queues = pause.queues_of(await Lanes(mesh.broker).all())
    return next(each for each in queues if (each.model, each.tier) == (MODEL, tier))


async def test_nothing_of_a_paused_model_starts_and_all_of_it_once_it_is_resumed(
    mesh: RunningMesh, client: Client
) -> None:
    outcome = await pause.pause(mesh.broker, PauseTarget(MODEL), None)
    assert [each.tier for each in outcome.after] == ["interactive", "standard", "batch"]
    assert all(each.is_for_ever and each.paused_lanes == each.lanes == 4 for each in outcome.after)
    assert not any(each.pause_s for each in outcome.before)
    jobs = [
        await client.submit(MODEL, f"Hello {number}", tier=tier, max_tokens=2)
        for number in range(4)
        for tier in ("interactive", "standard", "batch")
    ]
    worker = mesh.workers[0]
    pulls: Counter[bytes] = Counter()  # by consumer
    listening = mesh.connection.subscribe(
        pulls_of(mesh), lambda subject, reply, payload, header: pulls.update([subject])
    )
    # One pull is open on a consumer at a time: with the second, the first has brought what there was.
    await wait_until(lambda: len(pulls) == CONSUMERS and min(pulls.values()) >= 2, 30)
    listening.close()
    assert worker.statistics().running == worker.statistics().finished == 0
    assert [(await queue_of(mesh, tier)).waiting for tier in ("interactive", "batch")] == [4, 4]

    began_s = time.monotonic()
    resumed = await pause.resume(mesh.broker, PauseTarget(MODEL))
    assert all(each.pause_s for each in resumed.before)
    assert not any(each.pause_s for each in resumed.after)
    await wait_until(lambda: worker.statistics().finished == len(jobs), SOON_S + 2)
    assert time.monotonic() - began_s < SOON_S + 2
    assert {(await job).status for job in jobs} == {"finished"}


async def test_a_resumed_job_is_served_by_the_pull_that_waits(
    mesh: RunningMesh, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not only by the next one: here that would come a minute later."""
    for name in ("WAIT_S", "WAIT_IDLE_S", "WAIT_NARROW_S"):
        monkeypatch.setattr(credits, name, 60.0)
    waiting: set[bytes] = set()

    def heard(subject: bytes, reply: bytes, payload: bytes, header: bytes) -> None:
        if json.loads(payload).get("expires") == 60 * topology.NS:
            waiting.add(subject)

    listening = mesh.connection.subscribe(pulls_of(mesh), heard)
    await pause.pause(mesh.broker, PauseTarget(MODEL), None)
    job = await client.submit(MODEL, "Hello", max_tokens=2)
    await wait_until(lambda: has_waiting(mesh, 1))
    await wait_until(lambda: len(waiting) == CONSUMERS, 30)
    listening.close()
    await pause.resume(mesh.broker, PauseTarget(MODEL))
    assert (await job.result(timeout=30)).status == "finished"


async def has_waiting(mesh: RunningMesh, count: int) -> bool:
    return (await queue_of(mesh, "standard")).waiting == count


async def test_one_tier_is_paused_and_the_others_are_not(mesh: RunningMesh, client: Client) -> None:
    """Nor does it cost them the worker's slots: what asks a paused consumer is told that nothing is there."""
    await pause.pause(mesh.broker, PauseTarget(MODEL, "batch"), None)
    kept = [await client.submit(MODEL, f"Hello {number}", tier="batch", max_tokens=2) for number in range(20)]
    began_s = time.monotonic()
    results = await asyncio.gather(*(client.generate(MODEL, f"Hi {number}", max_tokens=2) for number in range(20)))
    assert {each.status for each in results} == {"finished"}
    assert time.monotonic() - began_s < 5
    await wait_until(lambda: mesh.workers[0].statistics().finished == 20)
    assert (await queue_of(mesh, "batch")).waiting == 20
    await pause.resume(mesh.broker, PauseTarget(MODEL, "batch"))
    assert {(await job).status for job in kept} == {"finished"}


async def test_what_runs_goes_on_and_ends(mesh: RunningMesh, client: Client) -> None:
    await mesh.start_worker(SimulatorSettings(model=MODEL, between_tokens_ms=20))
    job = await client.submit(MODEL, "Tell me of the sea", max_tokens=80)
    async for _ in job:
        break
    await pause.pause(mesh.broker, PauseTarget(MODEL), None)
    assert (await queue_of(mesh, "standard")).running == 1
    result = await job
    assert (result.status, result.attempts) == ("finished", 1)


async def test_a_deadline_that_passes_meanwhile_ends_the_job(mesh: RunningMesh, client: Client) -> None:
    await pause.pause(mesh.broker, PauseTarget(MODEL), None)
    deadline = int(time.time() * 1000) + 500
    result = await client.generate(MODEL, "Hello", deadline_unix_ms=deadline)
    assert result.status == "expired"
    await wait_until(lambda: has_waiting(mesh, 0))


async def test_a_pause_of_some_time_ends_by_itself(mesh: RunningMesh, client: Client) -> None:
    outcome = await pause.pause(mesh.broker, PauseTarget(MODEL), 1.5)
    assert all(0 < each.pause_s <= 1.5 and not each.is_for_ever for each in outcome.after)
    began_s = time.monotonic()
    assert (await client.generate(MODEL, "Hello", max_tokens=2)).status == "finished"
    assert 0.5 < time.monotonic() - began_s < 1.5 + SOON_S


async def test_pausing_again_sets_the_time_anew_and_resuming_again_does_nothing(mesh: RunningMesh) -> None:
    first = await pause.pause(mesh.broker, PauseTarget(MODEL), 3600)
    again = await pause.pause(mesh.broker, PauseTarget(MODEL), 60)
    assert all(each.pause_s > 3000 for each in first.after)
    assert all(50 < each.pause_s <= 60 for each in again.after)
    for _ in range(2):
        await pause.resume(mesh.broker, PauseTarget(MODEL))
    assert (await queue_of(mesh, "standard")).paused_lanes == 0


async def test_a_pause_outlives_the_server(mesh: RunningMesh, client: Client) -> None:
    await pause.pause(mesh.broker, PauseTarget(MODEL), 3600)
    await mesh.server.stop(kill=True)
    await mesh.server.start()
    await mesh.connection.wait_connected(10)
    assert (await queue_of(mesh, "standard")).pause_s > 3000


async def test_a_model_nobody_declared_is_refused_with_those_that_are_there(mesh: RunningMesh) -> None:
    for act in (pause.resume(mesh.broker, PauseTarget("other")), _pause(mesh, "other")):
        with pytest.raises(ModelNotFoundError, match=f"no queue of other is declared; there are models: {MODEL}"):
            await act


async def _pause(mesh: RunningMesh, model: str) -> None:
    await pause.pause(mesh.broker, PauseTarget(model), None)


async def test_a_consumer_of_somebody_else_is_no_queue(mesh: RunningMesh) -> None:
    before = await Lanes(mesh.broker).all()
    foreign = b'{"stream_name":"MESH_REQUESTS","config":{"durable_name":"foreign","ack_policy":"explicit",'
    foreign += b'"filter_subject":"mesh.req.foreign.>"},"action":"create"}'
    await mesh.connection.request("$JS.API.CONSUMER.CREATE.MESH_REQUESTS.foreign", foreign)
    assert await Lanes(mesh.broker).all() == before


@pytest.mark.parametrize(
    ("text", "target"),
    [("chat", PauseTarget("chat")), ("chat/batch", PauseTarget("chat", "batch")), ("a-b", PauseTarget("a-b"))],
)
def test_what_is_meant_is_read(text: str, target: PauseTarget) -> None:
    assert read_target(text) == target
    assert str(target) == text


@pytest.mark.parametrize("text", ["chat/urgent", "chat/", "", "a.b", "a/b/batch", "*"])
def test_what_is_no_target_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequestError):
        read_target(text)
