"""The same id again: one execution and one answer, whoever asks, when, and whatever died in between."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

import mesh as mesh_api
from mesh import errors
from mesh.broker import topology
from mesh.broker.stores.journal import events_of
from mesh.broker.topology import MeshSettings
from mesh.client.client import Client
from mesh.client.internal import core_of, handle_of
from mesh.client.job import Job
from mesh.engines.simulator.settings import SimulatorSettings
from mesh.job_key import JobKey
from mesh.protocol import codec
from mesh.protocol.codec import Encoding
from mesh.protocol.messages import Event, Result, Started
from tests.proxy import proxied
from tests.running import MODEL, RunningMesh, running_mesh, wait_until

ASKED: dict[str, Any] = {"prompt": "Tell me of the sea", "max_tokens": 12}


async def read(job: Job) -> str:
    return "".join([delta.text async for delta in job])


async def executions(mesh: RunningMesh, job: str) -> int:
    """How often the engine began the job, by its events and by those its readers do not see."""
    subject = f"mesh.sys.attempts.default.{job}"
    events = [*await mesh.history(job), *await read_events(mesh, subject)]
    return sum(isinstance(event, Started) for event in events)


async def read_events(mesh: RunningMesh, subject: str) -> list[Event]:
    return events_of(await mesh.broker.journal.read(subject))


async def stored(mesh: RunningMesh) -> int:
    """How many requests JetStream ever stored."""
    return int((await topology.stream_state(mesh.connection, "MESH_REQUESTS"))["last_seq"])


async def results_of(mesh: RunningMesh, job: str) -> int:
    return sum(isinstance(event, Result) for event in await mesh.history(job))


async def window_passes(mesh: RunningMesh) -> None:
    """Return when JetStream has forgotten every message id it had until now."""

    async def publish() -> bool:
        header = b"NATS/1.0\r\nNats-Msg-Id: default.probe\r\n\r\n"
        body = b'{"id": "probe", "prompt": "x", "max_tokens": 1}'
        _, payload = await mesh.connection.request(f"mesh.req.{MODEL}.standard.default.x", body, header)
        return not msgspec.json.decode(payload).get("duplicate")

    assert await publish()
    await wait_until(publish, 15)


@contextlib.asynccontextmanager
async def mesh_of(store: Path, **settings: Any) -> AsyncIterator[tuple[RunningMesh, Client]]:
    async with running_mesh(store, MeshSettings(lanes=1, **settings)) as mesh, mesh_api.connect(mesh.url) as client:
        yield mesh, client


async def test_the_same_id_while_it_runs_joins_the_first(mesh: RunningMesh, client: Client) -> None:
    first = await client.submit(MODEL, **ASKED, id="twin")
    async for _ in first:
        break
    again = await client.submit(MODEL, **ASKED, id="twin")
    assert await read(again) == (await first).text
    assert await again == await first
    assert await executions(mesh, "twin") == 1


async def test_fifty_at_once_from_several_clients_in_both_encodings_run_once(mesh: RunningMesh) -> None:
    async with contextlib.AsyncExitStack() as stack:
        clients = [
            await stack.enter_async_context(mesh_api.connect(mesh.url, encoding=encoding))
            for encoding in ("json", "msgpack", "json", "msgpack", "json")
        ]
        jobs = await asyncio.gather(
            *(each.submit(MODEL, **ASKED, id="fifty", stream=n % 3 != 0) for each in clients for n in range(10))
        )
        texts = await asyncio.gather(*map(read, jobs))
        results = await asyncio.gather(*jobs)
    assert {result.text for result in results} == set(texts) == {results[0].text}
    assert len({(result.worker, result.finished_unix_ms, result.attempts) for result in results}) == 1
    assert await executions(mesh, "fifty") == await results_of(mesh, "fifty") == 1
    assert await stored(mesh) == 1


@pytest.mark.parametrize("stream", [True, False])
async def test_the_same_id_after_its_result_is_answered_at_once(
    mesh: RunningMesh, client: Client, stream: bool
) -> None:
    first = await client.generate(MODEL, **ASKED, id="ended", stream=stream)
    again = await client.submit(MODEL, **ASKED, id="ended", stream=stream)
    assert handle_of(again).is_closed, "submit itself brought the Result"
    assert await again == first
    assert await read(await client.submit(MODEL, **ASKED, id="ended")) == first.text
    assert await executions(mesh, "ended") == 1


async def test_the_same_id_between_its_result_and_the_end_of_its_request_is_answered_at_once(tmp_path: Path) -> None:
    """The worker announces a Result before it acks: who asks again in between has missed the announcement."""
    async with mesh_of(tmp_path / "nats") as (mesh, client):
        first = await client.submit(MODEL, **ASKED, id="between")
        result = Result(id="between", tenant="default", model=MODEL, status="finished", text="done")
        store = mesh.broker.results
        assert await store.create(JobKey("default", "between"), codec.encode(result), ttl_ms=60_000)
        await mesh.append("between", result, last=0)
        assert await first == result
        assert await mesh.queued() == 1, "its request is still there"
        again = await client.submit(MODEL, **ASKED, id="between")
        assert handle_of(again).is_closed, "submit itself brought the Result"
        assert await again == result
        assert await read(again) == "done"


async def test_the_same_id_after_the_server_was_killed_is_not_run_again(tmp_path: Path) -> None:
    async with mesh_of(tmp_path / "nats") as (mesh, client):
        waiting = await client.submit(MODEL, **ASKED, id="queued")
        await mesh.server.stop(kill=True)
        during = asyncio.create_task(client.submit(MODEL, **ASKED, id="queued", timeout=20))
        await mesh.server.start()
        after = await client.submit(MODEL, **ASKED, id="queued", timeout=20)
        assert await stored(mesh) == 1
        await wait_until(lambda: mesh.connection.is_connected)
        await mesh.start_worker()
        texts = await asyncio.gather(*map(read, (waiting, await during, after)))
        assert set(texts) == {(await waiting).text}

        await mesh.wait_queue_empty()
        await mesh.server.stop(kill=True)
        await mesh.server.start()
        again = await client.submit(MODEL, **ASKED, id="queued", timeout=20)  # ids of removed messages are forgotten
        assert await again.result(timeout=10) == await waiting
        assert await executions(mesh, "queued") == 1


async def test_the_same_id_while_a_killed_server_comes_back_joins_the_running_job(tmp_path: Path) -> None:
    async with mesh_of(tmp_path / "nats") as (mesh, client):
        await mesh.start_worker()
        first = await client.submit(MODEL, "A long one", max_tokens=200, id="long")
        async for _ in first:
            break
        await mesh.server.stop(kill=True)
        again = asyncio.create_task(client.submit(MODEL, "A long one", max_tokens=200, id="long", timeout=20))
        await mesh.server.start()
        text = await read(await again)
        assert text == (await first.result(timeout=20)).text == (await (await again)).text
        assert await executions(mesh, "long") == await results_of(mesh, "long") == 1


@pytest.mark.parametrize("stream", [True, False])
async def test_the_same_id_after_the_duplicate_window_is_not_run_again(tmp_path: Path, stream: bool) -> None:
    async with mesh_of(tmp_path / "nats", duplicate_window_s=1) as (mesh, client):
        await mesh.start_worker(SimulatorSettings(model=MODEL, between_tokens_ms=20))
        long: dict[str, Any] = {"prompt": "A long one", "max_tokens": 400, "id": "running", "stream": stream}
        running = await client.submit(MODEL, **long)
        ended = await client.generate(MODEL, **ASKED, id="ended", stream=stream)
        await window_passes(mesh)
        before = await stored(mesh)
        async with asyncio.timeout(1.5):
            assert await (await client.submit(MODEL, **ASKED, id="ended", stream=stream)) == ended
        again = await client.submit(MODEL, **long)
        assert await stored(mesh) == before + 2, "both were stored anew"
        assert not handle_of(running).is_closed, "the job ended too soon for this test"
        texts = await asyncio.gather(read(again), read(running))
        assert await again == await running
        assert list(texts) == [(await running).text] * 2
        await mesh.wait_queue_empty()
        assert await executions(mesh, "ended") == await executions(mesh, "running") == 1


DIFFERENT = {
    "another prompt": {"prompt": "Tell me of the hills"},
    "more tokens": {"max_tokens": 13},
    "another temperature": {"temperature": 0.5},
    "a stop string": {"stop": ["x"]},
    "other metadata": {"metadata": {"team": "b"}},
}


@pytest.mark.parametrize("change", DIFFERENT.values(), ids=DIFFERENT.keys())
@pytest.mark.parametrize("encoding", ["json", "msgpack"])
async def test_the_same_id_for_something_else_is_refused(
    tmp_path: Path, change: dict[str, Any], encoding: Encoding
) -> None:
    async with mesh_of(tmp_path / "nats") as (mesh, client):
        first = await client.submit(MODEL, **ASKED, id="taken", metadata={"team": "a"})
        async with mesh_api.connect(mesh.url, encoding=encoding) as other:
            with pytest.raises(errors.InvalidRequestError, match=f"another {next(iter(change))}.*new id") as refused:
                await other.submit(MODEL, **{**ASKED, "metadata": {"team": "a"}, **change}, id="taken")
            assert refused.value.field == "id"
            assert "0 jobs open" in repr(other)
        await mesh.start_worker()
        assert (await first.result(timeout=10)).usage.completion_tokens == 12
        assert await executions(mesh, "taken") == 1


async def test_another_model_under_the_same_id_is_refused(tmp_path: Path) -> None:
    async with mesh_of(tmp_path / "nats") as (mesh, client):
        more = await topology.plan(mesh.broker, MeshSettings(lanes=1), ["other"])
        await topology.apply(mesh.connection, more)
        await client.submit(MODEL, **ASKED, id="taken")
        with pytest.raises(errors.InvalidRequestError, match="another model"):
            await client.submit("other", **ASKED, id="taken")


async def test_a_retry_may_count_its_deadline_anew_and_be_read_in_another_way(tmp_path: Path) -> None:
    """None of these is what is asked; and the first request's deadline is the one that bounds the wait."""
    async with mesh_of(tmp_path / "nats") as (mesh, client):
        first = await client.submit(MODEL, **ASKED, id="retry")
        soon: dict[str, Any] = {"deadline_unix_ms": 1_000, "result_ttl_ms": 60_000, "stream": False, "session": "s"}
        again = await client.submit(MODEL, **ASKED, id="retry", tier="interactive", **soon)
        assert handle_of(again).statistics().bound_in_s > 600
        await mesh.start_worker()
        assert await again.result(timeout=10) == await first
        assert await executions(mesh, "retry") == 1


async def test_the_same_id_for_something_else_after_the_first_ended_is_told_by_what_the_result_says(
    mesh: RunningMesh, client: Client
) -> None:
    ended = await client.generate(MODEL, **ASKED, id="ended", metadata={"team": "a"})
    with pytest.raises(errors.InvalidRequestError, match="another metadata"):
        await client.submit(MODEL, **ASKED, id="ended", metadata={"team": "b"})
    assert await (await client.submit(MODEL, **ASKED, id="ended", metadata={"team": "a"})) == ended


async def test_the_same_id_for_something_else_after_the_duplicate_window_ends_in_an_error_for_one(
    tmp_path: Path,
) -> None:
    """NATS takes it as new; whose request runs is told by the job's first event, and the other's caller is told."""
    async with mesh_of(tmp_path / "nats", duplicate_window_s=1) as (mesh, client):
        await mesh.start_worker(SimulatorSettings(model=MODEL, between_tokens_ms=20, capacity=1))
        running = await client.submit(MODEL, "A long one", max_tokens=400, id="running")
        await wait_until(mesh_has_begun(mesh, "running"))
        await client.submit(MODEL, "Waits its turn", max_tokens=2, id="waits")
        await window_passes(mesh)
        late = await client.submit(MODEL, "Something else", max_tokens=400, id="running")
        with pytest.raises(errors.InvalidRequestError, match="another prompt") as refused:
            await late.result(timeout=20)
        assert refused.value.field == "id"
        assert (await running.result(timeout=30)).usage.completion_tokens == 400


def mesh_has_begun(mesh: RunningMesh, job: str) -> Callable[[], Awaitable[bool]]:
    async def found() -> bool:
        return bool(await mesh.history(job))

    return found


async def test_an_id_whose_answer_is_kept_no_longer_says_so_at_once(mesh: RunningMesh, client: Client) -> None:
    await client.generate(MODEL, **ASKED, id="short", result_ttl_ms=1000)
    await wait_until(lambda: mesh.result_is_gone("short"), 10)
    async with asyncio.timeout(2):
        again = await client.submit(MODEL, **ASKED, id="short")  # the journal has it still
        assert (await again).status == "finished"
        await mesh.connection.request("$JS.API.STREAM.PURGE.MESH_EVENTS")
        with pytest.raises(errors.ResultNotFoundError, match="result_ttl_ms"):
            await client.submit(MODEL, **ASKED, id="short")


async def test_a_submit_whose_acknowledgement_is_lost_is_stored_once_and_read_by_its_sender(mesh: RunningMesh) -> None:
    async with proxied(mesh.server.port) as proxy, mesh_api.connect(proxy.url) as client:
        await client.generate(MODEL, "Warm up", max_tokens=1)
        before = await stored(mesh)
        proxy.hold_answers()
        submitting = asyncio.create_task(client.submit(MODEL, **ASKED, timeout=20))

        async def is_stored() -> bool:
            return await stored(mesh) == before + 1

        await wait_until(is_stored)
        proxy.cut()
        job = await submitting
        assert await read(job) == (await job).text
        assert await stored(mesh) == before + 1
        assert await executions(mesh, job.id) == 1


async def test_a_first_submit_asks_nats_for_one_thing(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """The comparison costs only those who send an id twice."""
    await client.generate(MODEL, "Warm up", max_tokens=1)
    sent = []
    connection = core_of(client).connection
    publish = connection.publish

    def recorded(subject: str, *arguments: Any, **more: Any) -> None:
        sent.append(subject)
        publish(subject, *arguments, **more)

    monkeypatch.setattr(connection, "publish", recorded)
    job = await client.submit(MODEL, **ASKED)
    assert [each.split(".")[1] for each in sent] == ["req"]
    assert (await job).status == "finished"
    named = await client.submit(MODEL, **ASKED, id="named")
    assert (await named).status == "finished"
    assert len(sent) == 3, sent  # and one look whether it ended longer ago than NATS remembers ids
    await client.submit(MODEL, **ASKED, id="named")
    assert len(sent) > 4
