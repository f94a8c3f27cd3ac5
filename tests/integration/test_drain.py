"""Draining a worker over NATS: what it finishes, what it hands over, and what whoever asked is told."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

import mesh as library
from mesh.client.client import Client
from mesh.control.workers import drain as draining
from mesh.control.workers.drain import DrainReply, choose, drain, wait_gone
from mesh.engines.simulator.settings import SimulatorSettings
from mesh.errors import ConfigError
from mesh.worker.commands import DrainAnswer
from mesh.worker.worker import WorkerOptions
from tests.running import MODEL, RunningMesh, running_mesh, wait_until

SLOW = SimulatorSettings(model=MODEL, between_tokens_ms=20)


@pytest.fixture
async def mesh(tmp_path: Path) -> AsyncIterator[RunningMesh]:
    async with running_mesh(tmp_path / "nats") as running:
        yield running


@pytest.fixture
async def client(mesh: RunningMesh) -> AsyncIterator[Client]:
    async with library.connect(mesh.url) as connected:
        yield connected


def options(name: str, grace_s: float = 20.0) -> WorkerOptions:
    return WorkerOptions(model=MODEL, name=name, grace_s=grace_s)


async def started(client: Client, **fields: Any) -> library.Job:
    """A job that runs."""
    job = await client.submit(MODEL, "Tell me of the sea", temperature=0, **fields)
    async for _ in job:
        break
    return job


async def test_a_drained_worker_finishes_what_runs_takes_no_more_and_ends(mesh: RunningMesh, client: Client) -> None:
    worker = await mesh.start_worker(SLOW, options("one"))
    job = await started(client, max_tokens=60)
    (told,) = await drain(mesh.broker, ["one"])
    assert told.answer == DrainAnswer(worker="one", running=1, grace_s=20.0)
    waiting = await client.submit(MODEL, "Hello", max_tokens=2)
    assert (await job).status == "finished"
    await asyncio.wait_for(mesh.tasks[0], 5)
    assert worker.is_over
    assert worker.statistics().returned == 0
    await mesh.start_worker(options=options("two"))
    assert (await waiting).worker == "two"


async def test_what_does_not_finish_in_its_grace_goes_on_elsewhere(mesh: RunningMesh, client: Client) -> None:
    await mesh.start_worker(SLOW, options("one", grace_s=0.2))
    job = await started(client, max_tokens=150)
    await mesh.start_worker(SLOW, options("two"))
    told = await drain(mesh.broker, ["one"])
    seen: list[int] = []
    left = await wait_gone(mesh.broker, told, lambda there: seen.extend(each.running for each in there))
    assert left == []
    assert seen, "it was seen while it was still there"
    result = await job
    assert (result.status, result.worker, result.attempts) == ("finished", "two", 2)


async def test_asking_again_hurries_nobody(mesh: RunningMesh, client: Client) -> None:
    await mesh.start_worker(SLOW, options("one"))
    job = await started(client, max_tokens=60)
    answers = [(await drain(mesh.broker, ["one"]))[0].answer for _ in range(3)]
    assert [each.was_draining for each in answers if each is not None] == [False, True, True]
    assert (await job).attempts == 1


async def test_only_the_worker_that_is_named_drains(mesh: RunningMesh) -> None:
    await mesh.start_worker(options=options("one"))
    other = await mesh.start_worker(options=options("two"))
    await drain(mesh.broker, ["one"])
    await asyncio.wait_for(mesh.tasks[0], 5)
    assert other.statistics().state == "ready"

    async def is_alone() -> bool:
        try:
            return await choose(mesh.broker, [], MODEL) == ["two"]
        except ConfigError:  # neither is seen yet
            return False

    await wait_until(is_alone)


async def test_one_that_does_not_answer_is_told_apart_from_one_that_is_gone(
    mesh: RunningMesh, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(draining, "ANSWER_S", 0.2)
    mesh.connection.subscribe(mesh.names.drain("suspended"), lambda *message: None)
    gone, silent = await drain(mesh.broker, ["nobody", "suspended"])
    assert (gone.answer, silent.answer) == (None, None)
    assert "gone" in gone.why
    assert "suspended" in silent.why


async def test_an_answer_that_is_none_is_no_fault_of_ours(mesh: RunningMesh) -> None:
    async def told() -> DrainReply:
        return (await drain(mesh.broker, ["odd"]))[0]

    mesh.connection.subscribe(mesh.names.drain("odd"), lambda s, r, p, h: mesh.connection.publish(r.decode(), b"?"))
    assert "cannot be read" in (await told()).why


async def test_a_reply_into_the_mesh_itself_is_not_sent(mesh: RunningMesh) -> None:
    """Whoever may ask must not make a worker publish where only workers may."""
    worker = await mesh.start_worker(options=options("one"))
    before = await mesh.queued()
    subject = mesh.names.request(MODEL, "batch", "t", "x")
    mesh.connection.publish(mesh.names.drain("one"), b"", reply=subject)
    await wait_until(lambda: worker.is_over)
    assert await mesh.queued() == before


async def test_who_is_not_there_is_refused_with_those_who_are(mesh: RunningMesh) -> None:
    await mesh.start_worker(options=options("one"))

    async def is_seen() -> bool:
        return bool(await mesh.broker.workers.all())

    await wait_until(is_seen)
    with pytest.raises(ConfigError, match=rf"no worker two; there are: one \({MODEL}\)"):
        await choose(mesh.broker, ["one", "two"], None)
    with pytest.raises(ConfigError, match="no worker serves other; there are: one"):
        await choose(mesh.broker, [], "other")


async def test_waiting_ends_although_a_worker_does_not(
    mesh: RunningMesh, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(draining, "DRAIN_MARGIN_S", 0.1)
    await mesh.start_worker(SLOW, options("one"))
    await started(client, max_tokens=100)
    stuck = DrainReply("one", DrainAnswer(worker="one", running=1, grace_s=0.1))
    assert await wait_gone(mesh.broker, [stuck], lambda there: None) == ["one"]
