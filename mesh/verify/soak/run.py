"""One soak: a mesh of its own, a load, faults, a watcher, and in the end the verdict. Called by `mesh soak` and CI.

servers, workers behind proxies, clients  ->  load and faults at once  ->  heal, drain  ->  harvest  ->  judge
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
from mesh.verify.soak.checker import judge
from mesh.verify.soak.collect import harvest, queued, wait_drained
from mesh.verify.soak.faults import Hands
from mesh.verify.soak.history import FaultKind, RunHistory
from mesh.verify.soak.load import SoakLoad, clients_of
from mesh.verify.soak.proxy import Proxy
from mesh.verify.soak.report import SoakFigures, figures_of
from mesh.verify.soak.servers import Servers
from mesh.verify.soak.violation import Bounds, Violation
from mesh.verify.soak.wire import Watcher
from mesh.verify.soak.workers import WORKER, FaultyWorkers

MODEL = "soak"
# Some 10 ms a token, so that a job lives long enough to be hit; two tokens a step, so that events are not all alike.
ENGINE = SimulatorSettings(
    model=MODEL, first_token_ms=15.0, between_tokens_ms=20.0, per_batch_ms=0.0, burst_tokens=2, capacity=16
)
ACK_WAIT_S = 2.0  # short, so that many leases end in one run
# A cluster elects a new leader in 5 to 7 s; with less, each loss of one would move every running job.
CLUSTER_ACK_WAIT_S = 10.0
PROGRESS_S = 5.0
TAIL = 0.03  # of the requests: with so few left, nothing strikes any more
TAIL_S = 120.0  # or after this long since the last was submitted

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class SoakSettings:
    """What a soak is to do. The defaults are those of `mesh soak`."""

    folder: Path  # for the servers' stores and the workers' log
    requests: int = 10_000
    seed: int = 1
    workers: int = 5
    servers: int = 1  # 1, or 3 for a cluster with three copies of everything
    ack_wait_s: float | None = None
    command: tuple[str, ...] = WORKER  # what is run as a worker; the tests give it bugs
    weights: dict[FaultKind, float] = field(default_factory=lambda: dict(plan.WEIGHTS))  # none: no faults
    pause_s: tuple[float, float] = plan.PAUSE_S  # between faults: at least, at most
    poison_every: int = plan.POISON_EVERY
    open_at_once: int = 300
    readers_s: float = 45.0  # after the queue is empty, for every reader to be told; longer than a client's own looks
    drain_s: float = 60.0

    @property
    def lease_s(self) -> float:
        return self.ack_wait_s or (ACK_WAIT_S if self.servers == 1 else CLUSTER_ACK_WAIT_S)


@dataclass(frozen=True, slots=True)
class SoakOutcome:
    """What it came to."""

    figures: SoakFigures
    violations: list[Violation]
    history: RunHistory


async def soak(order: SoakSettings, say: Say) -> SoakOutcome:
    """Run it. `say` gets a line now and then.

    Raises:
        ConfigError, EngineDeadError: a server or the workers do not start.
        BrokerError: NATS does not answer though nothing disturbs it.
    """
    loop = asyncio.get_running_loop()
    began_s = loop.time()
    history = RunHistory()
    await _Stage(order, history, lambda: loop.time() - began_s, say).play()
    history.wall_s = loop.time() - began_s
    say(f"judging {len(history.sent)} messages")
    bounds = Bounds(order_slack_s=0.0 if order.servers == 1 else 1.0, drain_s=order.drain_s)
    violations = judge(history, ENGINE, bounds)
    return SoakOutcome(figures_of(history, violations, order.seed, order.workers, order.servers), violations, history)


class _Stage:
    """Everything that runs during one soak."""

    def __init__(self, order: SoakSettings, history: RunHistory, clock: Callable[[], float], say: Say) -> None:
        self._order = order
        self._history = history
        self._clock = clock
        self._say = say
        self._names = Names()
        self._rng = random.Random(order.seed)

    async def play(self) -> None:
        """From the first server's start to the last process's end."""
        order = self._order
        self._servers = Servers(order.folder, order.servers)
        try:
            await self._servers.start()
            options = ConnectOptions(servers=self._servers.urls, name="soak", connect_timeout_s=20.0)
            async with connect(options) as connection:
                broker = Broker(connection, self._names)
                await self._servers.declare(broker, self._settings(), MODEL)
                async with self._workers() as workers:
                    self._say(f"{order.servers} nats-server, {order.workers} workers, {order.requests} requests")
                    drained_s = await self._perform(broker, workers)
                self._history.tracebacks = workers.tracebacks()
                await harvest(broker, self._history, drained_s)
        finally:
            await self._servers.stop()

    def _settings(self) -> MeshSettings:
        cluster = self._order.servers > 1
        return MeshSettings(replicas=self._order.servers, lanes=1 if cluster else 2, ack_wait_s=self._order.lease_s)

    @contextlib.asynccontextmanager
    async def _workers(self) -> AsyncIterator[FaultyWorkers]:
        """The workers, each behind its proxy."""
        order, ports = self._order, self._servers.ports
        async with contextlib.AsyncExitStack() as stack:
            proxies = []
            for number in range(order.workers):
                first = number % len(ports)
                proxy = Proxy([*ports[first:], *ports[:first]])
                await proxy.start()
                stack.push_async_callback(proxy.close)
                proxies.append(proxy)
            log = order.folder / "workers.log"
            workers = FaultyWorkers(proxies, order.command, _worker_options(), log, self._history, self._clock)
            stack.push_async_callback(workers.close)
            await workers.start()
            yield workers

    async def _perform(self, broker: Broker, workers: FaultyWorkers) -> float | None:
        """Load and faults; how long the queue took to drain after the last fault, None if it did not."""
        order = self._order
        options = ConnectOptions(servers=self._servers.urls, name="soak-watcher")
        async with connect(options) as ears, clients_of(self._servers.urls, self._names) as clients:
            watcher = Watcher(Broker(ears, self._names), self._history, self._clock)
            watcher.start()
            hands = Hands(workers, self._servers, watcher, self._history, self._clock)
            load = SoakLoad(self._history, MODEL, self._clock, clients, order.open_at_once)
            progress = asyncio.create_task(self._progress(watcher, load), name="soak-progress")
            try:
                await self._under_fire(broker, workers, hands, load)
                healed_s = self._clock()
                is_drained = await wait_drained(broker, order.drain_s)
                drained_s = self._clock() - healed_s
                waiting = await load.wait_readers(order.readers_s)
                if waiting:
                    self._say(f"{waiting} clients still wait for an answer")
            finally:
                progress.cancel()
                await load.leave()
                watcher.close()
        return drained_s if is_drained else None

    async def _under_fire(self, broker: Broker, workers: FaultyWorkers, hands: Hands, load: SoakLoad) -> None:
        """Until all is submitted, and little is left to do."""
        order = self._order
        faults = plan.faults(random.Random(f"faults {order.seed}"), order.lease_s, order.weights, order.pause_s)
        striking = asyncio.create_task(hands.run(faults) if order.weights else asyncio.sleep(0), name="soak-hands")
        wishes = plan.wishes(self._rng, order.requests, order.poison_every)
        loading = asyncio.create_task(load.submit_all(wishes), name="soak-load")
        try:
            while not loading.done():
                await asyncio.wait({loading, *([striking] if order.weights else [])}, timeout=1.0)
                _raise_of(striking)
                workers.check()
            await loading
            await self._tail(broker, striking)
        finally:
            for task in (striking, loading):
                task.cancel()
            await asyncio.gather(striking, loading, return_exceptions=True)
        await hands.heal()

    async def _tail(self, broker: Broker, striking: asyncio.Task[None]) -> None:
        """All is submitted: the faults go on until most of it is done."""
        end_s = self._clock() + TAIL_S
        while self._clock() < end_s:
            _raise_of(striking)
            with contextlib.suppress(BrokerError):
                if await queued(broker) <= TAIL * self._order.requests:
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
    """The command line of a worker, after its address and name."""
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
