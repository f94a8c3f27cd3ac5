"""What happened: values handed to an Observer, which watches and cannot change the flow.

A worker or a client is given `observer: Callable[[Signal], None]`; logs, metrics and the chaos tests
are observers. An observer must not block, and what it raises is logged and otherwise ignored.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

When = Literal["before", "after"]


@dataclass(frozen=True, slots=True)
class JobDelivered:
    """JetStream handed a job to this worker."""

    job: str
    tenant: str
    model: str
    tier: str
    delivered: int  # JetStream's own count, from 1; may repeat after a server crash
    queued_ms: int


@dataclass(frozen=True, slots=True)
class AttemptStarted:
    """The job is this worker's: its `started` event is in the journal."""

    job: str
    tenant: str
    model: str
    tier: str
    attempt: int
    index: int  # output tokens that stand from earlier attempts
    taken_from: str  # the worker of the attempt before, "" for the first


@dataclass(frozen=True, slots=True)
class JobEnded:
    """The job has its Result, and its message is acknowledged."""

    job: str
    tenant: str
    model: str
    tier: str
    status: str
    attempts: int
    prompt_tokens: int
    cached_tokens: int  # of the prompt, found in the engine's cache
    tokens: int  # of output, over all attempts
    queued_ms: int
    first_token_ms: int | None
    total_ms: int
    code: str | None  # of the error, None if it finished


@dataclass(frozen=True, slots=True)
class JobReturned:
    """This worker gives the job up without a Result; JetStream hands it to another, or to this one again."""

    job: str
    tenant: str
    model: str
    tier: str
    reason: Literal["lost", "drain", "retry", "duplicate"]


@dataclass(frozen=True, slots=True)
class RequestRefused:
    """A body that is no request was answered with a failed Result."""

    job: str
    tenant: str
    model: str
    tier: str
    code: str
    reason: str


@dataclass(frozen=True, slots=True)
class Step:
    """One effect of the worker is about to be performed, or was: the crash points of the chaos tests."""

    job: str
    # taken, recall, started, delta, last (the delta that says how it ended), store, announce, ack;
    # close, note, nak, dead
    name: str
    when: When


@dataclass(frozen=True, slots=True)
class EngineDied:
    """The engine is gone; the worker hands its jobs back."""

    reason: str


@dataclass(frozen=True, slots=True)
class ConnectionChanged:
    """The connection to NATS was lost, or is there again."""

    connected: bool


Signal = JobDelivered | AttemptStarted | JobEnded | JobReturned | RequestRefused | Step | EngineDied | ConnectionChanged
Observer = Callable[[Signal], None]


def ignore(signal: Signal) -> None:
    """The observer of those who watch nothing."""
