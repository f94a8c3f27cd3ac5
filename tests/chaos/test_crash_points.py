"""A worker dies between any two steps of its order of effects: the job still ends exactly once.

The child is killed for real. What must hold afterwards is the same for every step: one history without gap or
repeat, one Result equal to what was streamed and to an undisturbed run, an empty queue.
"""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

import mesh as mesh_api
from mesh.broker import topology
from mesh.broker.topology import MeshSettings
from mesh.client.client import Client
from mesh.engines.simulator.settings import SimulatorSettings
from mesh.protocol.messages import Delta, Event, Result, Started
from mesh.worker import death_check, runner
from tests.chaos import crashing_worker
from tests.running import CRASHING_WORKER, RunningMesh, running_mesh, wait_until

TOKENS = 12

# What the crashing worker is given, and the steps of its order of effects that it then passes, with the nth time.
FRESH = "a new job"
TAKEN_OVER = "a job whose worker died"
FAILING = "a job on which the engine fails"
DOOMED = "a job that has failed too often"
POINTS = [
    (FRESH, "taken:after:1"),
    *((FRESH, f"{step}:{when}:1") for step in ("started", "delta", "last") for when in ("before", "after")),
    *((FRESH, f"delta:{when}:4") for when in ("before", "after")),
    *((FRESH, f"{step}:{when}:1") for step in ("store", "announce", "ack") for when in ("before", "after")),
    *((TAKEN_OVER, f"{step}:{when}:1") for step in ("recall", "started") for when in ("before", "after")),
    *((FAILING, f"{step}:{when}:1") for step in ("note", "nak") for when in ("before", "after")),
    *((DOOMED, f"{step}:{when}:1") for step in ("dead", "close") for when in ("before", "after")),
]
HOWS = ["kill", "stop", "raise"]
SPEED = SimulatorSettings(model="simulator", first_token_ms=5, between_tokens_ms=5)
PROMPT: dict[str, Any] = {"max_tokens": TOKENS, "temperature": 0}


@pytest.fixture
async def mesh(tmp_path: Path) -> AsyncIterator[RunningMesh]:
    # The shortest visibility timeout: a killed worker's job is delivered again after a second.
    async with running_mesh(tmp_path / "nats", MeshSettings(lanes=1, ack_wait_s=1.0)) as running:
        yield running


@pytest.fixture(autouse=True)
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """The heirs wait for dead workers as briefly as the crashing one does; tests of their own say how long is right."""
    monkeypatch.setattr(death_check, "OBJECTION_S", crashing_worker.OBJECTION_S)
    monkeypatch.setattr(runner, "ENDING_S", crashing_worker.ENDING_S)


def check_history(events: list[Event], result: Result, tokens: int = TOKENS) -> None:
    """One history: attempts count up, tokens without gap, repeat or restart, one Result, at the end."""
    attempt, index, text = 0, 0, ""
    for event in events[:-1]:
        if isinstance(event, Started):
            assert event.attempt == attempt + 1
            assert event.index == index  # greedy: every takeover goes on where the journal ends
            attempt = event.attempt
        else:
            assert isinstance(event, Delta)
            assert event.attempt == attempt
            assert event.index == index
            index += len(event.token_ids)
            text += event.text
    assert isinstance(events[-1], Result)
    assert events[-1] == result
    assert result.text == text
    assert index == tokens


async def prepare(mesh: RunningMesh, situation: str, delta: Delta) -> dict[str, Any]:
    """Write the past that the job had; what its request says beside the prompt."""
    if situation == FRESH:
        return {}
    if situation == FAILING:
        # Once by each engine that has not seen it go on: by the crashing worker's, and not by its heir's.
        return {"metadata": {"simulate": {"fail_after": 3, "fresh_only": True}}}
    first = Started(id="victim", attempt=1, index=0, worker="dead", unix_ms=1)
    await mesh.append("victim", first, 0)
    if situation == DOOMED:
        for attempt in (2, 3, 4):
            last = (await mesh.journal_entries("victim"))[-1].sequence
            await mesh.append(
                "victim", Started(id="victim", attempt=attempt, index=0, worker="dead", unix_ms=1, isolated=True), last
            )
    else:
        last = (await mesh.journal_entries("victim"))[-1].sequence
        await mesh.append("victim", delta, last)
    return {}


async def first_delta(client: Client, mesh: RunningMesh) -> tuple[Delta, str]:
    """The first event of an undisturbed run, and all of its text."""
    job = await client.submit("simulator", "Tell me of the sea", id="undisturbed", **PROMPT)
    result = await job.result(timeout=10)
    delta = next(event for event in await mesh.history("undisturbed") if isinstance(event, Delta))
    return msgspec.structs.replace(delta, id="victim"), result.text


@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize(("situation", "point"), POINTS)
async def test_a_worker_lost_at_any_step_costs_no_job_and_no_token(
    mesh: RunningMesh, situation: str, point: str, how: str
) -> None:
    async with mesh_api.connect(mesh.url) as client:
        reference = await mesh.start_worker(SPEED)
        delta, text = await first_delta(client, mesh)
        reference.drain()
        await mesh.tasks[-1]
        fields = await prepare(mesh, situation, delta)
        crashing = await mesh.start_child(CRASHING_WORKER, f"{point}:{how}")
        job = await client.submit("simulator", "Tell me of the sea", id="victim", **PROMPT, **fields)
        assert crashing.stdout is not None
        assert (await asyncio.wait_for(crashing.stdout.readline(), 10)).strip() == b"reached"
        await mesh.start_worker(SPEED)
        shown = "".join([delta.text async for delta in job])
        result = await job.result(timeout=20)
    await mesh.wait_queue_empty()
    assert await mesh.result("victim") == result
    events = await mesh.history("victim")
    dead = (await topology.stream_state(mesh.connection, mesh.names.dead_stream))["messages"]
    if situation == DOOMED:
        assert result.error is not None
        assert (result.status, result.error.code, dead) == ("failed", "attempts_exhausted", 1)
        check_history(events, result, 0)
    else:
        assert (result.status, dead) == ("finished", 0)
        assert shown == result.text == text
        check_history(events, result)


async def test_a_suspended_worker_that_wakes_up_changes_nothing(mesh: RunningMesh) -> None:
    crashing = await mesh.start_child(CRASHING_WORKER, "delta:after:3:stop")
    async with mesh_api.connect(mesh.url) as client:
        job = await client.submit("simulator", "Tell me of the sea", max_tokens=TOKENS, temperature=0, id="victim")
        await mesh.start_child(CRASHING_WORKER)
        result = await job.result(timeout=20)
        await mesh.wait_queue_empty()
        before = await mesh.history("victim")
        crashing.send_signal(18)  # SIGCONT: a zombie, which must find its lease gone
        # It serves again, and nothing it held is written.
        after = await client.generate("simulator", "And then?", max_tokens=3)
    assert after.status == "finished"
    assert result.attempts == 2
    assert await mesh.history("victim") == before
    check_history(before, result)


async def test_a_worker_that_does_not_know_it_lost_the_job_is_refused_by_its_journal(mesh: RunningMesh) -> None:
    await mesh.start_child(CRASHING_WORKER, "blind:50")  # so slow that its journal can be taken over between two events
    async with mesh_api.connect(mesh.url) as client:
        # Longer than a lease, so that the job is delivered to the second worker while the first goes on.
        job = await client.submit("simulator", "Tell me of the sea", max_tokens=100, temperature=0, id="victim")
        async for _ in job:
            break
        await mesh.start_worker(SPEED)  # in this process: a child takes its time to start, and the job would be over
        result = await job.result(timeout=30)
        undisturbed = await client.generate("simulator", "Tell me of the sea", max_tokens=100, temperature=0)
    await mesh.wait_queue_empty()
    assert result.attempts >= 2
    assert result.text == undisturbed.text
    check_history(await mesh.history("victim"), result, 100)


async def test_of_two_workers_that_both_finish_a_job_one_stores_its_result(mesh: RunningMesh) -> None:
    await mesh.start_child(CRASHING_WORKER, "blind:5")
    async with mesh_api.connect(mesh.url) as client:
        job = await client.submit("simulator", "Tell me of the sea", max_tokens=400, stream=False, id="victim")
        await wait_until(mesh.is_running("victim"))
        await mesh.start_worker(SPEED)  # in this process: a child takes its time to start, and the job would be over
        result = await job.result(timeout=30)
        # The other one ends too, and its Result is refused.
        await mesh.wait_queue_empty()
        await wait_until(mesh.is_attempted("victim", 2))
        await client.generate("simulator", "A word", max_tokens=1)
    assert await mesh.result("victim") == result
    assert await mesh.history("victim") == [result]
    assert (await topology.stream_state(mesh.connection, "KV_mesh_results"))["last_seq"] == 2
