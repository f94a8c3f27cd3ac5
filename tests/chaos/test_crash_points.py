"""A worker dies between any two steps of its order of effects: the job still ends exactly once.

The child is killed for real. What must hold afterwards is the same for every step: one history without gap or
repeat, one Result equal to what was streamed and to an undisturbed run, an empty queue.
"""

import asyncio
from pathlib import Path

import pytest

import mesh as mesh_api
from mesh.broker import topology
from mesh.broker.topology import MeshSettings
from mesh.protocol.messages import Delta, Result, Started
from tests.running import running_mesh, wait_until

SCRIPT = Path(__file__).with_name("crashing_worker.py")
TOKENS = 12

STEPS = [
    f"{step}:{when}:{nth}"
    for step, nths in (("started", (1,)), ("delta", (1, 4)), ("store", (1,)), ("announce", (1,)), ("ack", (1,)))
    for when in ("before", "after")
    for nth in nths
]
HOWS = ["kill", "stop"]


@pytest.fixture
async def mesh(tmp_path):
    # The shortest visibility timeout: a killed worker's job is delivered again after a second.
    async with running_mesh(tmp_path / "nats", MeshSettings(ack_wait_s=1.0)) as running:
        yield running


def check_history(events, result, tokens=TOKENS):
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


@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize("step", STEPS)
async def test_a_worker_lost_at_any_step_costs_no_job_and_no_token(mesh, step, how):
    crashing = await mesh.start_child(SCRIPT, f"{step}:{how}")
    async with mesh_api.connect(mesh.url) as client:
        job = await client.submit("simulator", "Tell me of the sea", max_tokens=TOKENS, temperature=0, id="victim")
        if how == "kill":
            await asyncio.wait_for(crashing.wait(), 10)
        await mesh.start_child(SCRIPT)
        shown = "".join([delta.text async for delta in job])
        result = await job.result(timeout=20)
        undisturbed = await client.generate("simulator", "Tell me of the sea", max_tokens=TOKENS, temperature=0)
    assert result.status == "finished"
    assert shown == result.text == undisturbed.text
    await mesh.wait_queue_empty()
    check_history(await mesh.history("victim"), result)
    assert await mesh.result("victim") == result


async def test_a_suspended_worker_that_wakes_up_changes_nothing(mesh):
    crashing = await mesh.start_child(SCRIPT, "delta:after:3:stop")
    async with mesh_api.connect(mesh.url) as client:
        job = await client.submit("simulator", "Tell me of the sea", max_tokens=TOKENS, temperature=0, id="victim")
        await mesh.start_child(SCRIPT)
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


async def test_a_worker_that_does_not_know_it_lost_the_job_is_refused_by_its_journal(mesh):
    await mesh.start_child(SCRIPT, "blind")
    async with mesh_api.connect(mesh.url) as client:
        # Longer than a lease, so that the job is delivered to the second worker while the first goes on.
        job = await client.submit("simulator", "Tell me of the sea", max_tokens=1000, temperature=0, id="victim")
        async for _ in job:
            break
        await mesh.start_child(SCRIPT)
        result = await job.result(timeout=30)
        undisturbed = await client.generate("simulator", "Tell me of the sea", max_tokens=1000, temperature=0)
    await mesh.wait_queue_empty()
    assert result.attempts >= 2
    assert result.text == undisturbed.text
    check_history(await mesh.history("victim"), result, 1000)


async def test_of_two_workers_that_both_finish_a_job_one_stores_its_result(mesh):
    await mesh.start_child(SCRIPT, "blind")
    async with mesh_api.connect(mesh.url) as client:
        job = await client.submit("simulator", "Tell me of the sea", max_tokens=400, stream=False, id="victim")
        await wait_until(mesh.is_running("victim"))
        await mesh.start_child(SCRIPT)
        result = await job.result(timeout=30)
        # The other one ends too, and its Result is refused.
        await mesh.wait_queue_empty()
        await wait_until(mesh.is_attempted("victim", 2))
        await client.generate("simulator", "A word", max_tokens=1)
    assert await mesh.result("victim") == result
    assert await mesh.history("victim") == [result]
    assert (await topology.stream_state(mesh.connection, "KV_mesh_results"))["last_seq"] == 2
