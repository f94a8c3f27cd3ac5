"""The reader's side: cut off, late, slow, many, or waiting for what cannot come.

A reader sees each token once and in order; and no wait of the client library is without a bound, whatever is gone.
"""

import asyncio
import contextlib
import os
import shutil
import signal
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import mesh as mesh_api
from mesh import errors
from mesh.broker import topology
from mesh.broker.topology import MeshSettings
from mesh.client.assembly import Restarted
from mesh.client.client import Client
from mesh.client.internal import INBOX_EVENTS, PAGE_EVENTS, ClientCore, core_of, handle_of
from mesh.client.job import Job
from mesh.engines.simulator.settings import SimulatorSettings
from mesh.job_key import JobKey
from mesh.protocol import codec
from mesh.protocol.messages import Result
from tests.proxy import proxied
from tests.running import CRASHING_WORKER, MODEL, RunningMesh, running_mesh, wait_until

SLOWLY = SimulatorSettings(model=MODEL, between_tokens_ms=10)


async def read(job: Job) -> str:
    text = ""
    async for delta in job:
        text = "" if isinstance(delta, Restarted) else text + delta.text
    return text


async def read_strictly(job: Job, index: int = 0) -> tuple[str, list[int]]:
    """What a job shows: each token once, in order, without a restart."""
    text = ""
    ids: list[int] = []
    async for delta in job:
        assert not isinstance(delta, Restarted)
        assert delta.index == index + len(ids)
        text, ids = text + delta.text, ids + delta.token_ids
    return text, ids


def shown_tokens(job: Job) -> int:
    return handle_of(job).statistics().shown_tokens


def is_beyond(job: Job, index: int) -> bool:
    return shown_tokens(job) > index


def held_events(job: Job) -> int:
    """Events and deltas in memory that its reader has not taken."""
    found = handle_of(job).statistics()
    return found.inbox_events + found.ready


async def purge_events(mesh: RunningMesh) -> None:
    """As if they had reached the age at which the journal drops them."""
    await mesh.connection.request("$JS.API.STREAM.PURGE.MESH_EVENTS")


@contextlib.asynccontextmanager
async def mesh_of(store: Path, settings: SimulatorSettings | None = None) -> AsyncIterator[tuple[RunningMesh, Client]]:
    """A mesh with one worker, and a client."""
    async with running_mesh(store, MeshSettings(lanes=1)) as mesh, mesh_api.connect(mesh.url) as client:
        if settings is not None:
            await mesh.start_worker(settings)
        yield mesh, client


# Cut off.


async def test_a_reader_that_is_cut_off_again_and_again_sees_each_token_once(tmp_path: Path) -> None:
    async with mesh_of(tmp_path / "nats", SLOWLY) as (mesh, _), proxied(mesh.server.port) as proxy:
        async with mesh_api.connect(proxy.url) as client:
            job = await client.submit(MODEL, "A long one", max_tokens=150)
            reading = asyncio.create_task(read_strictly(job))
            for index in (10, 50, 90, 120):
                await wait_until(partial(is_beyond, job, index))
                proxy.cut()
            text, ids = await reading
            assert text == (await job).text
            assert len(ids) == 150
        assert proxy.connections == 5


async def test_a_reader_whose_connection_goes_silent_finds_out_and_goes_on(tmp_path: Path) -> None:
    """No end and no reset: only the pings tell."""
    async with (
        mesh_of(tmp_path / "nats", SLOWLY) as (mesh, _),
        proxied(mesh.server.port) as proxy,
        mesh_api.connect(proxy.url) as client,
    ):
        job = await client.submit(MODEL, "A long one", max_tokens=100)
        reading = asyncio.create_task(read_strictly(job))
        await wait_until(lambda: shown_tokens(job) > 10)
        proxy.hold_answers()
        await wait_until(lambda: not core_of(client).connection.is_connected, 10)
        proxy.release()
        text, _ = await asyncio.wait_for(reading, 10)
        assert text == (await job).text


async def test_a_result_that_came_and_went_while_its_reader_was_cut_off_is_read_from_the_journal(
    tmp_path: Path,
) -> None:
    async with (
        mesh_of(tmp_path / "nats", SLOWLY) as (mesh, _),
        proxied(mesh.server.port) as proxy,
        mesh_api.connect(proxy.url) as client,
    ):
        job = await client.submit(MODEL, "Short", max_tokens=20, result_ttl_ms=1000, id="short", stream=False)
        proxy.hold_answers()
        await mesh.wait_queue_empty()
        await wait_until(lambda: mesh.result_is_gone("short"), 10)
        proxy.cut()
        assert (await job.result(timeout=15)).usage.completion_tokens == 20


# Late, and from an index.


async def test_a_reader_resumes_from_any_chunk_it_had(tmp_path: Path) -> None:
    """What it had and what it gets make the whole, while the job runs and when it ended."""
    async with mesh_of(tmp_path / "nats", SLOWLY) as (mesh, client):
        job = await client.submit(MODEL, "A story", max_tokens=60, id="story")
        had = [("", 0)]
        live = []
        async with mesh_api.connect(mesh.url) as other:
            async for delta in job:
                had.append((had[-1][0] + delta.text, delta.index + len(delta.token_ids)))
                if len(had) % 3 == 0:
                    text, index = had[-1]
                    live.append(
                        (text, index, asyncio.create_task(read_strictly(other.job("story", index=index), index)))
                    )
            whole = (await job).text
            assert len(live) > 5
            for text, index, reading in live:
                rest, ids = await reading
                assert text + rest == whole
                assert index + len(ids) == 60
            for text, index in had:
                rest, ids = await read_strictly(other.job("story", index=index), index)
                assert text + rest == whole
                assert index + len(ids) == 60


async def test_a_reader_that_resumes_where_the_events_are_gone_begins_anew_and_is_told(tmp_path: Path) -> None:
    async with mesh_of(tmp_path / "nats", SLOWLY) as (mesh, client):
        result = await client.generate(MODEL, "A story", max_tokens=20, id="story", stream=True)
        await purge_events(mesh)
        shown = [each async for each in client.job("story", index=12)]
        assert isinstance(shown[0], Restarted)
        assert "".join(each.text for each in shown) == result.text
        with pytest.raises(ValueError, match="-1"):
            client.job("story", index=-1)


async def test_the_events_are_kept_no_longer_and_the_result_is(tmp_path: Path) -> None:
    async with mesh_of(tmp_path / "nats", SLOWLY) as (mesh, client):
        result = await client.generate(MODEL, "A story", max_tokens=20, id="story", stream=True)
        await purge_events(mesh)
        assert await read(client.job("story")) == result.text
        assert await client.job("story") == result


async def test_many_readers_come_at_any_time_and_see_the_same(tmp_path: Path) -> None:
    async with mesh_of(tmp_path / "nats", SLOWLY) as (mesh, client), contextlib.AsyncExitStack() as stack:
        others = [await stack.enter_async_context(mesh_api.connect(mesh.url)) for _ in range(4)]
        job = await client.submit(MODEL, "For all", max_tokens=100, id="all")
        readers = []
        async for delta in job:
            if delta.index % 10 == 0:
                readers += [asyncio.create_task(read_strictly(each.job("all"))) for each in others]
        seen = await asyncio.gather(*readers)
        assert len(seen) >= 20
        assert {text for text, _ in seen} == {(await job).text}


# Slow, interrupted, or twice on one handle.


async def test_a_slow_reader_holds_little_slows_nobody_and_misses_nothing(tmp_path: Path) -> None:
    fast = SimulatorSettings(model=MODEL, first_token_ms=0, between_tokens_ms=1)
    async with mesh_of(tmp_path / "nats", fast) as (_, client):
        job = await client.submit(MODEL, "Much", max_tokens=1500, id="much")
        slow, quick = aiter(job), asyncio.create_task(read_strictly(client.job("much")))
        first = await anext(slow)
        most = 0
        while not quick.done():
            most = max(most, held_events(job))
            await asyncio.sleep(0.01)
        assert len((await quick)[1]) == 1500, "the other reader was not held up"
        assert handle_of(job).statistics().journal_sequence == 0, "the slow one has read nothing back yet"
        text = first.text
        async for delta in slow:
            text += delta.text
            most = max(most, held_events(job))
        assert text == (await job).text
        assert most <= INBOX_EVENTS + PAGE_EVENTS


@pytest.mark.parametrize("is_live", [True, False])
async def test_a_reader_that_leaves_and_comes_back_goes_on_where_it_was(tmp_path: Path, is_live: bool) -> None:
    """Left by a break, a time limit of its own or of the handle; live, and while it reads the journal."""
    async with mesh_of(tmp_path / "nats", SLOWLY) as (_, client):
        job = await client.submit(MODEL, "A story", max_tokens=120, id="story")
        if not is_live:
            await job
            job = client.job("story")
        texts = []
        for _ in range(10):
            async for delta in job:
                texts.append(delta.text)
                if len(texts) % 5 == 0:
                    break
            with contextlib.suppress(TimeoutError, errors.WaitTimeoutError):
                async with asyncio.timeout(0.001):
                    texts += [delta.text for delta in [await anext(job.deltas())]]
            with contextlib.suppress(errors.WaitTimeoutError):
                texts += [delta.text for delta in [await anext(job.deltas(timeout=0.001))]]
        assert not handle_of(job).statistics().is_complete
        rest = await read(job)
        assert "".join(texts) + rest == (await job).text


async def test_two_iterations_of_one_handle_do_not_share_its_tokens_in_silence(tmp_path: Path) -> None:
    async with mesh_of(tmp_path / "nats", SLOWLY) as (_, client):
        job = await client.submit(MODEL, "A story", max_tokens=50)
        older = asyncio.create_task(read(job))
        await wait_until(lambda: handle_of(job).statistics().has_reader)
        newer = asyncio.create_task(read(job))
        with pytest.raises(RuntimeError, match=r"client\.job"):
            await older
        assert await newer == (await job).text


# What cannot come.


async def test_a_result_kept_no_longer_is_an_error_and_not_a_wait(tmp_path: Path) -> None:
    async with mesh_of(tmp_path / "nats", SLOWLY) as (mesh, client):
        await client.generate(MODEL, "Forget me", max_tokens=2, result_ttl_ms=1000, id="short")
        await wait_until(lambda: mesh.result_is_gone("short"), 10)
        async with asyncio.timeout(5):
            late = await client.job("short")
            assert late.status == "finished", "while the journal has it, it is found there"
            await purge_events(mesh)
            with pytest.raises(errors.ResultNotFoundError, match="result_ttl_ms"):
                await client.job("short")
            with pytest.raises(errors.ResultNotFoundError, match="result_ttl_ms"):
                await read(client.job("short"))
            with pytest.raises(errors.ResultNotFoundError, match="result_ttl_ms"):
                await client.result("short")


@pytest.mark.parametrize("is_served", [True, False])
async def test_an_unknown_id_is_an_error_with_workers_and_without(tmp_path: Path, is_served: bool) -> None:
    async with mesh_of(tmp_path / "nats", SLOWLY if is_served else None) as (_, client), asyncio.timeout(5):
        with pytest.raises(errors.ResultNotFoundError, match=r"unknown.*never existed"):
            await client.job("never-was")
        with pytest.raises(errors.ResultNotFoundError, match="unknown"):
            await read(client.job("never-was"))


async def test_a_job_that_waits_for_a_worker_is_not_called_unknown(tmp_path: Path) -> None:
    async with mesh_of(tmp_path / "nats") as (mesh, client):
        await client.submit(MODEL, "Wait", max_tokens=3, id="waits")
        async with mesh_api.connect(mesh.url) as other:
            job = other.job("waits")
            await wait_until(lambda: not handle_of(job).is_doubtful)
            assert not handle_of(job).is_closed
            await mesh.start_worker(SLOWLY)
            assert (await job.result(timeout=10)).status == "finished"


async def test_a_job_that_ends_while_it_is_asked_for_is_not_called_unknown(tmp_path: Path) -> None:
    """A worker looks into journal, store and queue one after the other; the job may end between two looks."""
    async with mesh_of(tmp_path / "nats") as (mesh, client):
        store = mesh.broker.results
        result = Result(id="ends", tenant="default", model=MODEL, status="finished", text="There it is.")
        answers = []

        async def end_and_answer(to: str) -> None:
            await store.create(JobKey("default", "ends"), codec.encode(result), 60_000)
            mesh.connection.publish(to, b'{"id": "ends", "status": "unknown"}')

        def asked(subject: bytes, reply: bytes, payload: bytes, header: bytes) -> None:
            answers.append(asyncio.create_task(end_and_answer(reply.decode())))

        mesh.connection.subscribe("mesh.ctl.default.status.ends", asked)
        await mesh.connection.request("$JS.API.INFO")
        assert await client.job("ends").result(timeout=5) == result
        assert len(answers) == 1


async def test_a_job_that_a_server_lost_with_its_store_is_an_error_and_not_a_wait(tmp_path: Path) -> None:
    async with mesh_of(tmp_path / "nats") as (mesh, client):
        job = await client.submit(MODEL, "Lost")
        await mesh.server.stop(kill=True)
        shutil.rmtree(mesh.server.store / "jetstream")
        await mesh.server.start()
        await wait_until(lambda: mesh.connection.is_connected)
        settings = MeshSettings(lanes=1)
        await topology.apply(mesh.connection, await topology.plan(mesh.broker, settings, [MODEL]))
        with pytest.raises(errors.ResultNotFoundError, match="unknown"):
            await job.result(timeout=20)


async def test_a_job_whose_reader_was_cut_off_while_it_waits_is_not_called_unknown(tmp_path: Path) -> None:
    async with mesh_of(tmp_path / "nats") as (mesh, client):
        job = await client.submit(MODEL, "Kept", max_tokens=3)
        await mesh.server.stop(kill=True)
        await mesh.server.start()
        await wait_until(lambda: handle_of(job).is_doubtful)
        await wait_until(lambda: not handle_of(job).is_doubtful)
        assert not handle_of(job).is_closed
        await wait_until(lambda: mesh.connection.is_connected)
        await mesh.start_worker(SLOWLY)
        assert (await job.result(timeout=10)).status == "finished"


# Bounds.

CALLS: dict[str, Callable[[Client, Job], Awaitable[object]]] = {
    "result": lambda client, job: job.result(timeout=0.5),
    "chunk": lambda client, job: anext(job.deltas(timeout=0.5)),
    "chunk of a job by id": lambda client, job: anext(client.job("other", timeout=0.5).deltas()),
    "status": lambda client, job: job.status(timeout=0.5),
    "cancel": lambda client, job: job.cancel(timeout=0.5),
    "submit": lambda client, job: client.submit(MODEL, "Hello", timeout=0.5),
    "submit again": lambda client, job: client.submit(MODEL, "For ever", max_tokens=5000, id="bound", timeout=0.5),
    "generate": lambda client, job: client.generate(MODEL, "Hello", timeout=0.5),
    "embed": lambda client, job: client.embed(MODEL, "Hello", timeout=0.5),
    "stored result": lambda client, job: client.result("bound", timeout=0.5),
    "workers": lambda client, job: client.workers(timeout=0.5),
}
BOUND_S = 1.5  # half a second, the resolution of timeouts, and a busy machine
ANSWERED_WITHOUT_WORKERS = ("submit", "submit again", "workers")
NEXT_STEP = (
    "is the id right",
    "has not ended",
    "client.job(id)",
    "mesh worker",
    "submit it again",
    "no connection to",
    "the connection broke",
    "did not say",
    "no answer from",
)


@pytest.mark.parametrize("loss", ["the server is killed", "the server is frozen", "the worker is killed"])
async def test_every_wait_ends_within_the_bound_it_was_given(tmp_path: Path, loss: str) -> None:
    async with running_mesh(tmp_path / "nats", MeshSettings(lanes=1)) as mesh:
        worker = await mesh.start_child(CRASHING_WORKER)
        try:
            async with mesh_api.connect(mesh.url) as client:
                job = await client.submit(MODEL, "For ever", max_tokens=5000, id="bound")
                async for _ in job:
                    break
                worker.kill()
                await worker.wait()
                if loss == "the server is killed":
                    await mesh.server.stop(kill=True)
                elif loss == "the server is frozen":
                    assert mesh.server.process is not None
                    os.kill(mesh.server.process.pid, signal.SIGSTOP)
                with pytest.raises(errors.WaitTimeoutError):
                    async for _ in job.deltas(timeout=0.5):
                        pass
                for name, call in CALLS.items():
                    began = time.monotonic()
                    (outcome,) = await asyncio.gather(call(client, job), return_exceptions=True)
                    assert time.monotonic() - began < BOUND_S, name
                    if loss == "the worker is killed" and name in ANSWERED_WITHOUT_WORKERS:
                        assert not isinstance(outcome, Exception), name
                        continue
                    assert isinstance(outcome, errors.MeshError), name
                    assert outcome.retryable or isinstance(outcome, errors.ResultNotFoundError), (name, outcome)
                    assert any(word in str(outcome) for word in NEXT_STEP), (name, outcome)
                began = time.monotonic()
            assert time.monotonic() - began < 3, "closing"
        finally:
            if loss == "the server is frozen":
                assert mesh.server.process is not None
                os.kill(mesh.server.process.pid, signal.SIGCONT)


async def test_without_a_bound_of_the_callers_the_jobs_deadline_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Worker and server are killed: nobody is left to end the job as expired."""
    monkeypatch.setattr(ClientCore, "margin_s", 0.5)
    async with running_mesh(tmp_path / "nats", MeshSettings(lanes=1)) as mesh:
        worker = await mesh.start_child(CRASHING_WORKER)
        async with mesh_api.connect(mesh.url) as client:
            soon: dict[str, Any] = {"deadline_unix_ms": time.time_ns() // 1_000_000 + 1500}
            job = await client.submit(MODEL, "For ever", max_tokens=5000, **soon)
            reading = asyncio.create_task(read(job))
            await wait_until(lambda: shown_tokens(job) > 0)
            worker.kill()
            await mesh.server.stop(kill=True)
            async with asyncio.timeout(5):
                with pytest.raises(errors.WaitTimeoutError, match=r"deadline has passed.*mesh workers.*is away"):
                    await reading
                with pytest.raises(errors.WaitTimeoutError, match="deadline has passed"):
                    await job


async def test_a_deadline_that_nobody_is_there_to_keep_ends_the_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ClientCore, "margin_s", 0.3)
    async with mesh_of(tmp_path / "nats") as (mesh, client):
        soon: dict[str, Any] = {"deadline_unix_ms": time.time_ns() // 1_000_000 + 500}
        job = await client.submit(MODEL, "Nobody is there", id="late", **soon)
        with pytest.raises(errors.WaitTimeoutError, match=r"mesh workers.*goes on.*client\.job"):
            await asyncio.wait_for(job.result(), 5)
        await mesh.start_worker(SLOWLY)
        assert (await client.job("late").result(timeout=10)).status == "expired"


async def test_the_margin_is_longer_than_a_dead_workers_lease() -> None:
    assert 2 * MeshSettings().ack_wait_s < ClientCore.margin_s


async def test_connecting_to_a_port_that_says_nothing_ends(tmp_path: Path) -> None:
    async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    mute = await asyncio.start_server(say_nothing, "127.0.0.1", 0)
    url = f"nats://127.0.0.1:{mute.sockets[0].getsockname()[1]}"
    began = time.monotonic()
    with pytest.raises(errors.DisconnectedError, match=r"cannot reach NATS.*within 0\.5 s"):
        async with mesh_api.connect(url, timeout=0.5):
            pass
    assert time.monotonic() - began < BOUND_S
    mute.close()


async def test_leaving_the_client_ends_every_wait(tmp_path: Path) -> None:
    async with mesh_of(tmp_path / "nats") as (mesh, _):
        async with mesh_api.connect(mesh.url) as client:
            job = await client.submit(MODEL, "Nobody is there")
            waits = [asyncio.create_task(each) for each in (job.result(), read(job), read(client.job(job.id)))]
            await wait_until(lambda: handle_of(job).statistics().waits == 2)
        async with asyncio.timeout(2):
            outcomes = await asyncio.gather(*waits, return_exceptions=True)
        assert [type(each) for each in outcomes] == [errors.DisconnectedError] * 3
        with pytest.raises(errors.DisconnectedError):
            await job.result()


# The same without an event loop.


def test_a_blocking_client_has_the_same_bounds_and_the_same_readers(tmp_path: Path) -> None:
    with served(tmp_path / "nats") as url, mesh_api.blocking.connect(url) as client:
        job = client.submit(MODEL, "A story", max_tokens=30, id="story")
        texts = []
        for delta in job:
            texts.append(delta.text)
            if len(texts) == 5:
                break
        texts += [delta.text for delta in job.deltas(timeout=10)]
        assert "".join(texts) == job.result(timeout=10).text
        rest = [delta.text for delta in client.job("story", index=5)]
        assert "".join(texts).endswith("".join(rest))
        assert len(rest) < len(texts)
        assert client.submit(MODEL, "A story", max_tokens=30, id="story").result(timeout=5) == job.result()
        with pytest.raises(errors.InvalidRequestError, match="another metadata"):
            client.submit(MODEL, "A story", max_tokens=30, id="story", metadata={"x": 1})
        with pytest.raises(errors.ResultNotFoundError):
            client.job("never-was").result()
        long = client.submit(MODEL, "Long", max_tokens=5000)
        with pytest.raises(errors.WaitTimeoutError, match="goes on"):
            long.result(timeout=0.2)
        long.close()
        with pytest.raises(errors.DisconnectedError, match="closed"):
            long.result()
        client.job(long.id).cancel()
        with pytest.raises(errors.WaitTimeoutError, match="goes on"):
            client.generate(MODEL, "Long", max_tokens=5000, timeout=0.2)


def test_closing_a_blocking_client_ends_the_waits_of_other_threads(tmp_path: Path) -> None:
    with served(tmp_path / "nats") as url:
        outcomes: list[object] = []

        def wait(work: Callable[[], object]) -> None:
            try:
                outcomes.append(work())
            except BaseException as error:
                outcomes.append(error)

        with mesh_api.blocking.connect(url) as client:
            job = client.submit(MODEL, "Long", max_tokens=8000)
            iterating = iter(job)
            next(iterating)

            def read_all() -> None:
                for _ in iterating:
                    pass

            def submit_for_ever() -> None:
                while True:
                    client.submit(MODEL, "x", max_tokens=1)

            threads = [threading.Thread(target=wait, args=(each,)) for each in (job.result, read_all, submit_for_ever)]
            for thread in threads:
                thread.start()
            while not handle_of(job).statistics().waits:
                time.sleep(0.01)
        for thread in threads:
            thread.join(5)
            assert not thread.is_alive()
        assert [type(each) for each in outcomes] == [errors.DisconnectedError] * 3
        with pytest.raises(errors.DisconnectedError, match="closed"):
            client.workers()
        with pytest.raises(errors.DisconnectedError):
            job.result()


@contextlib.contextmanager
def served(store: Path) -> Iterator[str]:
    """A mesh with a worker in a thread of its own; its URL."""
    started, stop, found = threading.Event(), threading.Event(), {}

    async def run() -> None:
        async with running_mesh(store, MeshSettings(lanes=1)) as mesh:
            await mesh.start_worker(SLOWLY)
            found["url"] = mesh.url
            started.set()
            await asyncio.to_thread(stop.wait)

    thread = threading.Thread(target=lambda: asyncio.run(run()))
    thread.start()
    try:
        assert started.wait(20)
        yield found["url"]
    finally:
        stop.set()
        thread.join(20)
