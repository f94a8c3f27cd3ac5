"""What looks after handles that hear nothing: it finds the Results of many with few questions, or one by one."""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from mesh.broker import topology
from mesh.broker.broker import Broker
from mesh.broker.stores.results import MOST_AT_ONCE, ResultStore, Stored
from mesh.broker.transport.connection import Connection, connect
from mesh.broker.transport.options import ConnectOptions
from mesh.client.internal import ClientCore
from mesh.client.poller import FEW
from mesh.job_key import JobKey
from mesh.protocol import codec, headers
from mesh.protocol.messages import Request, Result
from mesh.protocol.subjects import Names
from mesh.server import EmbeddedServer
from tests.running import MODEL

MANY = MOST_AT_ONCE + 2 * FEW  # a batch, and a part of another
FOUND_S = 10.0


@dataclass
class Watched:
    """A client, and whom the store was asked about one by one."""

    keeper: Connection  # of a user who may do everything
    client: ClientCore
    may_batch: bool
    asked: list[str] = field(default_factory=list)

    async def end_unheard(self, jobs: list[str]) -> None:
        """Store Results that nobody announces."""
        store = ResultStore(Broker(self.keeper, Names()))
        for job in jobs:
            result = Result(id=job, status="finished", tenant="default", model=MODEL, text=f"of {job}")
            assert await store.create(JobKey("default", job), codec.encode(result), 60_000)


@pytest.fixture(params=["allowed", "refused"])
async def watched(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Watched]:
    """A mesh without workers. `refused`: the client's user may read one Result at a time only, as a tenant's may."""
    extra = """
        authorization { users: [
            { user: keeper, password: x }
            { user: allowed, password: x }
            { user: refused, password: x, permissions: { publish: { deny: "$JS.API.DIRECT.GET.KV_mesh_results" } } }
        ] }"""
    server = EmbeddedServer(tmp_path / "nats", extra=extra)
    await server.start()

    def user(name: str) -> ConnectOptions:
        return ConnectOptions(servers=(server.url,), user=name, password="x")

    async with connect(user("keeper")) as keeper, connect(user(request.param)) as connection:
        changes = await topology.plan(Broker(keeper, Names()), topology.MeshSettings(), [MODEL])
        await topology.apply(keeper, changes)
        broker = Broker(connection, Names())
        client = ClientCore(broker, "default", "json", server.url)
        found = Watched(keeper, client, request.param == "allowed")
        check = broker.results.check

        def counted(key: JobKey, on_found: Callable[[Stored], None]) -> None:
            found.asked.append(key.id)
            check(key, on_found)

        broker.results.check = counted  # type: ignore[method-assign]
        yield found
        await client.close()
    await server.stop()


async def test_results_that_nobody_announced_are_found_for_all_handles(watched: Watched) -> None:
    client = watched.client
    jobs = [await client.submit(MODEL, Request(prompt="Hello.")) for _ in range(MANY)]
    await watched.end_unheard([job.id for job in jobs[:-1]])
    running = asyncio.create_task(client.poller.run())
    async with asyncio.timeout(FOUND_S):
        results = [await job.result() for job in jobs[:-1]]
    running.cancel()
    assert [result.text for result in results] == [f"of {job.id}" for job in jobs[:-1]]
    assert not jobs[-1].is_closed
    if watched.may_batch:
        assert len(watched.asked) <= FEW, "they were asked for one by one"
    else:
        assert {job.id for job in jobs[:-1]} <= set(watched.asked)


async def test_after_a_reconnect_all_handles_are_looked_after_at_once(watched: Watched) -> None:
    client = watched.client
    first = await client.submit(MODEL, Request(prompt="Hello."))
    twin = client.poller.open(client, first.id, FOUND_S, is_new=True)
    jobs = [first, *[await client.submit(MODEL, Request(prompt="Hello.")) for _ in range(MANY)]]
    await watched.end_unheard([job.id for job in jobs])
    jobs.append(twin)
    client.poller.connection_changed(True)
    async with asyncio.timeout(FOUND_S):
        results = [await job.result() for job in jobs]
    assert [result.text for result in results] == [f"of {job.id}" for job in jobs]
    assert (not watched.asked) is watched.may_batch


async def test_the_marker_of_a_deleted_result_is_none(watched: Watched) -> None:
    client = watched.client
    jobs = [await client.submit(MODEL, Request(prompt="Hello.")) for _ in range(FEW + 1)]
    await watched.end_unheard([jobs[0].id])
    deleted = Names().result_key(JobKey("default", jobs[0].id))
    await watched.keeper.request(deleted, b"", headers.block(("KV-Operation", "DEL")))
    await watched.end_unheard([job.id for job in jobs[1:]])
    client.poller.connection_changed(True)
    async with asyncio.timeout(FOUND_S):
        for job in jobs[1:]:
            assert (await job.result()).text == f"of {job.id}"
    assert not jobs[0].is_closed
