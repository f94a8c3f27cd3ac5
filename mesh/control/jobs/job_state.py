"""Derives a queued job's state from its request, its newest event and its newest note. Pure."""

from collections.abc import Collection
from typing import Literal

import msgspec

from mesh.protocol.messages import Delta, Event, LaterEvent, Note, Result, Started

# Queued: no worker has started it. Running: a worker runs it. Retrying: its last attempt failed, was handed back or
# lost its worker, and it waits for the next. Ending: its Result is stored, or about to be.
State = Literal["queued", "running", "retrying", "ending"]
STATES: tuple[State, ...] = ("running", "retrying", "ending", "queued")  # in the order of the list


class JobSeen(msgspec.Struct, frozen=True, kw_only=True):
    """One job in the queue."""

    job: str
    tenant: str
    model: str
    tier: str
    lane: str
    state: State
    sequence: int  # of its request
    age_ms: int  # since it was stored
    deadline_ms: int  # from now until it expires; negative: it is past
    attempt: int = 0  # the newest; 0: none has started
    worker: str = ""  # of the newest attempt; "": none, or its events are gone
    tokens: int = 0  # output tokens so far
    is_streamed: bool = True
    reason: str = ""  # how the last attempt ended, if it is over


class JobState(msgspec.Struct, frozen=True, kw_only=True):
    """The state of a job from its newest event and note."""

    state: State
    attempt: int = 0
    tokens: int = 0
    reason: str = ""


def job_state(event: Event | LaterEvent | None, note: Note | None) -> JobState:
    """Returns the state of a job whose request is still in the queue.

    Args:
        event: the newest of its journal.
        note: the newest on how one of its attempts ended.
    """
    if event is None:
        return JobState(state="queued")
    if isinstance(event, Result):
        return JobState(state="ending", attempt=event.attempts, tokens=event.usage.completion_tokens)
    tokens = event.index + len(event.token_ids) if isinstance(event, Delta) else event.index
    if isinstance(event, Started) and event.closing:
        return JobState(state="ending", attempt=event.attempt - 1, tokens=tokens)
    if note is not None and note.attempt == event.attempt:
        reason = f"{note.verdict}: {note.reason}" if note.reason else note.verdict
        return JobState(state="retrying", attempt=event.attempt, tokens=tokens, reason=reason)
    return JobState(state="running", attempt=event.attempt, tokens=tokens)


def without_lost(seen: JobSeen, alive: Collection[str]) -> JobSeen:
    """Returns the job unchanged if its worker is alive; else as retrying."""
    if seen.state != "running" or not seen.worker or seen.worker in alive:
        return seen
    return msgspec.structs.replace(seen, state="retrying", reason=f"worker {seen.worker} is gone")


def in_order(jobs: Collection[JobSeen]) -> list[JobSeen]:
    """Returns running jobs first and waiting jobs last, each the oldest first."""
    return sorted(jobs, key=lambda each: (STATES.index(each.state), each.sequence))
