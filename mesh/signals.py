"""What happened: values handed to an Observer, which watches and cannot change the flow.

A worker or a client is given `observer: Callable[[Signal], None]`; logs, metrics and the chaos tests
are observers. An observer must not block, and what it raises is logged and otherwise ignored.
"""

from bisect import bisect_left
from collections.abc import Callable
from typing import Literal

import msgspec

from mesh.job_key import JobKey, JobRef

When = Literal["before", "after"]
Operation = Literal["chat", "text_completion", "embeddings"]

# Why a job's last attempt did not end it: its worker left no word, and is dead or cut off; its engine died, or failed
# on this job; or its worker handed it back, as one that drains does.
Cause = Literal["worker_lost", "engine_died", "engine_failed", "handed_back"]


class JobSignal(msgspec.Struct, frozen=True, gc=False):
    """What the signals of one job have in common."""

    ref: JobRef  # its model is any word where no worker serves it

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
        """Of the request in its stream; 0: not known."""
        return self.ref.sequence

    @property
    def key(self) -> JobKey:
        """The job's identity."""
        return self.ref.key


class JobDelivered(JobSignal, frozen=True, gc=False):
    """JetStream handed a job to this worker."""

    delivered: int  # JetStream's own count, from 1; may repeat after a server crash
    queued_ms: int
    traceparent: str = ""  # the trace it belongs to, as its submitter sent it; unchecked


class AttemptStarted(JobSignal, frozen=True, gc=False):
    """The job is this worker's: its `started` event is in the journal."""

    attempt: int
    index: int  # output tokens that stand from earlier attempts
    taken_from: str  # the worker of the attempt before, "" for the first
    cause: Cause | None = None  # why that one did not end the job, None for the first


class EngineEnded(JobSignal, frozen=True, gc=False):
    """The engine is done with this attempt, or was stopped. Told once for each attempt that reached the engine."""

    attempt: int
    operation: Operation
    engine: str  # its name, as EngineInfo has it
    outcome: str  # the finish reason; else the error's code, or why it was interrupted
    is_finished: bool
    seconds: float  # from the call until it was over
    first_token_s: float | None  # from the call until its first token; None: there was none
    prompt_tokens: int
    cached_tokens: int
    tokens: int  # of output, by this attempt


class JobBuried(JobSignal, frozen=True, gc=False):
    """The job is kept as a dead letter; its failed Result follows."""

    code: str
    attempts: int


class JobEnded(JobSignal, frozen=True, gc=False):
    """The job has its Result, and its message is acknowledged."""

    status: str
    attempts: int
    prompt_tokens: int
    cached_tokens: int  # of the prompt, found in the engine's cache
    tokens: int  # of output, over all attempts
    queued_ms: int
    first_token_ms: int | None
    total_ms: int
    code: str | None  # of the error, None if it finished


class JobReturned(JobSignal, frozen=True, gc=False):
    """This worker gives the job up without a Result; JetStream hands it to another, or to this one again."""

    reason: Literal["lost", "drain", "retry", "duplicate"]


class RequestRefused(JobSignal, frozen=True, gc=False):
    """A body that is no request was answered with a failed Result."""

    code: str
    reason: str


class RequestAccepted(JobSignal, frozen=True, gc=False):
    """A request became a job at this process's front door."""


class RequestDenied(msgspec.Struct, frozen=True, gc=False):
    """A request was refused here before it was a job. Its names are as it was sent: any words."""

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
    """One effect of the worker is about to be performed, or was: the crash points of the chaos tests."""

    job: str
    # taken, recall, started, delta, last (the delta that says how it ended), store, announce, ack;
    # close, note, nak, dead
    name: str
    when: When


class EngineDied(msgspec.Struct, frozen=True, gc=False):
    """The engine is gone; the worker hands its jobs back."""

    reason: str


class ConnectionChanged(msgspec.Struct, frozen=True, gc=False):
    """The connection to NATS was lost, or is there again."""

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
    """The observer of those who watch nothing."""


def all_of(*observers: Observer) -> Observer:
    """Tells each of them. One that raises keeps it from those after it."""
    told = [each for each in observers if each is not ignore]
    if len(told) < 2:
        return told[0] if told else ignore

    def observe(signal: Signal) -> None:
        for each in told:
            each(signal)

    return observe


# Upper bounds of the counts in a Tally, the last one open.
CHUNK_TOKENS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
GAP_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)


class Tally:
    """Counts what happens too often for a signal each. Written by one worker, read by whoever watches it."""

    __slots__ = ("event_tokens", "events", "events_by_tokens", "gaps", "gaps_s", "refused_renewals", "renewals")

    def __init__(self) -> None:
        self.events = 0  # deltas in the journal
        self.event_tokens = 0  # in all of them
        self.events_by_tokens = [0] * (len(CHUNK_TOKENS) + 1)
        self.gaps = [0] * (len(GAP_S) + 1)  # times between two outputs of one job
        self.gaps_s = 0.0  # their sum
        self.renewals = 0  # of leases, confirmed
        self.refused_renewals = 0  # refused or unanswered

    def published(self, tokens: int) -> None:
        """A delta of so many tokens is in the journal."""
        self.events += 1
        self.event_tokens += tokens
        self.events_by_tokens[bisect_left(CHUNK_TOKENS, tokens)] += 1

    def waited(self, seconds: float) -> None:
        """The engine brought a job's next output after so long."""
        self.gaps_s += seconds
        self.gaps[bisect_left(GAP_S, seconds)] += 1
