"""A worker: one engine, one connection, as many jobs at once as the engine can start.

    engine.start()  ->  pull  ->  Runner per job  ->  ack        until `drain()`, then hand back and leave

Everything that happens is a callback of the connection or a task owned by `serve`; a side task that dies ends the
worker. The worker decides nothing about a job (see attempt), a tier (policies/tiers) or a slot (credits).
"""

import asyncio
import contextlib
import logging
import secrets
import time
from dataclasses import dataclass, field

from mesh.broker import topology
from mesh.broker.connection import Connection
from mesh.broker.deadletter import DeadLetters
from mesh.broker.delivery import Delivery
from mesh.broker.journal import Journal
from mesh.broker.pulls import Leases, PullEnd, Puller
from mesh.broker.queue import RequestQueue
from mesh.broker.store import PresenceStore, ResultStore
from mesh.engines.base import Engine
from mesh.errors import BrokerError, DisconnectedError, EngineDeadError, MeshError
from mesh.policies.retry import RetryPolicy
from mesh.policies.tiers import TierWeights
from mesh.protocol.messages import TIERS
from mesh.protocol.subjects import Names, is_token
from mesh.signals import ConnectionChanged, EngineDied, JobDelivered, JobEnded, JobReturned, Observer, Signal
from mesh.worker.credits import Credits, Source
from mesh.worker.effects import Desk
from mesh.worker.lease import BEATS, Lease
from mesh.worker.presence import Load, PresenceBoard, State
from mesh.worker.runner import Runner, now_unix_ms

log = logging.getLogger("mesh.worker")

TICK_S = 0.25  # how often forgotten pulls and stale consumers are looked for
BROKEN_PAUSE_S = 0.2  # before a consumer that answered with an error is asked again
REPAIR_S = 2.0  # between looks whether our consumers still exist, while pulls on them fail
PROBE_EVERY_S = 5.0
PROBE_TIMEOUT_S = 60.0  # longer than a compile or a long prefill step that stalls a healthy engine
HAND_BACK_S = 2.0  # for jobs to be handed back once the grace period is over


@dataclass(frozen=True, slots=True)
class WorkerOptions:
    """How one worker behaves. The queue's own settings (ack_wait, lanes) are read from the mesh."""

    model: str  # the name under which the engine is served; a subject token
    name: str = field(default_factory=lambda: f"w-{secrets.token_hex(4)}")
    capacity: int | None = None  # jobs at once; None: what the engine says
    grace_s: float = 30.0  # what a drain gives running jobs to finish
    weights: TierWeights = field(default_factory=TierWeights)
    retry: RetryPolicy = field(default_factory=RetryPolicy)


@dataclass(frozen=True, slots=True)
class WorkerStatistics:
    """A worker's books at one moment."""

    state: State
    running: int
    capacity: int
    finished: int  # jobs that got their Result here
    returned: int  # jobs given up without one
    tokens: int
    open_pulls: int


class Worker:
    """See the module's docstring. `serve` once; `drain` at any time, also twice."""

    def __init__(
        self, engine: Engine, connection: Connection, names: Names, options: WorkerOptions, observer: Observer
    ) -> None:
        """`engine` is started; the caller stops it after `serve` returned."""
        self._engine = engine
        self._connection = connection
        self._names = names
        self._options = options
        self._observer = observer
        self._capacity = options.capacity or engine.info.capacity
        self._loop = asyncio.get_running_loop()
        self._runners: dict[asyncio.Task[None], Runner] = {}
        self._state: State = "starting"
        self._finished = self._returned = self._tokens = 0
        self._draining = asyncio.Event()
        self._hurry = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._engine_fault: str | None = None
        self._broken = asyncio.Event()
        self._leases = Leases(connection)
        self._settings = topology.MeshSettings()
        self._credits = Credits(self._capacity, [], options.weights)
        self._puller: Puller | None = None
        self._board: PresenceBoard | None = None
        self.ready = asyncio.Event()  # set once the worker pulls
        self._desk = Desk(
            worker=options.name,
            engine=engine,
            journal=Journal(connection, names),
            store=ResultStore(connection, names),
            queue=RequestQueue(connection, names),
            leases=self._leases,
            dead=DeadLetters(connection, names),
            retry=options.retry,
            observer=self._observe,
            engine_died=self._engine_died,
        )

    def __repr__(self) -> str:
        s = self.statistics()
        return f"<Worker {self._options.name} {s.state}, {s.running}/{s.capacity} running, {s.finished} finished>"

    @property
    def name(self) -> str:
        return self._options.name

    def statistics(self) -> WorkerStatistics:
        """The books now."""
        return WorkerStatistics(
            state=self._state,
            running=len(self._runners),
            capacity=self._capacity,
            finished=self._finished,
            returned=self._returned,
            tokens=self._tokens,
            open_pulls=self._puller.open_pulls if self._puller is not None else 0,
        )

    def drain(self) -> None:
        """Stop pulling now; finish or hand back what runs within the grace period. Called again: at once."""
        if self._draining.is_set():
            self._hurry.set()
        self._state = "draining"
        self._draining.set()

    async def serve(self) -> None:
        """Pull and run jobs until `drain`.

        Raises:
            TopologyError: there is no mesh on this NATS.
            EngineDeadError: the engine died; every job was handed back.
        """
        await self._prepare()
        unlisten = self._connection.listen(self._connection_changed)
        cancels = self._connection.subscribe(self._names.system("cancel", "*", "*"), self._cancel_asked)
        side = [
            asyncio.create_task(run(), name=f"mesh-{run.__name__.strip('_')}")
            for run in (self._beat, self._show, self._tick, self._repair, self._probe)
        ]
        try:
            self._state = "draining" if self._draining.is_set() else "ready"
            self._show_once()
            self._pump()
            self.ready.set()
            waiter = asyncio.create_task(self._draining.wait(), name="mesh-drain")
            done, _ = await asyncio.wait({waiter, *side}, return_when=asyncio.FIRST_COMPLETED)
            waiter.cancel()
            await self._finish()
            for task in done - {waiter}:
                task.result()  # a side task only ends by breaking
        finally:
            for task in side:
                task.cancel()
            await asyncio.gather(*side, return_exceptions=True)
            await self._abandon()
            cancels.close()
            unlisten()
            if self._puller is not None:
                self._puller.close()
            if self._board is not None:
                self._board.leave()
        if self._engine_fault is not None:
            raise EngineDeadError(self._engine_fault)

    # Starting and ending.

    async def _prepare(self) -> None:
        topology.check_server(self._connection.server_version)
        self._settings = await topology.read_settings(self._connection, self._names)
        await self._ensure_consumers()
        sources = [
            Source(self._names.consumer(self._options.model, tier, lane), tier, lane)
            for tier in TIERS
            for lane in range(self._settings.lanes)
        ]
        self._credits = Credits(self._capacity, sources, self._options.weights)
        self._puller = Puller(self._connection, self._names, self._delivered, self._pull_ended)
        self._board = PresenceBoard(
            PresenceStore(self._connection, self._names),
            self._options.name,
            self._options.model,
            self._engine.info,
            self._settings.lanes,
        )
        await self._board.look()

    async def _ensure_consumers(self) -> None:
        """Declare our model's consumers if they are missing; say so if they are not as the mesh was made."""
        changes = await topology.plan_consumers(
            self._connection, self._names, self._settings, self._options.model
        )
        for change in changes:
            if change.verb == "differs":
                log.warning(
                    "consumer %s differs from the mesh's settings: %s; it is used as it is",
                    change.name,
                    change.detail,
                    extra={"event": "topology_drift"},
                )
        await topology.apply(self._connection, changes)

    async def _finish(self) -> None:
        """Let the running jobs finish within the grace period, then hand the rest back."""
        self._show_once()
        if self._runners and self._engine_fault is None:
            log.info(
                "draining: %d jobs have %.0f s to finish",
                len(self._runners),
                self._options.grace_s,
                extra={"event": "draining"},
            )
            hurry = asyncio.create_task(self._hurry.wait())
            idle = asyncio.create_task(self._idle.wait())
            await asyncio.wait(
                {hurry, idle}, timeout=self._options.grace_s, return_when=asyncio.FIRST_COMPLETED
            )
            hurry.cancel()
            idle.cancel()
        for runner in list(self._runners.values()):
            runner.interrupt("drain")
        deadline = self._loop.time() + HAND_BACK_S
        while (self._runners or self.statistics().open_pulls) and self._loop.time() < deadline:
            await asyncio.sleep(0.02)  # both end by callbacks; this only bounds how long they may take

    async def _abandon(self) -> None:
        """End what is left: jobs NATS did not let us hand back come again when their leases end."""
        tasks = list(self._runners)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # Pulling.

    def _pump(self) -> None:
        """Send the pulls that the credits allow."""
        if self._puller is None or self._draining.is_set() or not self._connection.is_connected:
            return
        owned = self._board.owned if self._board is not None else frozenset()
        now_s = self._loop.time()
        for ask in self._credits.plan(now_s, owned):
            priority = 0 if ask.source.lane in owned else 1
            try:
                self._puller.pull(ask.source.consumer, ask.batch, ask.expires_s, priority)
            except DisconnectedError:
                self._credits.ended(ask.source.consumer, now_s, empty=False)

    def _pull_ended(self, consumer: str, how: PullEnd) -> None:
        broken = how == "broken"
        if broken:
            self._broken.set()
        pause_s = BROKEN_PAUSE_S if broken else 0.0
        self._credits.ended(consumer, self._loop.time(), empty=how == "empty", pause_s=pause_s)
        self._pump()

    def _delivered(self, delivery: Delivery) -> None:
        is_addressed = is_token(delivery.address.tenant)
        accepted = is_addressed and self._credits.accepts() and not self._draining.is_set()
        self._credits.delivered(delivery.consumer, delivery.pending, accepted)
        if not accepted:
            self._hand_back(delivery)
            return
        self._observer(
            JobDelivered(
                job=delivery.job,
                tenant=delivery.address.tenant,
                tier=delivery.address.tier,
                delivered=delivery.delivered,
                queued_ms=max(0, now_unix_ms() - delivery.stored_unix_ms),
            )
        )
        runner = Runner(self._desk, delivery, Lease(self._settings.ack_wait_s, time.monotonic()))
        task = self._loop.create_task(runner.run(), name=f"mesh-job-{delivery.job}")
        self._runners[task] = runner
        self._idle.clear()
        task.add_done_callback(self._job_over)
        self._pump()

    def _hand_back(self, delivery: Delivery) -> None:
        """What cannot start here goes to another worker; what can have no Result anywhere goes for good."""
        with contextlib.suppress(DisconnectedError):  # then it comes again when its lease ends
            if is_token(delivery.address.tenant):
                self._leases.nak(delivery)
                return
            reason = "the subject's tenant is not of the form [A-Za-z0-9_-]{1,64}"
            log.warning(
                "request %d was removed: %s",
                delivery.stored.sequence,
                reason,
                extra={"event": "request_removed"},
            )
            self._leases.term(delivery, reason)

    def _job_over(self, task: asyncio.Task[None]) -> None:
        runner = self._runners.pop(task)
        self._tokens += runner.tokens
        self._credits.released()
        if not self._runners:
            self._idle.set()
        self._pump()

    def _connection_changed(self, connected: bool) -> None:
        self._observer(ConnectionChanged(connected))
        if not connected and self._puller is not None:
            self._puller.reset()
        self._pump()

    # Steering.

    def _cancel_asked(self, subject: bytes, reply: bytes, payload: bytes, header: bytes) -> None:
        """`<ns>.sys.cancel.<tenant>.<job>`: only the worker that runs the job answers, once it has its Result."""
        tenant, job = subject.decode("utf-8", "replace").split(".")[-2:]
        for task, runner in self._runners.items():
            if runner.job == (tenant, job) and runner.result is None:
                runner.interrupt("cancelled")
                task.add_done_callback(lambda _, r=runner: self._cancel_done(r, reply))  # type: ignore[misc]

    def _cancel_done(self, runner: Runner, reply: bytes) -> None:
        if reply and runner.result is not None and self._connection.is_connected:
            self._connection.publish(reply.decode(), runner.result.status.encode())

    def _observe(self, signal: Signal) -> None:
        if isinstance(signal, JobEnded):
            self._finished += 1
        elif isinstance(signal, JobReturned):
            self._returned += 1
        self._observer(signal)

    def _engine_died(self, reason: str) -> None:
        if self._engine_fault is None:
            self._engine_fault = reason
            self._observer(EngineDied(reason))
            self.drain()

    # Side tasks: each runs until it is cancelled.

    async def _beat(self) -> None:
        """Renew every lease in flight; end the jobs whose lease could not be renewed in time."""
        period_s = self._settings.ack_wait_s / BEATS
        while True:
            await asyncio.sleep(period_s)
            for runner in list(self._runners.values()):
                sent_s = time.monotonic()
                if runner.lease.is_held(sent_s):
                    self._extend(runner, sent_s, period_s)
                else:
                    runner.interrupt("lost")

    def _extend(self, runner: Runner, sent_s: float, timeout_s: float) -> None:
        def answered(error: MeshError | None, header: bytes, payload: bytes) -> None:
            if error is None:
                runner.lease.extended(sent_s)

        try:
            self._leases.extend(runner.delivery, answered, timeout_s)
        except DisconnectedError:
            return  # the lease runs on without us, and we stop when it ends

    async def _show(self) -> None:
        while True:
            await asyncio.sleep(topology.PRESENCE_BEAT_S)
            self._show_once()
            if self._board is not None:
                await self._board.look()

    def _show_once(self) -> None:
        if self._board is not None:
            running = len(self._runners)
            tokens = self._tokens + sum(runner.tokens for runner in self._runners.values())
            self._board.beat(Load(self._state, running, self._finished, tokens), self._capacity)

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(TICK_S)
            if self._puller is not None:
                self._puller.expire()
            self._pump()

    async def _repair(self) -> None:
        """When pulls fail, see whether our consumers are still there."""
        while True:
            await self._broken.wait()
            await asyncio.sleep(REPAIR_S)
            self._broken.clear()
            if not self._connection.is_connected:
                continue
            try:
                await self._ensure_consumers()
            except BrokerError as error:
                log.warning(
                    "the queue of %s cannot be pulled: %s",
                    self._options.model,
                    error,
                    extra={"event": "queue_broken"},
                )

    async def _probe(self) -> None:
        while True:
            await asyncio.sleep(PROBE_EVERY_S)
            try:
                await self._engine.probe(PROBE_TIMEOUT_S)
            except EngineDeadError as error:
                self._engine_died(str(error))
                return
