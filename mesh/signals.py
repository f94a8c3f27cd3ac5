"""Signals: the events of a process, as values for an Observer. An observer cannot change the flow.

A worker or a client takes `observer: Callable[[Signal], None]`. Logs, metrics and the chaos tests are observers. An
observer must not block. Its exceptions are logged and otherwise ignored.
"""

from bisect import bisect_left
from collections.abc import Callable
from typing import Literal

import msgspec

from mesh.job_key import JobKey, JobRef

When = Literal["before", "after"]
Operation = Literal["chat", "text_completion", "embeddings"]

# The reasons why a job's last attempt did not end the job.
Cause = Literal[
    "worker_lost",  # its worker reported nothing: it is dead or disconnected
    "engine_died",
    "engine_failed",  # on this job
    "handed_back",  # its worker returned the job, for example to drain
]


class JobSignal(msgspec.Struct, frozen=True, gc=False):
    """The common part of all signals of one job."""

    ref: JobRef  # its model may be any name, where no worker serves it

    @property
    def job(self) -> str:
        """The job's id."""
        return self.ref.id

    @property
    def tenant(self) -> str:
        return self.ref.tenant

    @property
    def model(self) -> str:
        return self.ref.model

    @property
    def tier(self) -> str:
        return self.ref.tier

    @property
    def sequence(self) -> int:
        """The request's sequence in its stream; 0: not known."""
        return self.ref.sequence

    @property
    def key(self) -> JobKey:
        """The job's identity."""
        return self.ref.key


class JobDelivered(JobSignal, frozen=True, gc=False):
    """JetStream delivered a job to this worker."""

    delivered: int  # JetStream's delivery count, from 1; may repeat after a server crash
    queued_ms: int
    traceparent: str = ""  # the submitter's W3C traceparent; not validated


class AttemptStarted(JobSignal, frozen=True, gc=False):
    """This worker owns the job: the attempt's `started` event is in the journal."""

    attempt: int
    index: int  # output tokens kept from earlier attempts
    taken_from: str  # the previous attempt's worker; "" for the first attempt
    cause: Cause | None = None  # why the previous attempt did not end the job; None for the first


class EngineEnded(JobSignal, frozen=True, gc=False):
    """The engine finished this attempt, or was stopped. Sent once for each attempt that reached the engine."""

    attempt: int
    operation: Operation
    engine: str  # EngineInfo.name
    outcome: str  # the finish reason; else the error's code, or the reason of the interruption
    is_finished: bool
    seconds: float  # from the call to its end
    first_token_s: float | None  # from the call to its first token; None: there was none
    prompt_tokens: int
    cached_tokens: int
    tokens: int  # output tokens of this attempt


class JobBuried(JobSignal, frozen=True, gc=False):
    """The job was stored as a dead letter; its failed Result follows."""

    code: str
    attempts: int


class JobEnded(JobSignal, frozen=True, gc=False):
    """The job has its Result, and its message is acknowledged."""

    status: str
    attempts: int
    prompt_tokens: int
    cached_tokens: int  # prompt tokens found in the engine's prefix cache
    tokens: int  # output tokens of all attempts
    queued_ms: int
    first_token_ms: int | None
    total_ms: int
    code: str | None  # the error's code; None if the job finished


class JobReturned(JobSignal, frozen=True, gc=False):
    """This worker returned the job without a Result; JetStream delivers it to another worker, or to this one again."""

    reason: Literal["lost", "drain", "retry", "duplicate"]


class RequestRefused(JobSignal, frozen=True, gc=False):
    """A message in the queue was not a valid request, and got a failed Result."""

    code: str
    reason: str


class RequestAccepted(JobSignal, frozen=True, gc=False):
    """This process's gateway accepted a request as a job."""


class RequestDenied(msgspec.Struct, frozen=True, gc=False):
    """This process's gateway refused a request. Its names are the client's own, and were not validated."""

    tenant: str
    model: str
    code: str


class JobEndedUnrun(JobSignal, frozen=True, gc=False):
    """This process ended a job that no worker had: past its deadline, cancelled, or for a model nobody serves."""

    status: str
    code: str
    cause: str
    total_ms: int


class Step(msgspec.Struct, frozen=True, gc=False):
    """The worker is about to perform an action, or has performed it. The chaos tests crash at these points."""

    job: str
    # taken, recall, started, delta, last (the delta with the finish reason), store, announce, ack;
    # close, note, nak, dead
    name: str
    when: When


class EngineDied(msgspec.Struct, frozen=True, gc=False):
    """The engine died; the worker hands its jobs back."""

    reason: str


class ConnectionChanged(msgspec.Struct, frozen=True, gc=False):
    """The connection to NATS was lost, or came back."""

    connected: bool


Signal = (
    JobDelivered
    | AttemptStarted
    | EngineEnded
    | JobBuried
    | JobEnded
    | JobReturned
    | RequestRefused
    | RequestAccepted
    | RequestDenied
    | JobEndedUnrun
    | Step
    | EngineDied
    | ConnectionChanged
)
Observer = Callable[[Signal], None]


def ignore(signal: Signal) -> None:
    """Observe nothing; the default observer."""


def all_of(*observers: Observer) -> Observer:
    """Return an observer that calls each of these in order. An exception of one skips the later ones."""
    active = [each for each in observers if each is not ignore]
    if len(active) < 2:
        return active[0] if active else ignore

    def observe(signal: Signal) -> None:
        for each in active:
            each(signal)

    return observe


# Upper bounds of a Tally's buckets; one more bucket is open.
CHUNK_TOKENS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
GAP_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)


class Tally:
    """Counts events that are too frequent for signals. One worker writes it; the metrics read it."""

    __slots__ = ("event_tokens", "events", "events_by_tokens", "gaps", "gaps_s", "refused_renewals", "renewals")

    def __init__(self) -> None:
        self.events = 0  # deltas in the journal
        self.event_tokens = 0  # tokens in all deltas
        self.events_by_tokens = [0] * (len(CHUNK_TOKENS) + 1)
        self.gaps = [0] * (len(GAP_S) + 1)  # times between two outputs of one job
        self.gaps_s = 0.0  # their sum
        self.renewals = 0  # confirmed lease renewals
        self.refused_renewals = 0  # refused or unanswered lease renewals

    def published(self, tokens: int) -> None:
        """Count a delta of `tokens` tokens, stored in the journal."""
        self.events += 1
        self.event_tokens += tokens
        self.events_by_tokens[bisect_left(CHUNK_TOKENS, tokens)] += 1

    def waited(self, seconds: float) -> None:
        """Count the time between two outputs of the engine for one job."""
        self.gaps_s += seconds
        self.gaps[bisect_left(GAP_S, seconds)] += 1
