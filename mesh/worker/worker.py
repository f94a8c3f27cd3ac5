"""A worker: one engine, one connection, as many jobs at once as the engine can start.

    pull  ->  Runner per job  ->  ack        until `drain()`, then finish or hand back, and leave

The worker owns the tasks. It decides nothing about a job (see attempt), a tier (policies/tiers) or a slot (credits).
A side task that ends with an error ends the worker.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any

from mesh.broker.broker import Broker
from mesh.broker.stores.delivery import Delivery
from mesh.broker.stores.pulls import Leases
from mesh.broker.stores.quota_slots import Slots
from mesh.broker.stores.quotas import Quotas
from mesh.engines.base import Engine
from mesh.errors import DisconnectedError, EngineDeadError, MeshError
from mesh.job_key import JobKey
from mesh.protocol.timing import HAND_BACK_S, LEASE_BEATS, PRESENCE_BEAT_S
from mesh.signals import ConnectionChanged, EngineDied, JobDelivered, JobEnded, JobReturned, Observer, Signal, ignore
from mesh.worker.actions import WorkerContext
from mesh.worker.commands import Commands, DrainAnswer
from mesh.worker.death_check import DeathCheck
from mesh.worker.isolation import Isolation
from mesh.worker.lease import Lease
from mesh.worker.liveness import Liveness
from mesh.worker.options import WorkerHealth, WorkerOptions, WorkerStatistics
from mesh.worker.presence import PresenceBoard, State, WorkerLoad
from mesh.worker.publisher import Streaming
from mesh.worker.puller import Puller
from mesh.worker.quota_gate import QuotaGate
from mesh.worker.runner import Runner
from mesh.worker.watchdog import Watchdog

__all__ = ["WorkerHealth", "Worker", "WorkerOptions", "WorkerStatistics"]

log = logging.getLogger("mesh.worker")


class Worker:
    """One worker. `serve` once; `drain` at any time, also twice."""

    def __init__(self, engine: Engine, broker: Broker, options: WorkerOptions, observer: Observer) -> None:
        """`engine` is started; the caller stops it after `serve` returned."""
        self._engine = engine
        self._broker = broker
        self._clock = broker.clock
        self._options = options
        self._observer = observer
        self._capacity = options.capacity or engine.info.capacity
        self._loop = asyncio.get_running_loop()
        self._runners: dict[asyncio.Task[None], Runner] = {}
        self._by_job: dict[JobKey, Runner] = {}  # the newest of each job
        self._afterwork: set[asyncio.Task[None]] = set()
        self._state: State = "starting"
        self._finished = self._returned = self._tokens = 0
        self._ack_wait_s = 0.0
        self._was_told = self._is_over = False
        self.draining = asyncio.Event()  # set once it takes no more
        self._hurry = asyncio.Event()
        self._idle = asyncio.Event()  # set when no job runs
        self._idle.set()
        self._engine_fault: str | None = None
        self._isolation = Isolation()
        self._watchdog = Watchdog(engine, options.progress, self._runners.values, self._engine_died, self._clock)
        self._liveness = Liveness(broker, options.name, self._declared_dead, self._confirmed_again)
        self._puller = Puller(broker, options.model, self._capacity, self._is_held_up, self._start_job)
        self._board: PresenceBoard | None = None
        self.ready = asyncio.Event()  # set once the worker pulls
        self._leases = Leases(broker.connection)
        self._gate = QuotaGate(Quotas(broker), Slots(broker, options.name))
        self._context = WorkerContext(
            worker=options.name,
            engine=engine,
            clock=self._clock,
            journal=broker.journal,
            store=broker.results,
            queue=broker.queue,
            leases=self._leases,
            dead=broker.dead_letters,
            retry=options.retry,
            observer=self._observe,
            shows_steps=options.shows_steps and observer is not ignore,
            streaming=Streaming(window_s=options.window_s, tally=options.tally),
            gate=self._gate,
            isolation=self._isolation,
            liveness=self._liveness,
            death_check=DeathCheck(broker.liveness, broker.journal),
            afterwards=self._afterwards,
            engine_died=self._engine_died,
        )

    def __repr__(self) -> str:
        s = self.statistics()
        return f"<Worker {self._options.name} {s.state}, {s.running}/{s.capacity} running, {s.finished} finished>"

    @property
    def name(self) -> str:
        return self._options.name

    def statistics(self) -> WorkerStatistics:
        """The counters now."""
        return WorkerStatistics(
            state=self._state,
            running=len(self._runners),
            capacity=self._capacity,
            finished=self._finished,
            returned=self._returned,
            tokens=self._tokens + sum(runner.tokens for runner in self._runners.values()),
            open_pulls=self._puller.open_pulls,
            free=self._puller.free,
        )

    def health(self) -> WorkerHealth:
        """The facts about this worker's health."""
        return WorkerHealth(
            state=self._state,
            is_connected=self._broker.connection.is_connected,
            is_confirmed=self._liveness.is_confirmed,
            owes_s=self._watchdog.owes_s(),
            silent_s=self._watchdog.silent_s(),
            stall_s=self._options.progress.stall_s,
            engine_fault=self._engine_fault,
        )

    @property
    def engine(self) -> Engine:
        """The engine that runs the jobs."""
        return self._engine

    @property
    def is_over(self) -> bool:
        """Whether `serve` has returned."""
        return self._is_over

    @property
    def was_told(self) -> bool:
        """Whether `drain` was called, so that its end is no fault of the engine."""
        return self._was_told

    def drain(self) -> None:
        """Stop pulling, and finish or hand back running jobs within the grace period; a second call ends it at once."""
        if self._was_told:
            self._hurry.set()
        self._was_told = True
        self._stop()

    def _stop(self) -> None:
        self._state = "draining"
        self._puller.stop()
        self.draining.set()

    async def serve(self) -> None:
        """Pull and run jobs until `drain`.

        Raises:
            TopologyError: there is no mesh on this NATS.
            EngineDeadError: the engine died; every job was handed back.
        """
        await self._prepare()
        unlisten = self._broker.connection.listen(self._connection_changed)
        commands = Commands(self._broker, self._runners, self._asked_to_drain, self.name)
        dog, pump = self._watchdog, self._puller
        runs = (self._beat, self._live, self._show, pump.tick, pump.repair, dog.probe, dog.watch, self._gate.run)
        side = [self._side(run) for run in runs]
        draining = self._side(self.draining.wait)
        try:
            self._state = "draining" if self.draining.is_set() else "ready"
            self._beat_presence()
            self._puller.pump()
            self.ready.set()
            await asyncio.wait({draining, *side}, return_when=asyncio.FIRST_COMPLETED)
            await self._finish()
            for task in side:
                if task.done():
                    task.result()  # a side task ends only with an error, which ends the worker
        finally:
            for task in (draining, *side):
                task.cancel()
            await asyncio.gather(draining, *side, return_exceptions=True)
            await self._abandon()
            commands.close()
            self._gate.close()
            unlisten()
            self._puller.close()
            self._is_over = True
            self._liveness.leave()
            if self._board is not None:
                self._board.leave()
        if self._engine_fault is not None:
            raise EngineDeadError(self._engine_fault)

    # Starting and ending.

    def _side(self, run: Callable[[], Coroutine[Any, Any, Any]]) -> asyncio.Task[Any]:
        return self._loop.create_task(run(), name=f"mesh-{run.__name__.strip('_')}")

    async def _prepare(self) -> None:
        settings = await self._puller.prepare(self._options.weights)
        self._ack_wait_s = settings.ack_wait_s
        await self._gate.prepare()
        await self._liveness.begin(memory_s=settings.events_age_s / 2)
        self._board = PresenceBoard(
            self._broker, self._options.name, self._options.model, self._engine.info, settings.lanes
        )
        await self._board.look()
        self._puller.owned = self._board.owned

    async def _finish(self) -> None:
        """Wait the grace period for running jobs, then hand the others back."""
        self._state = "draining"
        self._puller.stop()
        self._beat_presence()
        if self._runners and self._engine_fault is None:
            log.info(
                "draining: %d jobs have %.0f s to finish",
                len(self._runners),
                self._options.grace_s,
                extra={"event": "draining"},
            )
            grace_s = self._options.grace_s
            await _wait(self._hurry.wait(), self._idle.wait(), timeout_s=grace_s, how=asyncio.FIRST_COMPLETED)
        for runner in list(self._runners.values()):
            runner.interrupt("drain" if self._engine_fault is None else "dead")
        ended = (self._idle.wait(), self._puller.emptied.wait())
        await _wait(*ended, timeout_s=HAND_BACK_S, how=asyncio.ALL_COMPLETED)

    async def _abandon(self) -> None:
        """Cancel the remaining tasks: jobs that could not be handed back are redelivered when their leases end."""
        tasks = [*self._runners, *self._afterwork]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # Jobs.

    def _is_held_up(self) -> bool:
        """Whether a job pulled now could not begin, or would be given up again."""
        return self._isolation.is_wanted or not self._liveness.is_confirmed

    def _start_job(self, delivery: Delivery) -> None:
        self._observe(
            JobDelivered(
                delivery.ref,
                delivered=delivery.delivered,
                queued_ms=max(0, self._clock.server_unix_ms() - delivery.stored_unix_ms),
                traceparent=delivery.stored.traceparent,
            )
        )
        running = self._by_job.get(delivery.key)
        if running is not None:
            before = running.delivery.ack_subject
            if running.redelivered(delivery):
                self._liveness.gave(before)
                self._liveness.took(delivery.ack_subject)
                self._puller.released()
                return
        runner = Runner(self._context, delivery, Lease(self._ack_wait_s, self._clock.uptime_s()))
        task = self._loop.create_task(runner.run(), name=f"mesh-job-{delivery.job}")
        self._runners[task] = self._by_job[runner.key] = runner
        self._liveness.took(delivery.ack_subject)
        self._idle.clear()
        task.add_done_callback(self._job_over)

    def _job_over(self, task: asyncio.Task[None]) -> None:
        runner = self._runners.pop(task)
        if self._by_job.get(runner.key) is runner:
            del self._by_job[runner.key]
        self._liveness.gave(runner.delivery.ack_subject)
        self._tokens += runner.tokens
        if not self._runners:
            self._idle.set()
        self._puller.released()

    def _afterwards(self, work: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(work, name="mesh-afterwards")
        self._afterwork.add(task)
        task.add_done_callback(self._afterwork.discard)

    def _connection_changed(self, connected: bool) -> None:
        self._observe(ConnectionChanged(connected))
        self._liveness.disturbed()
        self._puller.connection_changed(connected)

    def _confirmed_again(self) -> None:
        self._puller.pump()

    def _declared_dead(self) -> None:
        """Drop all running jobs: other workers have them."""
        for runner in self._runners.values():
            runner.lease.is_lost = True
            runner.interrupt("lost")

    def _asked_to_drain(self) -> DrainAnswer:
        """Drain once. A repeated command does not shorten the grace period, since the first answer may be lost."""
        was_draining = self._was_told
        if not was_draining:
            log.info("asked to drain", extra={"event": "drain_asked"})
            self.drain()
        running, grace_s = len(self._runners), self._options.grace_s
        return DrainAnswer(worker=self.name, running=running, grace_s=grace_s, was_draining=was_draining)

    def _observe(self, signal: Signal) -> None:
        if isinstance(signal, JobEnded):
            self._finished += 1
        elif isinstance(signal, JobReturned):
            self._returned += 1
        try:
            self._observer(signal)
        except Exception:  # an observer's fault must not change the flow
            log.exception("an observer failed", extra={"event": "observer_failed"})

    def _engine_died(self, reason: str) -> None:
        if self._engine_fault is None:
            self._engine_fault = reason
            self._observe(EngineDied(reason))
            self._stop()
            self._hurry.set()  # nothing that runs can finish

    # Side tasks: each runs until it is cancelled.

    async def _beat(self) -> None:
        """Renew every lease in flight; end the jobs whose lease could not be renewed in time."""
        period_s = self._ack_wait_s / LEASE_BEATS
        while True:
            await asyncio.sleep(period_s)
            for runner in list(self._runners.values()):
                sent_s = self._clock.uptime_s()
                if not runner.lease.is_held(sent_s):
                    runner.interrupt("lost")
                elif self._liveness.is_confirmed:
                    self._extend(runner, sent_s, period_s)

    def _extend(self, runner: Runner, sent_s: float, timeout_s: float) -> None:
        tally = self._options.tally

        def answered(error: MeshError | None, header: bytes, payload: bytes) -> None:
            if error is None:
                runner.lease.extended(sent_s)
            if tally is not None:
                tally.renewals += error is None
                tally.refused_renewals += error is not None

        try:
            self._leases.extend(runner.delivery, answered, timeout_s)
        except DisconnectedError:
            return  # the lease is not extended, and the job stops when it ends

    async def _live(self) -> None:
        await self._liveness.run(self._ack_wait_s / LEASE_BEATS)

    async def _show(self) -> None:
        while True:
            await asyncio.sleep(PRESENCE_BEAT_S)
            self._beat_presence()
            if self._board is not None:
                await self._board.look()
                self._puller.owned = self._board.owned

    def _beat_presence(self) -> None:
        if self._board is not None:
            books = self.statistics()
            self._board.beat(WorkerLoad(books.state, books.running, books.finished, books.tokens), books.capacity)


async def _wait(*waits: Coroutine[Any, Any, Any], timeout_s: float, how: str) -> None:
    """Return when one or all of `waits` are done, as asyncio's constant `how` says, or after `timeout_s`."""
    tasks = [asyncio.ensure_future(wait) for wait in waits]
    await asyncio.wait(tasks, timeout=timeout_s, return_when=how)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
