"""Neighbours that are broken or hostile: what they write must harm neither the workers nor other jobs."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

import mesh as mesh_api
from mesh import errors
from mesh.broker import topology
from mesh.client.client import Client
from mesh.client.job import Job
from mesh.job_key import JobKey
from mesh.protocol import codec
from mesh.protocol.messages import Delta, Started
from tests.running import RunningMesh, present, running_mesh, wait_until


@pytest.fixture
async def client(mesh: RunningMesh) -> AsyncIterator[Client]:
    async with mesh_api.connect(mesh.url) as connected:
        yield connected


async def test_a_value_that_is_no_presence_is_passed_over(mesh: RunningMesh, client: Client) -> None:
    mesh.connection.publish("$KV.mesh_workers.stranger", b'{"worker": "stranger", "state": "hibernating"}')
    await mesh.connection.request("$JS.API.INFO")
    assert [each.worker for each in await client.workers()] == [mesh.workers[0].name]
    assert (await client.generate("simulator", "Still fine?", max_tokens=2)).status == "finished"


# Subjects of NATS and of the mesh: its own processes may publish there, the sender of a request may not.
NOT_TO_BE_ANSWERED = [
    "$JS.API.STREAM.DELETE.MESH_REQUESTS",
    "$KV.mesh_results.bob.x",
    "$KV.mesh_workers.bob",
    "mesh.out.bob.x",
    "mesh.live.bob.x",
    "mesh.req.simulator.standard.bob.x",
    "mesh.rpc.bob.simulator",
    "mesh.ctl.bob.cancel.x",
    "mesh.sys.cancel.bob.x",
    "mesh.dead.simulator.standard.bob.0",
    "mesh.audit.bob.ended",
]
# Everything that a worker and a front door answer.
ASKED: dict[str, bytes] = {
    **{f"mesh.ctl.default.{verb}.told": b"" for verb in ("replay", "output", "status", "cancel")},
    "mesh.rpc.default.simulator": b'{"prompt": "Hello", "max_tokens": 1}',
    "$SRV.PING.mesh": b"",
    "$SRV.INFO.mesh": b"",
    "$SRV.STATS.mesh": b"",
}


@pytest.mark.parametrize("reply", NOT_TO_BE_ANSWERED)
async def test_a_worker_is_nobodys_hand_on_a_subject_its_sender_may_not_use(
    mesh: RunningMesh, client: Client, reply: str
) -> None:
    await client.generate("simulator", "Hello", max_tokens=2, id="told", stream=True)
    heard: list[bytes] = []
    listening = mesh.connection.subscribe(reply, lambda subject, reply, payload, header: heard.append(payload))
    for subject, body in ASKED.items():
        mesh.connection.publish(subject, body, reply=reply)
    for _ in range(2):  # each comes after those above, and is answered: an answer to those had time to come
        for subject, body in ASKED.items():
            await mesh.connection.request(subject, body)
    listening.close()
    assert heard == []
    assert (await topology.stream_state(mesh.connection, "MESH_REQUESTS"))["last_seq"] == 3, "one, and two asked for"
    assert (await topology.stream_state(mesh.connection, "KV_mesh_results"))["messages"] == 3


async def test_a_broken_request_cannot_end_the_job_whose_id_it_bears(mesh: RunningMesh, client: Client) -> None:
    job = await client.submit("simulator", "Mine", max_tokens=60, id="mine")
    async for _ in job:
        break
    quiet = await client.submit("simulator", "Mine too", max_tokens=60, id="quiet", stream=False)
    await wait_until(mesh.is_running("quiet"))
    for id in ("mine", "quiet"):
        body = json.dumps({"id": id, "prompt": 5}).encode()
        await mesh.connection.request("mesh.req.simulator.standard.default.x", body)
        await mesh.connection.request("mesh.req.no-such-model.standard.default.x", body)
    assert (await job).status == "finished"
    assert (await quiet).status == "finished"
    await mesh.wait_queue_empty()


async def test_a_broken_request_does_not_finish_what_a_dead_worker_left(mesh: RunningMesh, client: Client) -> None:
    """A journal that ends with the last delta, its worker dead before the Result."""
    subject = "mesh.out.default.half"
    for event in (
        Started(id="half", attempt=1, index=0, worker="w", unix_ms=1, sequence=1),
        Delta(id="half", attempt=1, index=0, text="one ", token_ids=[1]),
        Delta(id="half", attempt=1, index=1, text="two", token_ids=[2], finish_reason="stop"),
    ):
        await mesh.connection.request(subject, codec.encode(event))
    await mesh.connection.request("mesh.req.simulator.standard.default.x", b'{"id": "half", "prompt": 5}')
    await mesh.wait_queue_empty()
    assert await mesh.result("half") is None


async def test_requests_for_nobody_are_all_ended_also_those_of_the_time_before(tmp_path: Path) -> None:
    async with running_mesh(tmp_path / "nats") as mesh:
        subject = "mesh.req.no-such-model.batch.default.x"
        for _ in range(100):
            await mesh.connection.request(subject, b'{"prompt": "early"}')
        await mesh.start_worker()
        await asyncio.gather(*(mesh.connection.request(subject, b'{"prompt": "late"}') for _ in range(300)))
        await mesh.wait_queue_empty()
        early, late = await mesh.result("s1"), await mesh.result("s400")
    assert late is not None
    assert late.error is not None
    assert early is not None
    assert early.error is not None
    assert early.error.code == late.error.code == "model_not_found"


async def test_a_job_named_like_a_sequence_is_found_by_its_name(tmp_path: Path) -> None:
    async with running_mesh(tmp_path / "nats") as mesh, mesh_api.connect(mesh.url) as client:
        await client.submit("simulator", "Keep me", id="important")
        await client.submit("simulator", "Cancel me", id="s1")
        queue = mesh.broker.queue
        found = present(await queue.find(JobKey("default", "s1")))
        assert (found.job, found.sequence) == ("s1", 2)


async def test_two_handles_of_one_job_are_both_served_and_a_closed_one_says_so(client: Client) -> None:
    one = await client.submit("simulator", "For two", max_tokens=30, id="two")
    other = client.job("two")
    first, second = await asyncio.gather(read(one), read(other))
    assert first == second == (await one).text
    third = await client.submit("simulator", "Closed", max_tokens=300)
    third.close()
    with pytest.raises(errors.DisconnectedError, match="closed"):
        await third
    await client.job(third.id).cancel()


async def read(job: Job) -> str:
    return "".join([delta.text async for delta in job])
