"""One attempt at one job, as a state machine. Pure: events and instants go in, actions come out.

Each method returns the actions to perform, in order. The order guarantees:

* a Result is stored, then announced, then its delivery is acknowledged;
* so a crash between two actions repeats work and loses none;
* a delivery is acknowledged only when the job has a Result;
* every attempt ends with exactly one `Ack`, `Nak` or `Drop`, and that is its last action.
"""

from collections.abc import Sequence
from typing import Literal

import msgspec

from mesh.errors import EngineDeadError, EngineError, MeshError
from mesh.policies.retry import RetryPolicy
from mesh.protocol.history import History, Verdict
from mesh.protocol.messages import ErrorInfo, Note, Result, Started, Status, Usage
from mesh.protocol.outcome import Ending, JobFacts, result_of
from mesh.signals import Cause


class Begin(msgspec.Struct, frozen=True):
    """Publish `started`, then run the engine from `token_ids` on, which readers have seen as `text`."""

    event: Started
    token_ids: tuple[int, ...]
    text: str


class Close(msgspec.Struct, frozen=True):
    """Publish `started` with `closing`, so that the journal refuses events from the job's earlier worker."""

    event: Started


class Store(msgspec.Struct, frozen=True):
    """Store the Result, unless the job has one."""

    result: Result
    ttl_ms: int


class Announce(msgspec.Struct, frozen=True):
    """Publish the Result as the job's last event, unless it is published already."""

    result: Result


class MoveToDeadLetters(msgspec.Struct, frozen=True):
    """Publish a dead letter: the request, and the reason to give it up."""

    reason: ErrorInfo
    attempts: int


class NoteAttempt(msgspec.Struct, frozen=True):
    """Note how this attempt ended, for the next worker of the job."""

    note: Note


class Ack(msgspec.Struct, frozen=True):
    """Acknowledge the delivery, and await the server's confirmation."""


class Nak(msgspec.Struct, frozen=True):
    """Hand the delivery back; JetStream delivers it again after `delay_s` seconds."""

    delay_s: float


class Drop(msgspec.Struct, frozen=True):
    """Do nothing more: another worker has the job."""


_CAUSES: dict[Verdict | None, Cause] = {
    None: "worker_lost",
    "died": "engine_died",
    "failed": "engine_failed",
    "returned": "handed_back",
}

Action = Begin | Close | Store | Announce | MoveToDeadLetters | NoteAttempt | Ack | Nak | Drop


class Attempt:
    """See the module's docstring. Instants are Unix ms."""

    def __init__(self, facts: JobFacts, retry: RetryPolicy) -> None:
        self._facts = facts
        self._retry = retry
        self._history = History()
        self._first_token_ms: int | None = None
        self._began_unix_ms = facts.received_unix_ms
        self._usage = Usage()
        self._finish_reason: str | None = None
        self._is_over = False
        self._resumed_at = 0
        self._taken_from = ""
        self._cause: Cause | None = None
        self._has_begun = False

    @property
    def number(self) -> int:
        """This attempt, from 1; 0 before it began."""
        return self._history.attempts

    @property
    def resumed_at(self) -> int:
        """Output tokens that this attempt kept from earlier ones."""
        return self._resumed_at

    @property
    def taken_from(self) -> str:
        """The worker of the attempt before this one, "" if this is the first."""
        return self._taken_from

    @property
    def cause(self) -> Cause | None:
        """Why the attempt before this one did not end the job, None if this is the first."""
        return self._cause

    @property
    def tokens(self) -> int:
        """Output tokens so far, over all attempts."""
        return self._history.index

    @property
    def is_over(self) -> bool:
        return self._is_over

    @property
    def wants_isolation(self) -> bool:
        """Whether the recalled job must run alone in its engine."""
        history, retry = self._history, self._retry
        is_over = history.result is not None or history.finish_reason is not None
        return not is_over and retry.is_suspect(history.trials) and not retry.is_exhausted(history.trials)

    def recall(self, history: History) -> None:
        """Start from the state in the job's journal."""
        self._history = history

    def first(self, now_unix_ms: int) -> list[Action]:
        """Begin a job that is probably new, without reading its journal. A refused publish leads to `taken_over`."""
        return self._begin(0, now_unix_ms)

    def taken_over(self, resume_index: int, request_is_queued: bool, now_unix_ms: int) -> list[Action]:
        """Continue the recalled job. The engine can continue from the first `resume_index` output tokens.

        `request_is_queued`: the request that the journal names is still in the queue.
        """
        self._require_open()
        history, request = self._history, self._facts.request
        if history.result is not None:
            return self._told(history.result)
        if history.request_sequence not in (0, self._facts.ref.sequence) and request_is_queued:
            return self._end([Ack()])  # a second submit of the same id: the first one is served
        if now_unix_ms >= self._facts.deadline_unix_ms:
            return self.expired(now_unix_ms)
        if history.finish_reason is not None:
            self._usage = history.usage or Usage(completion_tokens=history.index)
            self._finish_reason = history.finish_reason
            return self._settle("finished", None, now_unix_ms)
        if self._retry.is_exhausted(history.trials):
            return self._give_up("its worker died, also when nothing else ran there", now_unix_ms)
        if request is not None and request.on_worker_loss == "fail" and history.attempts > 0:
            reason = ErrorInfo(code="engine_dead", message="its worker was lost, and the request asked not to go on")
            return self._settle("failed", reason, now_unix_ms)
        restart = request is not None and request.on_worker_loss == "restart"
        isolated = self._retry.is_suspect(history.trials)
        return self._begin(0 if restart else resume_index, now_unix_ms, isolated)

    def produced(self, text: str, token_ids: Sequence[int], now_unix_ms: int) -> None:
        """Record tokens from the engine."""
        if self._first_token_ms is None and self._history.index == 0 and token_ids:
            self._first_token_ms = max(0, now_unix_ms - self._facts.stored_unix_ms)
        self._history.grow(text, token_ids)

    def finished(self, finish_reason: str, usage: Usage, now_unix_ms: int) -> list[Action]:
        """End the job: the engine is done, and every token is in the journal."""
        self._finish_reason = finish_reason
        self._usage = usage
        return self._settle("finished", None, now_unix_ms)

    def embedded(self, vectors: list[list[float]], usage: Usage, now_unix_ms: int) -> list[Action]:
        """End the job: the engine made vectors in place of text."""
        self._usage = usage
        return self._settle("finished", None, now_unix_ms, vectors)

    def failed(self, error: MeshError, now_unix_ms: int) -> list[Action]:
        """End or return the job: the engine failed, or the request was refused."""
        self._require_open()
        if isinstance(error, EngineError):
            return self._failed_trial(error, now_unix_ms)
        reason = ErrorInfo(code=error.result_code, message=str(error), retryable=error.retryable)
        return self._settle("failed", reason, now_unix_ms)

    def cancelled(self, now_unix_ms: int) -> list[Action]:
        """End the job as cancelled, on request."""
        reason = ErrorInfo(code="cancelled", message="cancelled on request")
        return self._settle("cancelled", reason, now_unix_ms)

    def expired(self, now_unix_ms: int) -> list[Action]:
        """End the job as expired: its deadline passed."""
        where = "while it ran" if self._history.attempts else "before it started"
        reason = ErrorInfo(code="expired", message=f"the deadline passed {where}")
        return self._settle("expired", reason, now_unix_ms)

    def repeated(self) -> list[Action]:
        """Acknowledge a second request with the id of a job that is already served."""
        self._require_open()
        return self._end([Ack()])

    def found(self, result: Result, is_announced: bool) -> list[Action]:
        """Finish a job that already has a Result, from another process or from before a crash."""
        self._require_open()
        return self._end([Ack()] if is_announced else [Announce(result), Ack()])

    def returned(self) -> list[Action]:
        """Hand the job back, because this worker stops; another continues it at once."""
        self._require_open()
        return self._end([NoteAttempt(self._note("returned")), Nak(0.0)] if self._has_begun else [Nak(0.0)])

    def postponed(self, delay_s: float) -> list[Action]:
        """Hand back a job that may not begin yet, until `delay_s` seconds have passed."""
        self._require_open()
        return self._end([Nak(delay_s)])

    def lost(self) -> list[Action]:
        """Drop the job: the lease ran out, or another worker wrote to the journal."""
        self._require_open()
        return self._end([Drop()])

    def _failed_trial(self, error: EngineError, now_unix_ms: int) -> list[Action]:
        """The engine failed on this job, or died with all its jobs, which counts as a worker's death does."""
        if not self._has_begun:
            return self._end([Nak(0.0)])
        note = self._note("died" if isinstance(error, EngineDeadError) else "failed", str(error))
        self._history.judge([note])
        trials = self._history.trials
        if self._retry.is_exhausted(trials) and not self._retry.unproven(trials):
            return self._end([NoteAttempt(note), *self._give_up(str(error), now_unix_ms)])
        return self._end([NoteAttempt(note), Nak(self._retry.delay_s(len(trials)))])

    def _note(self, verdict: Literal["returned", "failed", "died"], reason: str = "") -> Note:
        return Note(id=self._facts.ref.id, attempt=self.number, verdict=verdict, reason=reason[:500])

    def _begin(self, index: int, now_unix_ms: int, isolated: bool = False) -> list[Action]:
        self._require_open()
        if now_unix_ms >= self._facts.deadline_unix_ms:
            return self.expired(now_unix_ms)
        event = self._started(index, now_unix_ms, isolated=isolated)
        self._has_begun = True
        self._taken_from = self._history.worker
        self._cause = _CAUSES[self._history.verdict] if self._history.attempts else None
        self._history.apply(event)
        self._resumed_at = index
        self._began_unix_ms = now_unix_ms
        return [Begin(event, tuple(self._history.token_ids), self._history.text)]

    def _give_up(self, why: str, now_unix_ms: int) -> list[Action]:
        reason = ErrorInfo(
            code="attempts_exhausted", message=f"given up after {self._history.attempts} attempts: {why}"
        )
        bury: list[Action] = [MoveToDeadLetters(reason, self._history.attempts)]
        return bury + self._settle("failed", reason, now_unix_ms)

    def _settle(
        self,
        status: Status,
        error: ErrorInfo | None,
        now_unix_ms: int,
        vectors: list[list[float]] | None = None,
    ) -> list[Action]:
        self._require_open()
        if self._history.result is not None:
            return self._told(self._history.result)
        close = self._close(now_unix_ms) if status != "finished" else []
        ending = Ending(
            status=status,
            error=error,
            usage=self._usage,
            finish_reason=self._finish_reason,
            vectors=vectors,
            began_unix_ms=self._began_unix_ms,
            first_token_ms=self._first_token_ms,
        )
        result = result_of(self._facts, self._history, ending, now_unix_ms)
        return self._end([*close, Store(result, self._facts.result_ttl_ms), Announce(result), Ack()])

    def _told(self, result: Result) -> list[Action]:
        """Store the Result that ends the journal: the bucket does not have it, or no longer."""
        return self._end([Store(result, self._facts.result_ttl_ms), Ack()])

    def _close(self, now_unix_ms: int) -> list[Action]:
        """Fence the journal where no `started` event of this attempt did."""
        streams = self._facts.request is not None and self._facts.request.stream
        if self._has_begun or not self._history.attempts or not streams:
            return []
        event = self._started(self._history.index, now_unix_ms, closing=True)
        self._history.apply(event)
        return [Close(event)]

    def _started(self, index: int, now_unix_ms: int, *, isolated: bool = False, closing: bool = False) -> Started:
        return Started(
            id=self._facts.ref.id,
            attempt=self._history.attempts + 1,
            index=index,
            worker=self._facts.worker,
            unix_ms=now_unix_ms,
            sequence=self._facts.ref.sequence,
            isolated=isolated,
            closing=closing,
        )

    def _end(self, actions: list[Action]) -> list[Action]:
        self._is_over = True
        return actions

    def _require_open(self) -> None:
        if self._is_over:
            raise RuntimeError("the attempt is over")
