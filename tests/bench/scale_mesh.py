"""A mesh of the scale benchmark: a nats-server, worker processes and one client process, whose CPU and memory are read.

Used by the parts of tests.bench.scale.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mesh.broker import topology
from mesh.broker.broker import Broker
from mesh.broker.transport.connection import Connection, connect
from mesh.broker.transport.options import ConnectOptions
from mesh.protocol.subjects import Names
from mesh.server import embedded_server
from tests.bench.child import Child, child
from tests.bench.cpu import Meter
from tests.bench.report import Report
from tests.bench.scale_engine import FAST
from tests.bench.stream import BenchError
from tests.bench.worker import MODEL

LARGE, SMALL = "large", "small"
TURNS = (SMALL, LARGE, LARGE, SMALL)  # in which blocks alternate
PARKED = "parked"  # a model whose jobs only stand in the queue
QUIET_SHARE = 0.10  # of a core: what workers and broker take at most when nothing is left to do
LOOK_S = 0.5
MiB = 1 << 20


@dataclass(frozen=True, slots=True)
class Squad:
    """Worker processes that are alike."""

    count: int = 1
    model: str = MODEL
    capacity: int = 128
    paces: tuple[str, ...] = (FAST,)


@dataclass(slots=True)
class ScaleMesh:
    """One mesh that runs."""

    url: str
    connection: Connection  # of this process, for what no load is
    broker_pid: int
    client: Child
    workers: list[Child]

    def meter(self) -> Meter:
        """Of every process a job passes through."""
        workers = tuple(each.pid for each in self.workers)
        return Meter({"client": self.client.pid, "worker": workers, "broker": self.broker_pid})

    async def ask(self, do: str, **arguments: object) -> Any:
        """Have the client do something, see tests.bench.scale_client."""
        return await self.client.ask({"do": do, **arguments})

    async def finished(self) -> int:
        """Jobs that the workers have finished."""
        return sum(await asyncio.gather(*(each.ask("finished") for each in self.workers)))

    async def queue(self) -> dict[str, Any]:
        """The state of the request stream."""
        return await topology.stream_state(self.connection, Names().requests_stream)

    async def wait_calm(self, limit_s: float, share: float = QUIET_SHARE) -> None:
        """Return when workers and broker have little to do, as after a fill: who sweeps reads every request once."""
        end_s = time.monotonic() + limit_s
        while time.monotonic() < end_s:
            meter = self.meter()
            await asyncio.sleep(LOOK_S)
            spent_s = meter.spent_s()
            if spent_s["worker"] + spent_s["broker"] < share * LOOK_S:
                return


@contextlib.asynccontextmanager
async def scale_mesh(*squads: Squad, queue_limit: int = 1_000_000) -> AsyncIterator[ScaleMesh]:
    """A mesh with these workers and a client, all in processes of their own."""
    async with embedded_server() as server, contextlib.AsyncExitStack() as stack:
        options = ConnectOptions(servers=(server.url,), name="bench-scale")
        connection = await stack.enter_async_context(connect(options))
        models = [MODEL, *{workers.model for workers in squads} - {MODEL}]
        changes = await topology.plan(
            Broker(connection, Names()), topology.MeshSettings(queue_limit=queue_limit), models
        )
        await topology.apply(connection, changes)
        client = await stack.enter_async_context(child("tests.bench.scale_client", server.url))
        workers = await _start(stack, server.url, squads)
        assert server.process is not None
        yield ScaleMesh(server.url, connection, server.process.pid, client, workers)


async def _start(stack: contextlib.AsyncExitStack, url: str, squads: Sequence[Squad]) -> list[Child]:
    """All at once; and all are told to end before the first is waited for."""
    starting = [
        child("tests.bench.scale_worker", url, workers.model, str(workers.capacity), *workers.paces)
        for workers in squads
        for _ in range(workers.count)
    ]

    async def end(*error: object) -> None:
        await asyncio.gather(*(each.__aexit__(None, None, None) for each in starting))

    stack.push_async_exit(end)
    return list(await asyncio.gather(*(each.__aenter__() for each in starting)))


def rss_bytes(pid: int) -> float:
    """Resident memory of a process; nan where nobody tells."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return float("nan")
    return next((float(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS:")), float("nan"))


class Costs:
    """CPU by process and side, over blocks that take turns; written down once they are over."""

    def __init__(self, report: Report, label: str, unit: str = "job") -> None:
        self._report, self._label, self._unit = report, label, unit
        self._spent_s: dict[str, dict[str, float]] = {}
        self._units: dict[str, float] = {}
        self._seconds: dict[str, float] = {}

    def add(self, side: str, spent_s: dict[str, float], units: float, seconds: float = 0.0) -> None:
        """One more block; `seconds` where it is to be said how many units there were in one."""
        if units <= 0:
            raise BenchError(f"{self._label}, {side}: nothing was done")
        mine = self._spent_s.setdefault(side, {})
        for name, cpu_s in spent_s.items():
            mine[name] = mine.get(name, 0.0) + cpu_s
        self._units[side] = self._units.get(side, 0.0) + units
        self._seconds[side] = self._seconds.get(side, 0.0) + seconds

    def report(self) -> None:
        """A row for each process, one for all of them, and one for the units a second."""
        for side, spent_s in self._spent_s.items():
            if self._seconds[side]:
                self._report.add(f"{self._label}: {self._unit}s/s", side, self._units[side] / self._seconds[side])
            for name, cpu_s in [*spent_s.items(), ("all", sum(spent_s.values()))]:
                row = f"{self._label}: {name} µs/{self._unit}"
                self._report.add(row, side, cpu_s / self._units[side] * 1e6)
