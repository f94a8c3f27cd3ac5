"""Performs the actions that end an attempt, in the order the attempt gave them.

The lease is checked before each action. An action that NATS did not answer is repeated until NATS answers or the
lease is lost. Every action is safe to repeat.
"""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar, assert_never

from msgspec.structs import replace

from mesh.broker.stores.deadletters import DeadLetters
from mesh.broker.stores.delivery import Delivery
from mesh.broker.stores.journal import Journal
from mesh.broker.stores.pulls import Leases
from mesh.broker.stores.queue import RequestQueue
from mesh.broker.stores.results import ResultStore
from mesh.clock import Clock
from mesh.engines.base import Engine
from mesh.errors import DisconnectedError, MeshError, RefusedError
from mesh.policies.retry import RetryPolicy
from mesh.protocol import codec
from mesh.protocol.history import LOST
from mesh.protocol.messages import ErrorInfo, Note, Result
from mesh.protocol.timing import RETRY_S
from mesh.signals import (
    AttemptStarted,
    JobBuried,
    JobEnded,
    JobReturned,
    Observer,
    RequestRefused,
    Step,
    When,
)
from mesh.worker.attempt import (
    Ack,
    Action,
    Announce,
    Attempt,
    Begin,
    Close,
    Drop,
    MoveToDeadLetters,
    Nak,
    NoteAttempt,
    Store,
)
from mesh.worker.death_check import DeathCheck
from mesh.worker.isolation import Isolation
from mesh.worker.lease import Lease
from mesh.worker.liveness import Liveness
from mesh.worker.publisher import LostError, Publisher, Streaming
from mesh.worker.quota_gate import QuotaGate

log = logging.getLogger("mesh.worker")

SURVIVED_S = 30.0  # to note that a worker survived an attempt it lost, also after a long time away

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class WorkerContext:
    """The values that all jobs of one worker share."""

    worker: str
    engine: Engine
    clock: Clock
    journal: Journal
    store: ResultStore
    queue: RequestQueue
    leases: Leases
    dead: DeadLetters
    retry: RetryPolicy
    observer: Observer
    shows_steps: bool  # True: the observer gets each Step, which costs one call for each
    streaming: Streaming
    gate: QuotaGate
    isolation: Isolation
    liveness: Liveness
    death_check: DeathCheck
    afterwards: Callable[[Coroutine[Any, Any, None]], None]  # runs work that no job waits for
    engine_died: Callable[[str], None]  # called with the reason when an attempt ended because the engine is dead


class Actions:
    """Performs the actions of one attempt."""

    def __init__(self, context: WorkerContext, delivery: Delivery, lease: Lease) -> None:
        self._context = context
        self._delivery = delivery
        self._lease = lease
        self._ref = delivery.ref
        self._key = delivery.key
        self._public = context.journal.subject(self._key)
        self.result: Result | None = None  # the job's Result: stored by this worker, or found
        self._encoded: tuple[Result, bytes] | None = None  # the Result that was encoded last

    def redelivered(self, delivery: Delivery) -> None:
        """Acknowledge, extend and return this newer delivery of the job from now on."""
        self._delivery = delivery

    def is_held(self) -> bool:
        """Whether this worker may still act for the job."""
        return self._lease.is_held(self._context.clock.uptime_s())

    async def perform(self, actions: Sequence[Action], publisher: Publisher) -> None:
        """Perform the actions in order.

        Raises:
            LostError: another worker has the job; the remaining actions were not performed.
        """
        for action in actions:
            if not self.is_held():
                raise LostError
            match action:
                case Store():
                    await self._store(action)
                case Close():
                    self.step("close", "before")
                    await publisher.fence(action.event)
                    self.step("close", "after")
                case Announce():
                    await self._announce(self.result or action.result, publisher)
                case MoveToDeadLetters():
                    await self._bury(action)
                case NoteAttempt():
                    await self._remark(action)
                case Ack():
                    await self._ack()
                case Nak():
                    self._nak(action)
                case Drop():
                    raise LostError
                case Begin():
                    raise AssertionError("the runner performs Begin")
                case _:
                    assert_never(action)

    async def until_answered(self, effect: Callable[[], Awaitable[T]]) -> T:
        """The result of `effect`, which is repeated while NATS does not answer.

        Raises:
            LostError: the lease was lost first.
        """
        while True:
            if not self.is_held():
                raise LostError
            try:
                return await effect()
            except MeshError as error:  # includes a full store, which is no BrokerError and also passes
                if not error.retryable:
                    raise
                log.debug("job %s: %s; trying again", self._ref.id, error, extra={"event": "effect_retry"})
                await asyncio.sleep(RETRY_S)

    def step(self, name: str, when: When) -> None:
        """Send the observer a Step, if it asked for them."""
        if self._context.shows_steps:
            self._context.observer(Step(self._ref.id, name, when))

    def begun(self, attempt: Attempt) -> None:
        """Tell the observer that the attempt's `started` event is in the journal."""
        how = (attempt.number, attempt.resumed_at, attempt.taken_from, attempt.cause)
        self._context.observer(AttemptStarted(self._ref, *how))

    def refused(self, error: RefusedError) -> None:
        """Tell the observer that the request was refused."""
        self._context.observer(RequestRefused(self._ref, error.code, str(error)))

    def give_up(self, reason: Literal["lost", "drain", "retry", "duplicate"]) -> None:
        """Release the job without a Result from this worker."""
        self._lease.is_lost = True
        self._context.observer(JobReturned(self._ref, reason))

    async def survive(self, attempt: int) -> None:
        """Note that this worker lost the job and is alive, so the attempt does not count as a death."""
        note = codec.encode(Note(id=self._ref.id, attempt=attempt, verdict="returned", reason=LOST))
        subject = self._context.journal.notes_subject(self._key)
        end_s = self._context.clock.monotonic_s() + SURVIVED_S
        while self._context.clock.monotonic_s() < end_s:
            try:
                await self._context.journal.append(subject, note)
            except MeshError:
                await asyncio.sleep(RETRY_S)
            else:
                return

    def _body_of(self, result: Result) -> bytes:
        """The Result in its request's encoding, encoded once for the store and the event."""
        if self._encoded is None or self._encoded[0] is not result:
            self._encoded = result, codec.encode(result, self._delivery.stored.encoding)
        return self._encoded[1]

    async def _store(self, action: Store) -> None:
        self.step("store", "before")
        store, result = self._context.store, action.result
        body = self._body_of(result)
        if len(body) > store.max_bytes:
            result = await self._store_large(result, body)
            body = self._body_of(result)

        async def create() -> bool:
            if not self._context.liveness.is_confirmed:  # the job may have been given away meanwhile
                raise DisconnectedError("the server has not confirmed yet that this worker lives")
            return await store.create(self._key, body, action.ttl_ms)

        created = await self.until_answered(create)
        self.result = result
        if not created:  # another worker's Result, or ours from a try whose answer was lost: the stored one counts
            stored = await self.until_answered(lambda: store.get_written(self._key))
            self.result = stored.result if stored is not None else result
        self.step("store", "after")

    async def _store_large(self, result: Result, body: bytes) -> Result:
        """Put a Result that is too large for a message into the object store; return the Result that names it."""
        name = f"{self._key}.{result.attempts}"  # one name for each attempt: a late writer overwrites no other's
        try:
            await self.until_answered(lambda: self._context.store.put_object(name, body))
        except MeshError as error:
            reason = ErrorInfo(code="too_large", message=f"a Result of {len(body)} bytes cannot be kept: {error}")
            return replace(result, status="failed", text="", embeddings=None, finish_reason=None, error=reason)
        return replace(result, text="", embeddings=None, object=name)

    async def _announce(self, result: Result, publisher: Publisher) -> None:
        self.step("announce", "before")
        if not await publisher.announce(self._body_of(result)):
            entry = await self.until_answered(lambda: self._context.journal.last(self._public))
            if entry is None or not isinstance(entry.event, Result):
                raise LostError  # the worker that wrote since finds the Result, announces it and acks
        self.step("announce", "after")

    async def _bury(self, action: MoveToDeadLetters) -> None:
        self.step("dead", "before")
        await self.until_answered(lambda: self._context.dead.bury(self._delivery, action.reason, action.attempts))
        self._context.observer(JobBuried(self._ref, action.reason.code, action.attempts))
        self.step("dead", "after")

    async def _remark(self, action: NoteAttempt) -> None:
        self.step("note", "before")
        journal, note = self._context.journal, codec.encode(action.note)
        await self.until_answered(lambda: journal.append(journal.notes_subject(self._key), note))
        self.step("note", "after")

    async def _ack(self) -> None:
        self.step("ack", "before")
        confirmed = await self._context.leases.ack(self._delivery)
        self.step("ack", "after")
        if not confirmed:
            log.warning(
                "the ack of job %s was not confirmed: it may be delivered once more, and will not run again",
                self._ref.id,
                extra={"event": "ack_unconfirmed", "job": self._ref.id},
            )
        self._lease.is_lost = True
        result = self.result
        if result is None:
            self._context.observer(JobReturned(self._ref, "duplicate"))
            return
        self._context.observer(
            JobEnded(
                self._ref,
                status=result.status,
                attempts=result.attempts,
                prompt_tokens=result.usage.prompt_tokens,
                cached_tokens=result.usage.cached_tokens,
                tokens=result.usage.completion_tokens,
                queued_ms=result.timing.queued_ms,
                first_token_ms=result.timing.first_token_ms,
                total_ms=result.timing.total_ms,
                code=result.error.code if result.error else None,
            )
        )

    def _nak(self, action: Nak) -> None:
        self.step("nak", "before")
        with contextlib.suppress(DisconnectedError):  # without a connection, it is redelivered when its lease ends
            self._context.leases.nak(self._delivery, action.delay_s)
        self.step("nak", "after")
        self.give_up("retry" if action.delay_s else "drain")
