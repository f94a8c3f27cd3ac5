"""Runs one soak: its own mesh, a load, faults, a watcher, and finally the check.

servers, workers behind proxies, clients  ->  load and faults together  ->  heal, drain  ->  collect  ->  check
"""

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path

from mesh.broker.broker import Broker
from mesh.broker.topology import MeshSettings
from mesh.broker.transport.connection import connect
from mesh.broker.transport.options import ConnectOptions
from mesh.engines.simulator.settings import SimulatorSettings
from mesh.errors import BrokerError
from mesh.protocol.subjects import Names
from mesh.verify.soak import plan
from mesh.verify.soak.checker import check
from mesh.verify.soak.collect import collect, queued, wait_drained
from mesh.verify.soak.faults import FaultInjector
from mesh.verify.soak.history import FaultKind, RunHistory
from mesh.verify.soak.load import SoakLoad, clients_of
from mesh.verify.soak.proxy import Proxy
from mesh.verify.soak.report import SoakFigures, figures_of
from mesh.verify.soak.servers import Servers
from mesh.verify.soak.violation import Bounds, Violation
from mesh.verify.soak.wire import Watcher
from mesh.verify.soak.workers import WORKER, FaultyWorkers

MODEL = "soak"
# About 10 ms a token, so that a job runs long enough to be hit. Two tokens a step, so that events differ in size.
ENGINE = SimulatorSettings(
    model=MODEL, first_token_ms=15.0, between_tokens_ms=20.0, per_batch_ms=0.0, burst_tokens=2, capacity=16
)
ACK_WAIT_S = 2.0  # short, so that many leases end in one run
# A cluster elects a new leader in 5 to 7 s; with a shorter lease, each loss of a leader would move every running job.
CLUSTER_ACK_WAIT_S = 10.0
PROGRESS_S = 5.0
TAIL = 0.03  # the faults end when at most this share of the requests is left
TAIL_S = 120.0  # or this long after the last submit

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class SoakSettings:
    """The settings of a soak. The defaults are those of `mesh soak`."""

    folder: Path  # for the servers' stores and the workers' log
    requests: int = 10_000
    seed: int = 1
    workers: int = 5
    servers: int = 1  # 1, or 3 for a cluster with three replicas of everything
    ack_wait_s: float | None = None
    command: tuple[str, ...] = WORKER  # the worker's command; tests pass workers with bugs
    weights: dict[FaultKind, float] = field(default_factory=lambda: dict(plan.WEIGHTS))  # empty: no faults
    pause_s: tuple[float, float] = plan.PAUSE_S  # between faults: at least, at most
    poison_every: int = plan.POISON_EVERY
    open_at_once: int = 300
    readers_s: float = 45.0  # for every reader to get its end, after the queue is empty; longer than a client's polls
    drain_s: float = 60.0

    @property
    def lease_s(self) -> float:
        return self.ack_wait_s or (ACK_WAIT_S if self.servers == 1 else CLUSTER_ACK_WAIT_S)


@dataclass(frozen=True, slots=True)
class SoakOutcome:
    """The outcome of a soak."""

    figures: SoakFigures
    violations: list[Violation]
    history: RunHistory


async def soak(settings: SoakSettings, say: Say) -> SoakOutcome:
    """Run one soak. `say` gets lines of progress.

    Raises:
        ConfigError, EngineDeadError: a server or the workers do not start.
        BrokerError: NATS does not answer without a fault.
    """
    loop = asyncio.get_running_loop()
    began_s = loop.time()
    history = RunHistory()
    await _Stage(settings, history, lambda: loop.time() - began_s, say).play()
    history.wall_s = loop.time() - began_s
    say(f"checking {len(history.sent)} messages")
    bounds = Bounds(order_slack_s=0.0 if settings.servers == 1 else 1.0, drain_s=settings.drain_s)
    violations = check(history, ENGINE, bounds)
    return SoakOutcome(
        figures_of(history, violations, settings.seed, settings.workers, settings.servers), violations, history
    )


class _Stage:
    """The processes and tasks of one soak."""

    def __init__(self, settings: SoakSettings, history: RunHistory, clock: Callable[[], float], say: Say) -> None:
        self._settings = settings
        self._history = history
        self._clock = clock
        self._say = say
        self._names = Names()
        self._rng = random.Random(settings.seed)

    async def play(self) -> None:
        """Run the soak, from the first server's start to the last process's end."""
        settings = self._settings
        self._servers = Servers(settings.folder, settings.servers)
        try:
            await self._servers.start()
            options = ConnectOptions(servers=self._servers.urls, name="soak", connect_timeout_s=20.0)
            async with connect(options) as connection:
                broker = Broker(connection, self._names)
                await self._servers.declare(broker, self._mesh_settings(), MODEL)
                async with self._workers() as workers:
                    self._say(
                        f"{settings.servers} nats-server, {settings.workers} workers, {settings.requests} requests"
                    )
                    drained_s = await self._perform(broker, workers)
                self._history.tracebacks = workers.tracebacks()
                await collect(broker, self._history, drained_s)
        finally:
            await self._servers.stop()

    def _mesh_settings(self) -> MeshSettings:
        cluster = self._settings.servers > 1
        return MeshSettings(
            replicas=self._settings.servers, lanes=1 if cluster else 2, ack_wait_s=self._settings.lease_s
        )

    @contextlib.asynccontextmanager
    async def _workers(self) -> AsyncIterator[FaultyWorkers]:
        """Start the workers, each behind its proxy."""
        settings, ports = self._settings, self._servers.ports
        async with contextlib.AsyncExitStack() as stack:
            proxies = []
            for number in range(settings.workers):
                first = number % len(ports)
                proxy = Proxy([*ports[first:], *ports[:first]])
                await proxy.start()
                stack.push_async_callback(proxy.close)
                proxies.append(proxy)
            log = settings.folder / "workers.log"
            workers = FaultyWorkers(proxies, settings.command, _worker_options(), log, self._history, self._clock)
            stack.push_async_callback(workers.close)
            await workers.start()
            yield workers

    async def _perform(self, broker: Broker, workers: FaultyWorkers) -> float | None:
        """Run load and faults; return how long the queue took to drain after the last fault, None if it did not."""
        settings = self._settings
        options = ConnectOptions(servers=self._servers.urls, name="soak-watcher")
        async with connect(options) as watching, clients_of(self._servers.urls, self._names) as clients:
            watcher = Watcher(Broker(watching, self._names), self._history, self._clock)
            watcher.start()
            injector = FaultInjector(workers, self._servers, watcher, self._history, self._clock)
            load = SoakLoad(self._history, MODEL, self._clock, clients, settings.open_at_once)
            progress = asyncio.create_task(self._progress(watcher, load), name="soak-progress")
            try:
                await self._run_load(broker, workers, injector, load)
                healed_s = self._clock()
                is_drained = await wait_drained(broker, settings.drain_s)
                drained_s = self._clock() - healed_s
                waiting = await load.wait_readers(settings.readers_s)
                if waiting:
                    self._say(f"{waiting} clients still wait for an answer")
            finally:
                progress.cancel()
                await load.leave()
                watcher.close()
        return drained_s if is_drained else None

    async def _run_load(self, broker: Broker, workers: FaultyWorkers, injector: FaultInjector, load: SoakLoad) -> None:
        """Run load and faults until all requests are submitted and few are left."""
        settings = self._settings
        faults = plan.faults(
            random.Random(f"faults {settings.seed}"), settings.lease_s, settings.weights, settings.pause_s
        )
        injecting = asyncio.create_task(
            injector.run(faults) if settings.weights else asyncio.sleep(0), name="soak-injector"
        )
        planned_jobs = plan.planned_jobs(self._rng, settings.requests, settings.poison_every)
        loading = asyncio.create_task(load.submit_all(planned_jobs), name="soak-load")
        try:
            while not loading.done():
                await asyncio.wait({loading, *([injecting] if settings.weights else [])}, timeout=1.0)
                _raise_of(injecting)
                workers.check()
            await loading
            await self._tail(broker, injecting)
        finally:
            for task in (injecting, loading):
                task.cancel()
            await asyncio.gather(injecting, loading, return_exceptions=True)
        await injector.heal()

    async def _tail(self, broker: Broker, injecting: asyncio.Task[None]) -> None:
        """Continue the faults after the last submit, until few requests are left."""
        end_s = self._clock() + TAIL_S
        while self._clock() < end_s:
            _raise_of(injecting)
            with contextlib.suppress(BrokerError):
                if await queued(broker) <= TAIL * self._settings.requests:
                    return
            await asyncio.sleep(0.2)

    async def _progress(self, watcher: Watcher, load: SoakLoad) -> None:
        while True:
            await asyncio.sleep(PROGRESS_S)
            history = self._history
            self._say(
                f"{self._clock():4.0f} s: {load.submitted} submitted, {len(watcher.ended)} ended, "
                f"{len(history.struck)} faults, {len(history.died)} workers died"
            )


def _worker_options() -> list[str]:
    """Return a worker's command line after its address and name."""
    timings = ("first_token_ms", "between_tokens_ms", "per_batch_ms", "burst_tokens")
    pairs = [("--engine-arg", f"{name}={getattr(ENGINE, name):g}") for name in timings]
    given = [
        ("--engine", "simulator"),
        ("--name", MODEL),
        ("--capacity", str(ENGINE.capacity)),
        ("--grace", "5"),
        ("--log-level", "warning"),
        *pairs,
    ]
    return [text for pair in given for text in pair]


def _raise_of(task: asyncio.Task[None]) -> None:
    if task.done() and not task.cancelled():
        task.result()
