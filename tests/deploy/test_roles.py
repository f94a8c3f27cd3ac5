"""The permissions of `nats/users.conf`, on a real server, are enough for each role's work, and no more."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

import mesh as library
from mesh.broker import topology
from mesh.broker.broker import Broker
from mesh.broker.topology import MeshSettings
from mesh.broker.transport.connection import Connection, connect
from mesh.broker.transport.options import ConnectOptions
from mesh.engines.simulator.engine import SimulatorEngine
from mesh.engines.simulator.settings import SimulatorSettings
from mesh.errors import UnauthorizedError
from mesh.hosting.host import host_worker
from mesh.protocol.subjects import Names
from mesh.worker.worker import Worker, WorkerOptions
from tests.deploy.servers import PASSWORDS, ConfServer, running

MODEL = "simulator"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ConfServer]:
    served = ConfServer("single.conf", tmp_path / "nats", PASSWORDS)
    with running(served):
        yield served


def as_user(server: ConfServer, user: str) -> ConnectOptions:
    return ConnectOptions(servers=(server.url,), user=user, password=PASSWORDS[f"MESH_{user.upper()}_PASSWORD"])


@pytest.fixture
async def declared(server: ConfServer) -> AsyncIterator[ConfServer]:
    """The mesh, declared by the operator."""
    async with connect(as_user(server, "operator")) as connection:
        settings = MeshSettings(lanes=1)
        await topology.apply(connection, await topology.plan(Broker(connection, Names()), settings))
        yield server


@pytest.fixture
async def worker(declared: ConfServer) -> AsyncIterator[Worker]:
    """A worker, as the worker's user: it declares its model's queue itself."""
    ready: asyncio.Future[Worker] = asyncio.get_running_loop().create_future()
    engine = SimulatorSettings(model=MODEL, embedding_dim=64)
    serving = asyncio.create_task(
        host_worker(
            lambda: SimulatorEngine(engine),
            as_user(declared, "worker"),
            WorkerOptions(model=MODEL, grace_s=5.0),
            on_ready=ready.set_result,
        )
    )
    both: set[asyncio.Future[Any]] = {serving, ready}
    await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
    if serving.done():
        serving.result()
    yield ready.result()
    ready.result().drain()
    await serving


def refusals(server: ConfServer) -> list[str]:
    """Return the refusals in the server's log."""
    return [line for line in server.log.splitlines() if "Violation" in line]


async def test_worker_and_client_need_no_more_than_they_have(declared: ConfServer, worker: Worker) -> None:
    async with library.connect(options=as_user(declared, "client")) as client:
        streamed = await client.submit(MODEL, "Once upon a time", max_tokens=8, temperature=0)
        assert [delta async for delta in streamed]
        assert (await client.generate(MODEL, "Once", max_tokens=4)).status == "finished"
        slow = await client.submit(MODEL, "x", max_tokens=500)
        assert await slow.cancel() == "cancelled"
        assert (await client.job(streamed.id)).status == "finished"
        lost = await client.submit(MODEL, "x", max_tokens=4, metadata={"simulate": {"fail_after": 0, "times": 99}})
        assert (await lost.result()).status == "failed"
        assert await client.workers()
        assert refusals(declared) == []


async def test_a_result_too_large_for_a_message_is_stored_and_read(declared: ConfServer, worker: Worker) -> None:
    async with library.connect(options=as_user(declared, "client")) as client:
        result = await client.generate(MODEL, input=[f"text {number}" for number in range(2048)])
        assert len(result.embeddings or ()) == 2048
    assert refusals(declared) == []


async def test_a_request_for_a_model_that_nobody_has_is_ended(declared: ConfServer, worker: Worker) -> None:
    async with connect(as_user(declared, "client")) as connection:
        await connection.request("mesh.req.nobody.standard.default.any", b'{"id": "j", "prompt": "x"}')
    async with library.connect(options=as_user(declared, "client")) as client:
        result = await client.job("j").result(timeout=10)
        assert result.error is not None
        assert result.error.code == "model_not_found"
    assert refusals(declared) == []


async def test_the_front_door_answers_a_client(declared: ConfServer, worker: Worker) -> None:
    async with connect(as_user(declared, "client")) as connection:
        _, answer = await connection.request(f"mesh.rpc.default.{MODEL}", b'{"prompt": "x", "max_tokens": 4}')
        assert b'"finished"' in answer
    assert refusals(declared) == []


STREAMS = ("MESH_REQUESTS", "MESH_EVENTS", "MESH_DEAD", "KV_mesh_results", "KV_mesh_workers")
DESTROYING = [f"$JS.API.STREAM.{verb}.{name}" for verb in ("DELETE", "PURGE", "UPDATE", "RESTORE") for name in STREAMS]
FOR_OPERATORS = [
    *DESTROYING,
    "$JS.API.STREAM.CREATE.OTHER",
    "$JS.API.STREAM.SNAPSHOT.MESH_REQUESTS",
    "$JS.API.STREAM.MSG.DELETE.MESH_EVENTS",
    "$JS.API.STREAM.MSG.DELETE.KV_mesh_results",
    "$JS.API.CONSUMER.DELETE.MESH_REQUESTS.simulator-standard-0",
    "$JS.API.CONSUMER.PAUSE.MESH_REQUESTS.simulator-standard-0",
    "$JS.API.CONSUMER.CREATE.MESH_EVENTS.spy",
    "$JS.API.STREAM.PEER.REMOVE.MESH_REQUESTS",
    "$SYS.REQ.SERVER.PING",
    "elsewhere",
]
FOR_WORKERS = [
    "mesh.out.default.j",
    "mesh.live.default.j",
    "mesh.dead.simulator.standard.default.0",
    "mesh.sys.drain.w",
    "mesh.sys.liveness.w",
    "$KV.mesh_results.default.j",
    "$KV.mesh_workers.w",
    "$JS.ACK.MESH_REQUESTS.simulator-standard-0.1.1.1.0.0",
    "$JS.API.CONSUMER.MSG.NEXT.MESH_REQUESTS.simulator-standard-0",
    "$JS.API.CONSUMER.CREATE.MESH_REQUESTS.spy",
    "$JS.API.STREAM.MSG.DELETE.MESH_REQUESTS",
]


async def refused(connection: Connection, subjects: list[str]) -> list[str]:
    found = []
    for subject in subjects:
        try:
            await connection.request(subject, b"{}", timeout_s=2)
        except UnauthorizedError:
            found.append(subject)
    return found


async def test_a_worker_can_destroy_nothing(declared: ConfServer) -> None:
    async with connect(as_user(declared, "worker")) as connection:
        assert await refused(connection, FOR_OPERATORS) == FOR_OPERATORS


async def test_a_client_can_neither_take_a_job_nor_answer_one(declared: ConfServer) -> None:
    subjects = FOR_WORKERS + FOR_OPERATORS
    async with connect(as_user(declared, "client")) as connection:
        assert await refused(connection, subjects) == subjects


async def test_a_client_hears_events_and_its_own_answers_only(declared: ConfServer) -> None:
    for subject in (">", "mesh.>", "mesh.req.>", "mesh.rpc.>", "mesh.ctl.>", "mesh.sys.>", "$KV.>", "$JS.>", "$SYS.>"):
        before = len(refusals(declared))
        async with connect(as_user(declared, "client")) as connection:
            connection.subscribe(subject, lambda *_: None)
            await connection.request("$JS.API.INFO")  # the server has seen both
            assert len(refusals(declared)) == before + 1, subject
