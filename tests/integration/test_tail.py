"""Following jobs live: each is told whole, once and in order, whenever somebody comes and whatever is lost."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

import mesh as api
from mesh.broker.broker import Broker
from mesh.broker.transport.connection import connect
from mesh.broker.transport.options import ConnectOptions
from mesh.control.jobs import tail as tail_module
from mesh.control.jobs.tail import EventTail, TailEvent
from mesh.engines.simulator.settings import SimulatorSettings
from mesh.errors import ResultNotFoundError
from mesh.job_key import JobKey
from mesh.protocol import codec
from mesh.protocol.messages import Delta, Result, Started
from mesh.worker.worker import WorkerOptions
from tests.proxy import proxied
from tests.running import MODEL, RunningMesh, running_mesh, wait_until

SLOW = SimulatorSettings(model=MODEL, between_tokens_ms=20.0)


@pytest.fixture
async def slow(tmp_path: Path) -> AsyncIterator[RunningMesh]:
    """A mesh with one worker that takes 20 ms a token."""
    async with running_mesh(tmp_path / "nats") as mesh:
        await mesh.start_worker(SLOW, WorkerOptions(model=MODEL, name="w-one"))
        yield mesh


@contextlib.asynccontextmanager
async def tailing(mesh: RunningMesh, tenant: str, job: str = "*") -> AsyncIterator[EventTail]:
    tail = EventTail(mesh.broker, tenant, job)
    try:
        yield tail
    finally:
        tail.close()


async def until_ended(tail: EventTail, count: int) -> dict[str, list[TailEvent]]:
    """What is told until so many jobs have ended, by job."""
    told: dict[str, list[TailEvent]] = {}
    async with asyncio.timeout(15), contextlib.aclosing(tail.follow()) as events:
        async for each in events:
            if each is not None:
                told.setdefault(each.job, []).append(each)
            if sum(isinstance(of[-1].event, Result) for of in told.values()) == count:
                return told
    raise AssertionError("it does not end by itself")


def check_whole(told: list[TailEvent]) -> None:
    """One attempt from its first token to its Result, each token once."""
    first, *deltas, last = [each.event for each in told]
    assert isinstance(first, Started)
    assert isinstance(last, Result)
    index, text = 0, ""
    for delta in deltas:
        assert isinstance(delta, Delta)
        assert delta.index == index
        index += len(delta.token_ids)
        text += delta.text
    assert text == last.text
    assert index == last.usage.completion_tokens


async def test_all_jobs_of_a_tenant_are_told_and_no_other(slow: RunningMesh) -> None:
    async with (
        tailing(slow, "a") as tail,
        api.connect(slow.url, tenant="a") as mine,
        api.connect(slow.url, tenant="b") as other,
    ):
        for client, job in ((mine, "one"), (other, "other"), (mine, "two")):
            await client.submit(MODEL, job, id=job, max_tokens=10, ignore_eos=True)
        told = await until_ended(tail, 2)
    assert set(told) == {"one", "two"}
    for each in told.values():
        check_whole(each)


async def test_a_job_that_had_begun_is_told_from_its_first_token(slow: RunningMesh) -> None:
    async with api.connect(slow.url) as client:
        job = await client.submit(MODEL, "x", id="early", max_tokens=60, ignore_eos=True)
        async for delta in job:
            if delta.index > 10:
                break
        async with tailing(slow, "*") as tail:
            told = await until_ended(tail, 1)
    check_whole(told["early"])


async def test_what_did_not_fit_is_read_back(slow: RunningMesh, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tail_module, "MAX_WAITING", 2)
    async with tailing(slow, "default") as tail, api.connect(slow.url) as client:
        for job in ("one", "two"):
            await client.generate(MODEL, "x", id=job, max_tokens=30, ignore_eos=True, stream=True)
        told = await until_ended(tail, 2)
    check_whole(told["one"])
    check_whole(told["two"])  # of which nothing was heard in time


async def test_what_was_lost_with_the_connection_is_read_back(slow: RunningMesh) -> None:
    async with (
        proxied(slow.server.port) as proxy,
        connect(ConnectOptions(servers=(proxy.url,), name="tail")) as connection,
        api.connect(slow.url) as client,
    ):
        tail, told = EventTail(Broker(connection, slow.names), "default"), list[TailEvent]()
        job = await client.submit(MODEL, "x", id="cut", max_tokens=60, ignore_eos=True)
        async with asyncio.timeout(20), contextlib.aclosing(tail.follow()) as events:
            while not told or not isinstance(told[-1].event, Result):
                each = await anext(events)
                told += [each] if each is not None else []
                if len(told) == 10:
                    proxy.hold_answers()
                    await job  # it ends while nobody hears it
                    proxy.cut()
        tail.close()
    check_whole(told)


async def test_one_job_is_followed_to_its_result_and_no_further(slow: RunningMesh) -> None:
    async with tailing(slow, "default", "it") as tail, api.connect(slow.url) as client:
        await client.submit(MODEL, "x", id="it", max_tokens=10, ignore_eos=True)
        async with asyncio.timeout(15):
            told = [each async for each in tail.follow_job(JobKey("default", "it")) if each is not None]
    check_whole(told)


async def test_a_queued_job_is_waited_for(tmp_path: Path) -> None:
    async with running_mesh(tmp_path / "nats") as mesh, api.connect(mesh.url) as client:
        await client.submit(MODEL, "x", id="later", max_tokens=3, ignore_eos=True)
        async with tailing(mesh, "default", "later") as tail, asyncio.timeout(15):
            told, is_served = [], False
            async for each in tail.follow_job(JobKey("default", "later")):
                if each is not None:
                    told.append(each)
                elif not is_served:  # nothing came for a while
                    is_served = bool(await mesh.start_worker())
    assert is_served
    check_whole(told)


async def test_a_job_that_streams_nothing_ends_with_its_result(slow: RunningMesh) -> None:
    async with api.connect(slow.url) as client:
        await client.submit(MODEL, "x", id="quiet", max_tokens=20, ignore_eos=True, stream=False)
        async with tailing(slow, "default", "quiet") as tail, asyncio.timeout(15):
            told = [each async for each in tail.follow_job(JobKey("default", "quiet")) if each is not None]
    assert [type(each.event) for each in told] == [Result]


async def test_a_job_whose_events_are_gone_is_told_by_its_result(slow: RunningMesh) -> None:
    async with api.connect(slow.url) as client:
        await client.generate(MODEL, "x", id="old", max_tokens=5, stream=True)
    await slow.wait_queue_empty()
    await slow.connection.request("$JS.API.STREAM.PURGE.MESH_EVENTS")
    async with tailing(slow, "default", "old") as tail, asyncio.timeout(15):
        told = [each async for each in tail.follow_job(JobKey("default", "old")) if each is not None]
    assert [isinstance(each.event, Result) and each.event.status for each in told] == ["finished"]


async def test_an_unknown_job_is_refused(slow: RunningMesh) -> None:
    async with tailing(slow, "default", "nobody") as tail:
        with pytest.raises(ResultNotFoundError, match="nobody"):
            await anext(tail.follow_job(JobKey("default", "nobody")))


async def test_a_takeover_is_told_where_it_happens(slow: RunningMesh) -> None:
    events = [
        Started(id="moved", attempt=1, index=0, worker="w-1", unix_ms=1),
        Delta(id="moved", attempt=1, index=0, text="a", token_ids=[1]),
        Started(id="moved", attempt=2, index=1, worker="w-2", unix_ms=1),
        Delta(id="moved", attempt=2, index=1, text="b", token_ids=[2], finish_reason="stop"),
        Result(id="moved", tenant="t", model=MODEL, status="finished", text="ab", attempts=2),
    ]
    async with tailing(slow, "t") as tail:
        for event in events:
            await slow.connection.request(slow.names.events(JobKey("t", "moved")), codec.encode(event))
        told = await until_ended(tail, 1)
    assert [each.event for each in told["moved"]] == events


async def test_what_is_forgotten_of_too_many_jobs_is_told_again_and_not_lost(
    slow: RunningMesh, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tail_module, "MAX_JOBS", 1)
    async with tailing(slow, "default") as tail, api.connect(slow.url) as client:
        for job in ("one", "two"):
            await client.submit(MODEL, job, id=job, max_tokens=5, ignore_eos=True)
        told = await until_ended(tail, 2)
    for each in told.values():
        deltas = [every.event for every in each if isinstance(every.event, Delta)]
        assert {delta.index for delta in deltas} >= {0, 4}


async def test_a_closed_tail_hears_nothing(slow: RunningMesh) -> None:
    async with tailing(slow, "default") as tail:
        tail.close()
        async with api.connect(slow.url) as client:
            await client.generate(MODEL, "x", max_tokens=2, stream=True)
        assert await anext(tail.follow()) is None
    await wait_until(lambda: slow.connection.is_connected)
