"""Where a job in the queue stands, told from its request and the newest that was written about it. Pure.

Used by control/jobs/listing and control/jobs/job_detail.
"""

from collections.abc import Collection
from typing import Literal

import msgspec

from mesh.protocol.messages import Delta, Event, LaterEvent, Note, Result, Started

# queued: no worker began it. running: a worker does it. retrying: its last attempt is over, by a failure, a hand-back
# or the loss of its worker, and it waits for the next. ending: it has its Result, or is about to get it.
State = Literal["queued", "running", "retrying", "ending"]
STATES: tuple[State, ...] = ("running", "retrying", "ending", "queued")  # as they are listed


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
    deadline_ms: int  # from now until it expires; negative: that is past
    attempt: int = 0  # the newest; 0: none began
    worker: str = ""  # of the newest attempt; "": none, or the journal is kept no longer
    tokens: int = 0  # output tokens so far
    is_streamed: bool = True
    reason: str = ""  # how the last attempt ended, if it is over


class JobState(msgspec.Struct, frozen=True, kw_only=True):
    """What the newest event and note say."""

    state: State
    attempt: int = 0
    tokens: int = 0
    reason: str = ""


def job_state(event: Event | LaterEvent | None, note: Note | None) -> JobState:
    """The state of a job whose request is still in the queue.

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
    """The same, if its worker is among those alive; else it is about to be taken over."""
    if seen.state != "running" or not seen.worker or seen.worker in alive:
        return seen
    return msgspec.structs.replace(seen, state="retrying", reason=f"worker {seen.worker} is gone")


def in_order(jobs: Collection[JobSeen]) -> list[JobSeen]:
    """Those that run first, those that wait last; the oldest first among each."""
    return sorted(jobs, key=lambda each: (STATES.index(each.state), each.sequence))
