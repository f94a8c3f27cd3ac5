"""The Python client against a real mesh: what a program that imports mesh may rely on."""

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator
from pathlib import Path
from typing import Any

import pytest

import mesh as mesh_api
from mesh import errors
from mesh.client.client import Client
from mesh.client.internal import INBOX_EVENTS, handle_of
from mesh.client.job import Job
from mesh.engines.simulator.settings import SimulatorSettings
from mesh.server import EmbeddedServer
from tests.running import RunningMesh, running_mesh, wait_until


@pytest.fixture
async def client(mesh: RunningMesh) -> AsyncIterator[Client]:
    async with mesh_api.connect(mesh.url) as connected:
        yield connected


async def read(job: Job) -> str:
    return "".join([delta.text async for delta in job])


async def test_a_job_is_iterated_and_awaited(client: Client) -> None:
    job = await client.submit("simulator", "Tell me a story", max_tokens=10)
    text = await read(job)
    result = await job
    assert result.text == text
    assert result.raise_for_status() is result
    assert result.usage.completion_tokens == 10


async def test_chat_token_ids_and_embeddings_are_served(client: Client) -> None:
    chat = await client.generate("simulator", [{"role": "user", "content": "Hello"}], max_tokens=4)
    ids = await client.generate("simulator", prompt_token_ids=[1, 2, 3], max_tokens=4)
    vectors = await client.embed("simulator", ["one", "two", "three"])
    assert chat.status == ids.status == "finished"
    assert len(vectors) == 3
    assert len({len(vector) for vector in vectors}) == 1


async def test_a_job_is_found_again_by_its_id_while_it_runs_and_afterwards(mesh: RunningMesh, client: Client) -> None:
    job = await client.submit("simulator", "A long one", max_tokens=80, id="again")
    seen = []
    async for delta in job:
        seen.append(delta.text)
        if len(seen) == 5:
            break
    async with mesh_api.connect(mesh.url) as other:
        whole = await read(other.job("again"))
        result = await other.job("again").result(timeout=10)
        assert result.text == whole
        assert (await other.result("again")).text == whole
        assert await read(other.job("again")) == whole
    rest = await read(job)
    assert "".join(seen) + rest == whole


async def test_two_readers_see_the_same(mesh: RunningMesh, client: Client) -> None:
    job = await client.submit("simulator", "Two of us", max_tokens=40, id="both")
    async with mesh_api.connect(mesh.url) as other:
        one, two = await asyncio.gather(read(job), read(other.job("both")))
    assert one == two == (await job).text


async def test_cancel_stops_the_engine_and_ends_the_job(mesh: RunningMesh, client: Client) -> None:
    job = await client.submit("simulator", "For ever", max_tokens=8000)
    async for _ in job:
        break
    assert await job.cancel() == "cancelled"
    result = await job
    assert result.status == "cancelled"
    with pytest.raises(errors.JobCancelledError):
        result.raise_for_status()
    await wait_until(lambda: mesh.workers[0].statistics().running == 0, 1.0)
    assert await job.cancel() == "cancelled"
    assert await client.job("nobody").cancel() == "unknown"


async def test_a_queued_job_is_cancelled_and_never_starts(tmp_path: Path) -> None:
    async with running_mesh(tmp_path / "nats") as mesh, mesh_api.connect(mesh.url) as client:
        await mesh.start_worker(SimulatorSettings(model="simulator", capacity=1))
        running = await client.submit("simulator", "First", max_tokens=300)
        async for _ in running:
            break
        queued = await client.submit("simulator", "Second", max_tokens=5)
        assert (await queued.status()).status == "queued"
        assert await queued.cancel() == "cancelled"
        assert (await queued).status == "cancelled"
        assert (await queued).attempts == 0
        await running.cancel()
        await mesh.wait_queue_empty()


async def test_a_deadline_ends_a_running_job(client: Client) -> None:
    soon = time.time_ns() // 1_000_000 + 400
    result = await client.generate("simulator", "Slow", max_tokens=8000, deadline_unix_ms=soon, stream=True)
    assert result.status == "expired"
    assert result.usage.completion_tokens > 0
    with pytest.raises(errors.JobExpiredError):
        result.raise_for_status()


async def test_a_deadline_that_passed_is_not_run(client: Client) -> None:
    result = await client.generate("simulator", "Late", deadline_unix_ms=1_000)
    assert result.status == "expired"
    assert result.usage.completion_tokens == 0


async def test_a_slow_reader_holds_few_events_and_misses_none(mesh: RunningMesh, client: Client) -> None:
    job = await client.submit("simulator", "Slowly", max_tokens=600)
    reader = aiter(job)
    first = await anext(reader)
    result = await job.result(timeout=60)
    assert handle_of(job).statistics().inbox_events <= INBOX_EVENTS
    text = first.text + "".join([delta.text async for delta in reader])
    assert text == result.text


async def test_a_slow_reader_does_not_slow_another(client: Client) -> None:
    slow = await client.submit("simulator", "Slow", max_tokens=400)
    quick = await client.submit("simulator", "Quick", max_tokens=20)
    reader = aiter(slow)
    await anext(reader)
    await asyncio.wait_for(read(quick), 5)
    assert isinstance(reader, AsyncGenerator)
    await reader.aclose()
    await slow.cancel()


async def test_submit_with_a_known_id_gives_the_first_ones_result(client: Client) -> None:
    first = await client.submit("simulator", "One", max_tokens=6, id="twin")
    again = await client.submit("simulator", "One", max_tokens=6, id="twin")
    assert await again == await first


async def test_fifty_submits_of_one_id_run_once(mesh: RunningMesh, client: Client) -> None:
    jobs = await asyncio.gather(*(client.submit("simulator", "One", max_tokens=6, id="fifty") for _ in range(50)))
    results = await asyncio.gather(*jobs)
    assert len({result.finished_unix_ms for result in results}) == 1
    kinds = [type(event).__name__ for event in await mesh.history("fifty")]
    assert kinds.count("Started") == kinds.count("Result") == 1


BAD = {
    "no input": ({}, "prompt"),
    "two inputs": ({"prompt": "a", "input": "b"}, "prompt"),
    "a number for the prompt": ({"prompt": 5}, "prompt"),
    "an unknown field": ({"prompt": "a", "max_token": 5}, "max_token"),
    "no tokens": ({"prompt": "a", "max_tokens": 0}, "max_tokens"),
    "a fraction of a token": ({"prompt": "a", "max_tokens": 1.5}, "max_tokens"),
    "more tokens than the context": ({"prompt": "a", "max_tokens": 10**6}, "max_tokens"),
    "NaN": ({"prompt": "a", "temperature": float("nan")}, "temperature"),
    "a hot temperature": ({"prompt": "a", "temperature": 9}, "temperature"),
    "an id with a space": ({"prompt": "a", "id": "a b"}, "id"),
    "an id of 65": ({"prompt": "a", "id": "x" * 65}, "id"),
    "an unknown role": ({"messages": [{"role": "wizard", "content": "x"}]}, "messages[0].role"),
    "tools": ({"prompt": "a", "tools": [{}]}, "tools"),
    "too many ids": ({"prompt_token_ids": [1] * 9000}, "prompt_token_ids"),
    "an object that cannot be sent": ({"prompt": "a", "metadata": {"x": object()}}, None),
    "a huge number": ({"prompt": "a", "seed": 2**80}, None),
}


@pytest.mark.parametrize(("fields", "field"), BAD.values(), ids=BAD.keys())
async def test_a_bad_request_is_refused_before_anything_is_sent(
    mesh: RunningMesh, client: Client, fields: dict[str, Any], field: str | None
) -> None:
    with pytest.raises(errors.RequestError) as refused:
        await client.submit("simulator", **fields)
    assert refused.value.field == field
    assert refused.value.reason
    assert await mesh.queued() == 0


@pytest.mark.parametrize("model", ["no-such", "a.b", "a b", "*", ">", "", "x" * 65, "modèle"])
async def test_a_bad_or_unknown_model_is_refused(client: Client, model: str) -> None:
    with pytest.raises(errors.RequestError) as refused:
        await client.submit(model, "hi")
    assert refused.value.field == "model"


async def test_a_bad_tier_is_refused(client: Client) -> None:
    with pytest.raises(errors.InvalidRequestError, match="interactive, standard, batch"):
        await client.submit("simulator", "hi", tier="urgent")  # type: ignore[arg-type]  # no checker keeps a program from it


async def test_an_oversized_request_is_refused_and_the_client_lives(client: Client) -> None:
    with pytest.raises(errors.TooLargeError):
        await client.submit("simulator", "x" * 2_000_000)
    assert (await client.generate("simulator", "hi", max_tokens=2)).status == "finished"


async def test_waiting_has_a_bound(tmp_path: Path) -> None:
    async with running_mesh(tmp_path / "nats") as mesh, mesh_api.connect(mesh.url) as client:
        job = await client.submit("simulator", "Nobody is there")
        with pytest.raises(errors.WaitTimeoutError, match="goes on"):
            await job.result(timeout=0.2)
        with pytest.raises(errors.UnavailableError, match="no worker"):
            await job.cancel()
        with pytest.raises(errors.WaitTimeoutError, match="mesh workers"):
            await client.job(job.id, timeout=0.1)
        with pytest.raises(errors.ResultNotFoundError):
            await client.result("elsewhere")


async def test_a_job_nobody_knows_is_said_to_be_unknown(client: Client) -> None:
    with pytest.raises(errors.ResultNotFoundError, match="unknown"):
        await client.job("never-was").result(timeout=10)
    with pytest.raises(errors.ResultNotFoundError, match="unknown"):
        await read(client.job("never-was"))


async def test_a_result_that_is_kept_no_longer_is_not_waited_for(mesh: RunningMesh, client: Client) -> None:
    result = await client.generate("simulator", "Forget me", max_tokens=2, result_ttl_ms=1000, id="short")
    assert result.status == "finished"
    await wait_until(lambda: mesh.result_is_gone("short"), 10)
    with pytest.raises(errors.ResultNotFoundError, match="result_ttl_ms"):
        await client.result("short")


async def test_closing_the_client_ends_its_waits(mesh: RunningMesh) -> None:
    async with mesh_api.connect(mesh.url) as client:
        job = await client.submit("simulator", "Long", max_tokens=4000, id="left")
        waiting = asyncio.create_task(job.result())
        await wait_until(lambda: handle_of(job).statistics().waits)
    with pytest.raises(errors.DisconnectedError, match="goes on"):
        await waiting
    async with mesh_api.connect(mesh.url) as client:
        assert await client.job("left").cancel() == "cancelled"


async def test_connecting_to_nothing_says_so_soon() -> None:
    began = time.monotonic()
    with pytest.raises(errors.DisconnectedError, match="cannot reach NATS"):
        async with mesh_api.connect("nats://127.0.0.1:1"):
            pass
    assert time.monotonic() - began < 8


async def test_a_nats_without_a_mesh_is_named_as_such(server: EmbeddedServer) -> None:
    with pytest.raises(errors.TopologyError, match="mesh init"):
        async with mesh_api.connect(server.url):
            pass


async def test_readers_go_on_after_a_server_restart(mesh: RunningMesh, client: Client) -> None:
    jobs = [await client.submit("simulator", f"Story {n}", max_tokens=150) for n in range(5)]
    readers = [asyncio.create_task(read(job)) for job in jobs]
    await wait_until(lambda: all(handle_of(job).statistics().shown_tokens > 5 for job in jobs))
    await mesh.server.stop(kill=True)
    await mesh.server.start()
    texts = await asyncio.wait_for(asyncio.gather(*readers), 30)
    results = await asyncio.gather(*jobs)
    assert texts == [result.text for result in results]
    assert {result.status for result in results} == {"finished"}


async def test_a_result_too_large_for_a_message_comes_whole(tmp_path: Path) -> None:
    async with running_mesh(tmp_path / "nats") as mesh:
        mesh.server.extra = "max_payload: 16384"
        await mesh.server.stop()
        await mesh.server.start()
        await wait_until(lambda: mesh.connection.is_connected)
        await mesh.start_worker(SimulatorSettings(model="simulator", first_token_ms=0, between_tokens_ms=0))
        async with mesh_api.connect(mesh.url) as client:
            job = await client.submit("simulator", "Write much", max_tokens=5000)
            text = await read(job)
            result = await job
        stored = await mesh.result(job.id)
    assert result.usage.completion_tokens == 5000
    assert result.text == text
    assert len(text) > 16384
    assert stored is not None
    assert (stored.text, stored.embeddings) == ("", None)
    assert stored.object == f"default.{job.id}.1"


def test_the_blocking_client_is_the_same_client(tmp_path: Path) -> None:
    import threading

    started, stop = threading.Event(), threading.Event()
    found: dict[str, str] = {}

    def serve() -> None:
        async def run() -> None:
            async with running_mesh(tmp_path / "nats") as mesh:
                await mesh.start_worker()
                found["url"] = mesh.url
                started.set()
                await asyncio.to_thread(stop.wait)

        asyncio.run(run())

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        assert started.wait(20)
        with mesh_api.blocking.connect(found["url"]) as client:
            job = client.submit("simulator", "Hello", max_tokens=6)
            text = "".join(delta.text for delta in job)
            assert job.result(timeout=10).text == text
            assert client.generate("simulator", "Hello", max_tokens=2).status == "finished"
            assert client.job(job.id).result().text == text
            assert client.result(job.id).text == text
            assert len(client.embed("simulator", ["a"])) == 1
            assert client.workers()[0].model == "simulator"
            with pytest.raises(errors.InvalidRequestError):
                client.submit("simulator", "x", max_tokens=-1)
            long = client.submit("simulator", "Long", max_tokens=4000)
            for _ in long:
                break
            assert long.cancel() == "cancelled"
    finally:
        stop.set()
        thread.join(20)
