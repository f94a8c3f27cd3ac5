"""Runs one attempt from its delivery to its end. `worker/attempt` decides; this module performs.

A job begins without a check whether it is new: `started` is published expecting an empty journal, and the engine
starts at the same time. Only if the server refuses the event does the runner read the journal and take the job over.
"""

import asyncio
import contextlib
import logging
from collections.abc import Coroutine, Iterator
from dataclasses import replace
from typing import Any, Literal, TypeVar

from mesh.broker.stores.delivery import Delivery, refusal
from mesh.broker.stores.journal import Entry
from mesh.broker.stores.results import Stored
from mesh.errors import EngineDeadError, EngineFailedError, MeshError, RefusedError
from mesh.job_key import JobKey
from mesh.policies.quota import pause_s
from mesh.protocol.history import History
from mesh.protocol.messages import Result, Usage
from mesh.protocol.outcome import JobFacts
from mesh.protocol.timing import ENDING_S, RETRY_S
from mesh.worker.actions import Actions, WorkerContext
from mesh.worker.attempt import Action, Attempt, Begin
from mesh.worker.cancel_scope import CancelScope
from mesh.worker.engine_call import EngineCall, Outcome
from mesh.worker.lease import Lease
from mesh.worker.publisher import LostError, Publisher, PublisherHooks
from mesh.worker.takeover import read_takeover

log = logging.getLogger("mesh.worker")

# How long an ended job keeps its slot while its last tokens cannot be journaled. Then it is delivered again.
JOURNAL_PATIENCE_S = 30.0

# Why the engine's work on a job is interrupted. Found: it has a Result already. Stalled: it makes no progress while
# other jobs do. Dead: the engine counts as dead.
Interrupt = Literal["lost", "found", "cancelled", "expired", "drain", "stalled", "dead"]

T = TypeVar("T")


class Runner:
    """One attempt at one job. `run` once; `interrupt` at any time while it runs."""

    def __init__(self, context: WorkerContext, delivery: Delivery, lease: Lease) -> None:
        self._context = context
        self._delivery = delivery
        self._lease = lease
        self._actions = Actions(context, delivery, lease)
        self._request = delivery.stored.request
        self._facts = JobFacts(
            ref=delivery.ref,
            worker=context.worker,
            stored_unix_ms=delivery.stored_unix_ms,
            received_unix_ms=context.clock.server_unix_ms(),
            request=self._request,
        )
        self._public = context.journal.subject(delivery.key)
        self._interrupt: Interrupt | None = None
        self._found: Stored | None = None
        self._scope = CancelScope()  # of the work that an interrupt cancels
        self._run: EngineCall | None = None  # the newest
        self._is_alone = False  # in the engine
        self.waits_for_objections = False  # True during and after the wait
        self._awaited_end = 0  # the last sequence of a closed journal whose Result this runner has waited for
        self._renew()

    @property
    def key(self) -> JobKey:
        """The job's identity."""
        return self._facts.key

    @property
    def delivery(self) -> Delivery:
        return self._delivery

    @property
    def lease(self) -> Lease:
        return self._lease

    @property
    def tokens(self) -> int:
        """Output tokens so far, over all attempts."""
        return self._attempt.tokens

    @property
    def progressed_s(self) -> float | None:
        """When the engine last made output for this job, or got it; monotonic. None: the engine does not have it."""
        return self._run.progressed_s if self._run is not None else None

    @property
    def result(self) -> Result | None:
        """The job's Result, once this runner stored or found it."""
        return self._actions.result

    def interrupt(self, reason: Interrupt) -> None:
        """Cancel the engine's work and end the attempt for `reason`. The first reason counts."""
        if self._interrupt is None:
            self._interrupt = reason
            self._scope.cancel()

    async def run(self) -> None:
        """Serve the delivery to its end. Raises nothing but CancelledError, after which the job is redelivered."""
        try:
            self._actions.step("taken", "after")
            actions = await self._serve()
            await self._actions.perform(actions, self._publisher)
            if self.result is not None and not self._context.gate.is_open_to(self._facts.ref.tenant):
                self._context.afterwards(self._context.gate.spent(self.result, self._now_unix_ms()))
        except LostError:
            self._actions.give_up("lost")
            if self._has_begun:
                self._context.afterwards(self._actions.survive(self._attempt.number))
        except Exception:  # the outermost frame of a job: its lease ends, and it is redelivered
            log.exception(
                "job %s met a fault of this worker; it is delivered again when its lease ends",
                self._facts.ref.id,
                extra={"event": "runner_failed", "job": self._facts.ref.id},
            )
            self._actions.give_up("lost")
        finally:
            self._publisher.close()
            self._context.gate.leave((self._facts.ref.tenant, self._facts.ref.sequence))

    def _now_unix_ms(self) -> int:
        """The server's time, because the server stamped the request."""
        return self._context.clock.server_unix_ms()

    def _renew(self) -> None:
        """Start over with a new attempt and a new publisher."""
        self._attempt = Attempt(self._facts, self._context.retry)
        self._has_begun = False
        self._publisher = Publisher(
            self._context.journal,
            self.key,
            self._delivery.stored.encoding,
            replace(self._context.streaming, streams=self._request is None or self._request.stream),
            PublisherHooks(
                is_held=self._actions.is_held,
                on_lost=lambda: self.interrupt("lost"),
                on_begun=self._begun,
                step=self._actions.step if self._context.shows_steps else None,
            ),
            self._context.clock,
        )
        if self._interrupt in ("lost", "found"):
            self._interrupt = None

    async def _serve(self) -> list[Action]:
        """Run the job; the actions that end the attempt."""
        if self._request is None:
            return await self._refuse(refusal(self._delivery))
        if not self._context.gate.is_open_to(self._facts.ref.tenant):
            turned_away = await self._turned_away()
            if turned_away is not None:
                return turned_away
        actions: list[Action] | None = None
        # Past its deadline, another process may have announced a Result and died before it stored it.
        if self._delivery.delivered == 1 and self._now_unix_ms() < self._facts.deadline_unix_ms:
            self._context.store.check(self.key, self._result_found)
            if await self._enter(isolated=False):
                try:
                    actions = await self._begin(self._attempt.first(self._now_unix_ms()), last=0)
                finally:
                    self._context.isolation.leave(self._is_alone)
            elif self._interrupt != "found":
                actions = await self._conclude(None)
        while actions is None:
            self._renew()
            actions = await self._take_over()
            if actions is None:
                await asyncio.sleep(RETRY_S)
        return actions

    async def _turned_away(self) -> list[Action] | None:
        """The actions for a job that its tenant's limits keep from the engine; None: it may run."""
        if self._now_unix_ms() >= self._facts.deadline_unix_ms:
            return None  # it ends as expired
        if not await self._has_journal():
            error = await self._context.gate.refusal(self._delivery, self._now_unix_ms())
            if error is not None:
                return await self._refuse(error)
        if await self._context.gate.take((self._facts.ref.tenant, self._facts.ref.sequence)):
            return None
        return self._attempt.postponed(pause_s(self._delivery.delivered))

    async def _refuse(self, error: RefusedError) -> list[Action]:
        """End a refused request as failed under its own id, unless another job has that id."""
        self._actions.refused(error)
        if await self._has_journal():
            return self._attempt.repeated()
        return self._attempt.failed(error, self._now_unix_ms())

    async def _has_journal(self) -> bool:
        """Whether a job of this id has begun."""
        journal = self._context.journal
        for subject in (self._public, journal.attempts_subject(self.key)):
            if await self._actions.until_answered(lambda subject=subject: journal.last(subject)) is not None:  # type: ignore[misc]
                return True
        return False

    async def _take_over(self) -> list[Action] | None:
        """Continue a job from its journal. None: the journal grew meanwhile, so read it again."""
        assert self._request is not None
        context = self._context
        self._actions.step("recall", "before")
        recalled = await read_takeover(context, self._actions, self.key, self._request.stream, bool(self._awaited_end))
        if recalled.stored is not None:
            return self._settle_found(recalled.stored, recalled.last)
        history, last = recalled.history, recalled.last.sequence if recalled.last is not None else 0
        self._actions.step("recall", "after")
        if history.is_ending and history.result is None and self._awaited_end != last:
            self._awaited_end = last
            await asyncio.sleep(ENDING_S)  # the process that closed the journal stores the Result, or has died
            return None
        is_queued = False
        if history.request_sequence not in (0, self._facts.ref.sequence):
            first = await self._actions.until_answered(lambda: context.queue.get(history.request_sequence))
            is_queued = first is not None
        index = 0
        if history.token_ids:
            index = context.engine.resume_index(self._request, history.token_ids, history.text)
        if history.result is None and not await self._may_be_buried(history):
            return None
        self._attempt.recall(history)
        isolated = self._attempt.wants_isolation
        if self._interrupt is not None or not await self._enter(isolated):
            self._publisher.follow(last if self._request.stream else 0)
            return await self._conclude(None)
        try:
            return await self._begin(self._attempt.taken_over(index, is_queued, self._now_unix_ms()), last)
        finally:
            context.isolation.leave(self._is_alone)

    async def _may_be_buried(self, history: History) -> bool:
        """Ping the workers that left no note, and judge those attempts. False: they had time to object; read again."""
        doubts = self._context.retry.unproven(history.trials)
        verify, now = self._context.death_check.verify, self._now_unix_ms()
        left_s = await self._actions.until_answered(lambda: verify(self.key, history, doubts, now)) if doubts else 0.0
        if not left_s or self.waits_for_objections:  # it has waited itself, so no other clock matters
            return True
        self.waits_for_objections = True
        with self._until_deadline():
            await self._interruptible(asyncio.sleep(left_s))
        return self._interrupt is not None

    async def _enter(self, isolated: bool) -> bool:
        """Take a place in the engine; False: an interrupt came first, or the job is handed back."""
        isolation = self._context.isolation
        self._is_alone = isolated
        if isolation.take(isolated):
            return True
        if not isolated or isolation.is_wanted:
            self.interrupt("drain")
            return False
        turn, has_place = isolation.line_up(), False
        try:
            with self._until_deadline():
                has_place = await self._interruptible(_done(turn)) is True
            return has_place
        finally:
            if not has_place:
                isolation.give_up(turn)

    @contextlib.contextmanager
    def _until_deadline(self) -> Iterator[None]:
        """Interrupt the job at its deadline while the block runs."""
        left_s = (self._facts.deadline_unix_ms - self._now_unix_ms()) / 1000
        timer = asyncio.get_running_loop().call_later(max(0.0, left_s), self.interrupt, "expired")
        try:
            yield
        finally:
            timer.cancel()

    async def _begin(self, actions: list[Action], last: int) -> list[Action] | None:
        """Perform `Begin`, if it is the first action. None: the journal does not end at `last`."""
        begin = actions[0]
        if not isinstance(begin, Begin):
            self._publisher.follow(last if self._request is not None and self._request.stream else 0)
            return actions
        self._actions.step("started", "before")
        self._publisher.begin(begin.event, last)
        # Send the event before the engine gets the job: if the job kills this process at once, the attempt counts.
        await asyncio.sleep(0)
        with self._until_deadline():
            outcome = await self._interruptible(self._run_engine(begin))
            if self._interrupt == "lost":
                if self._publisher.is_refused_first:
                    return None
                raise LostError
            return await self._conclude(outcome)

    async def _run_engine(self, begin: Begin) -> Outcome:
        assert self._request is not None
        self._run = run = EngineCall(self._context, self._facts.ref, self._request, self._attempt, self._publisher)
        run.on_grown = self._come_out if self._is_alone else None
        try:
            return await run.run(begin)
        finally:
            self._context.observer(run.told(self._interrupt))

    def _come_out(self) -> None:
        """Admit other jobs: this one made progress, so it is no longer suspect."""
        self._is_alone = False
        self._context.isolation.share()

    async def _interruptible(self, work: Coroutine[Any, Any, T]) -> T | None:
        """Await `work`, unless an interrupt comes before or meanwhile; None: one came."""
        if self._interrupt is not None:
            work.close()
            return None
        return await self._scope.run(work)

    async def _conclude(self, outcome: Outcome) -> list[Action] | None:
        """The actions for the engine's outcome, once every token is in the journal."""
        try:
            await self._publisher.wait_idle(JOURNAL_PATIENCE_S)
        except LostError:
            if self._publisher.is_refused_first:
                return None
            raise
        now = self._now_unix_ms()
        match outcome:
            case (str() as reason, Usage() as usage):
                return self._attempt.finished(reason, usage, now)
            case list() as vectors:
                usage = self._run.usage if self._run is not None else Usage()
                return self._attempt.embedded(vectors, usage, now)
            case MeshError() as error:
                if isinstance(error, EngineDeadError):
                    self._context.engine_died(str(error))
                return self._attempt.failed(error, now)
        match self._interrupt:
            case "cancelled":
                return self._attempt.cancelled(now)
            case "expired":
                return self._attempt.expired(now)
            case "drain":
                return self._attempt.returned()
            case "stalled":
                return self._attempt.failed(EngineFailedError("the job got nowhere while others did"), now)
            case "dead":
                return self._attempt.failed(EngineDeadError("the engine died"), now)
        if self._found is not None:
            entry = await self._actions.until_answered(lambda: self._context.journal.last(self._public))
            return self._settle_found(self._found, entry)
        raise LostError

    def _settle_found(self, stored: Stored, last: Entry | None) -> list[Action]:
        """The actions for a job that has a Result: announce it, if it is not announced."""
        self._actions.result = stored.result
        is_announced = last is not None and isinstance(last.event, Result)
        self._publisher.follow(last.sequence if last is not None else 0)
        return self._attempt.found(stored.result, is_announced)

    def redelivered(self, delivery: Delivery) -> bool:
        """Adopt a second delivery of this job, which JetStream sends after a crash; False: the job is lost."""
        is_ours = self._actions.is_held() and self._interrupt != "lost"
        if delivery.stored.sequence != self._facts.ref.sequence or not is_ours:
            return False
        self._delivery = delivery
        self._actions.redelivered(delivery)
        self._lease.extended(self._context.clock.uptime_s())
        return True

    def _begun(self) -> None:
        self._has_begun = True
        self._actions.step("started", "after")
        self._actions.begun(self._attempt)

    def _result_found(self, stored: Stored) -> None:
        self._found = stored
        self.interrupt("found")


async def _done(turn: asyncio.Future[None]) -> bool:
    await turn
    return True
