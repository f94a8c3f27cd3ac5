"""A whole mesh for a test: a real nats-server, its topology, and workers in this process or as children."""

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from mesh.broker import topology
from mesh.broker.broker import Broker, open_broker
from mesh.broker.stores.journal import Entry, events_of
from mesh.broker.transport.connection import Connection
from mesh.broker.transport.options import ConnectOptions
from mesh.engines.base import Engine
from mesh.engines.simulator.engine import SimulatorEngine
from mesh.engines.simulator.settings import SimulatorSettings
from mesh.hosting.host import host_worker, serve_engine
from mesh.job_key import JobKey
from mesh.protocol import codec
from mesh.protocol.messages import Event, Result
from mesh.protocol.subjects import Names
from mesh.server import EmbeddedServer
from mesh.signals import Observer, ignore
from mesh.worker.worker import Worker, WorkerOptions

MODEL = "simulator"
CRASHING_WORKER = Path(__file__).parent / "chaos" / "crashing_worker.py"
Value = TypeVar("Value")
DEADLINE_S = 10.0  # of `wait_until`, where its caller gives none


async def wait_until(condition: Callable[[], object], deadline_s: float | None = None) -> None:
    """Return once `condition()` is true; fail when it is not by the deadline."""
    loop = asyncio.get_running_loop()
    deadline_s = DEADLINE_S if deadline_s is None else deadline_s
    end = loop.time() + deadline_s
    while True:
        found = condition()
        if asyncio.iscoroutine(found):
            found = await found
        if found:
            return
        assert loop.time() < end, f"not within {deadline_s} s: {condition}"
        await asyncio.sleep(0.01)


def present(value: Value | None) -> Value:
    """`value`, which is there."""
    assert value is not None
    return value


@dataclass
class RunningMesh:
    """What a test may do with its mesh."""

    server: EmbeddedServer
    broker: Broker
    workers: list[Worker] = field(default_factory=list)
    tasks: list[asyncio.Task[None]] = field(default_factory=list)
    children: list[asyncio.subprocess.Process] = field(default_factory=list)

    @property
    def connection(self) -> Connection:
        return self.broker.connection

    @property
    def names(self) -> Names:
        return self.broker.names

    @property
    def url(self) -> str:
        return self.server.url

    def options(self) -> ConnectOptions:
        return ConnectOptions(servers=(self.url,), name="test")

    async def start_worker(
        self,
        settings: SimulatorSettings | None = None,
        options: WorkerOptions | None = None,
        engine: Engine | None = None,
        observer: Observer = ignore,
    ) -> Worker:
        """One more worker in this process, on a simulator or a started `engine`; returns once it pulls."""
        ready: asyncio.Future[Worker] = asyncio.get_running_loop().create_future()

        def on_ready(worker: Worker) -> None:
            if not ready.done():
                ready.set_result(worker)

        options = options or WorkerOptions(model=MODEL, grace_s=5.0)
        shared: dict[str, Any] = {"names": self.names, "observer": observer, "on_ready": on_ready}
        if engine is not None:
            serving = serve_engine(engine, self.options(), options, **shared)
        else:
            made = settings or SimulatorSettings(model=MODEL)
            serving = host_worker(lambda: SimulatorEngine(made), self.options(), options, **shared)
        task = asyncio.create_task(serving)
        self.tasks.append(task)
        both: set[asyncio.Future[Any]] = {task, ready}
        await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            task.result()
        self.workers.append(ready.result())
        return ready.result()

    async def start_child(self, script: Path, *arguments: str) -> asyncio.subprocess.Process:
        """A worker as a child process: `script` gets the server's URL first, and prints `ready` when it pulls."""
        process = await asyncio.create_subprocess_exec(
            sys.executable, str(script), self.url, *arguments, stdout=asyncio.subprocess.PIPE
        )
        self.children.append(process)
        assert process.stdout is not None
        line = await asyncio.wait_for(process.stdout.readline(), 20)
        assert line.strip() == b"ready", line
        return process

    async def history(self, job: str, tenant: str = "default") -> list[Event]:
        """The job's events as they stand in the journal."""
        journal = self.broker.journal
        return events_of(await journal.read(journal.subject(JobKey(tenant, job))))

    async def journal_entries(self, job: str, tenant: str = "default") -> list[Entry]:
        """The same, with their places in the stream."""
        journal = self.broker.journal
        return await journal.read(journal.subject(JobKey(tenant, job)))

    async def append(self, job: str, event: Event, last: int, tenant: str = "default") -> None:
        """Write to a job's journal, as a worker or whoever closes it does."""
        journal = self.broker.journal
        await journal.append(journal.subject(JobKey(tenant, job)), codec.encode(event), last)

    async def hand_back_all(self) -> None:
        """Hand back whatever any worker holds, as those do who find it dead."""
        queue = self.broker.queue
        for stored in [stored async for page in queue.pages() for stored in page]:
            address = stored.address
            assert address is not None
            consumer = self.names.consumer(address.model, address.tier, address.lane)
            subject = f"$JS.ACK.{self.names.requests_stream}.{consumer}.1.{stored.sequence}.1.1.0"
            await self.connection.request(subject, b"-NAK")

    async def result(self, job: str, tenant: str = "default") -> Result | None:
        stored = await self.broker.results.get(JobKey(tenant, job))
        return stored.result if stored is not None else None

    async def result_is_gone(self, job: str) -> bool:
        return await self.result(job) is None

    def is_attempted(self, job: str, times: int) -> Callable[[], Awaitable[bool]]:
        """Whether a job that streams nothing has been begun so often."""

        async def found() -> bool:
            journal = self.broker.journal
            return len(await journal.read(journal.attempts_subject(JobKey("default", job)))) >= times

        return found

    def is_running(self, job: str) -> Callable[[], Awaitable[bool]]:
        """Whether a job that streams nothing has been begun."""
        return self.is_attempted(job, 1)

    async def queued(self) -> int:
        """Messages in the request stream: queued and running jobs."""
        state = (await topology.stream_state(self.connection, self.names.requests_stream))["messages"]
        return int(state)

    async def wait_queue_empty(self, deadline_s: float = 15.0) -> None:
        async def is_empty() -> bool:
            return await self.queued() == 0

        await wait_until(is_empty, deadline_s)

    async def close(self) -> None:
        for task in self.tasks:
            task.cancel()  # how a worker drains is a test of its own
        await asyncio.gather(*self.tasks, return_exceptions=True)
        for child in self.children:
            if child.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(child.pid, signal.SIGCONT)
                    child.kill()
            await child.wait()
            if child.stdout is not None:
                child._transport.close()  # type: ignore[attr-defined]  # asyncio leaves the pipe open otherwise


@contextlib.asynccontextmanager
async def running_mesh(store: Path, settings: topology.MeshSettings | None = None) -> AsyncIterator[RunningMesh]:
    """A server with the topology on it, and no worker yet."""
    server = EmbeddedServer(store)
    await server.start()
    try:
        async with open_broker(ConnectOptions(servers=(server.url,), name="test-mesh"), Names()) as broker:
            changes = await topology.plan(broker, settings or topology.MeshSettings(), [MODEL])
            await topology.apply(broker.connection, changes)
            mesh = RunningMesh(server, broker)
            try:
                yield mesh
            finally:
                await mesh.close()
    finally:
        await server.stop()
