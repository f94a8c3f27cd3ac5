"""What is compared, behind one face: the mesh, and the floor in its variants.

Each side has its own server and worker process; all of them stay up, one at a time is loaded.
"""

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Protocol

import mesh
from mesh.broker import topology
from mesh.broker.broker import Broker
from mesh.broker.transport.connection import connect
from mesh.broker.transport.options import ConnectOptions
from mesh.client.client import Client
from mesh.protocol.messages import Delta, Request, Result
from mesh.protocol.subjects import Names
from mesh.server import embedded_server
from tests.bench import floor
from tests.bench.child import Child, child
from tests.bench.cpu import Meter
from tests.bench.stream import BenchError, Stream
from tests.bench.worker import MODEL

MESH, FLOOR, COALESCED = "mesh", "floor", "coalesced"  # names of sides
SETTLE_S = 0.1  # after the last answer: what a worker still does for the jobs is theirs too


class Asker(Protocol):
    """Runs one request and returns what its reader saw."""

    async def run(self, request: Request) -> Stream: ...


async def follow(client: Client, request: Request, stream: Stream) -> Result:
    """Submit a request and read its output into `stream`; its Result, which finished.

    Raises:
        BenchError: it was begun again. JobError: it did not finish.
    """
    job = await client.submit(MODEL, request)
    stream.job = job.id
    async for delta in job:
        if not isinstance(delta, Delta):
            raise BenchError(f"job {job.id} was begun again")
        stream.add(delta.text, delta.token_ids)
    return (await job).raise_for_status()


@dataclass(slots=True)
class MeshAsker:
    """The mesh's own client."""

    client: Client

    async def run(self, request: Request) -> Stream:
        stream = Stream("", time.monotonic())
        if not request.stream:
            result = await self.client.generate(MODEL, request)
        else:
            result = await follow(self.client, request, stream)
        result.raise_for_status()
        stream.job, stream.result_text, stream.done_s = result.id, str(result.text), time.monotonic()
        return stream


@dataclass(slots=True)
class FloorAsker:
    """The floor's, for one of its variants."""

    client: floor.FloorClient
    variant: floor.Variant

    async def run(self, request: Request) -> Stream:
        stream = await self.client.run(request, self.variant)
        stream.done_s = time.monotonic()
        return stream


class Measured(Protocol):
    """One thing that is measured."""

    name: str
    asker: Asker

    def meter(self) -> Meter:
        """Of every process a job passes through, this one among them: it is the client."""
        ...

    async def settle(self) -> None:
        """Let the worker finish what the answers did not wait for."""
        ...

    async def take_times(self) -> dict[str, tuple[float, float]]:
        """By paced job: when the engine got it and when its first token was due; then forgotten."""
        ...


@dataclass(slots=True)
class Side:
    """The mesh or the floor: a client here, a worker in a child, a nats-server."""

    name: str
    asker: Asker
    worker: Child
    broker_pid: int

    def meter(self) -> Meter:
        return Meter({"client": os.getpid(), "worker": self.worker.pid, "broker": self.broker_pid})

    async def settle(self) -> None:
        await asyncio.sleep(SETTLE_S)

    async def take_times(self) -> dict[str, tuple[float, float]]:
        return {job: tuple(each) for job, each in (await self.worker.ask("times")).items()}


@contextlib.asynccontextmanager
async def running_mesh(
    kind: str, *arguments: str, settings: topology.MeshSettings | None = None
) -> AsyncIterator[tuple[Client, Child, int]]:
    """A mesh of its own: client, worker process of `kind` (see tests.bench.worker), and the broker's pid."""
    async with embedded_server() as server:
        async with connect(ConnectOptions(servers=(server.url,), name="bench-init")) as connection:
            changes = await topology.plan(Broker(connection, Names()), settings or topology.MeshSettings(), [MODEL])
            await topology.apply(connection, changes)
        async with (
            child("tests.bench.worker", kind, server.url, *arguments) as worker,
            mesh.connect(server.url) as client,
        ):
            assert server.process is not None
            yield client, worker, server.process.pid


@contextlib.asynccontextmanager
async def floor_sides() -> AsyncIterator[list[Side]]:
    """The floor, and the same client and worker where tokens of one turn of the loop share a message."""
    async with embedded_server() as server:
        await floor.prepare(server.url)
        async with (
            child("tests.bench.worker", "floor", server.url) as worker,
            await floor.connect(server.url) as connection,
        ):
            client = floor.FloorClient(connection)
            await client.start()
            assert server.process is not None
            pid = server.process.pid
            yield [
                Side(FLOOR, FloorAsker(client, "token"), worker, pid),
                Side(COALESCED, FloorAsker(client, "turn"), worker, pid),
            ]


@contextlib.asynccontextmanager
async def simulated_sides() -> AsyncIterator[list[Side]]:
    """The mesh first, then the floor and the floor that coalesces."""
    async with running_mesh("mesh") as (client, worker, broker_pid), floor_sides() as floors:
        yield [Side(MESH, MeshAsker(client), worker, broker_pid), *floors]
