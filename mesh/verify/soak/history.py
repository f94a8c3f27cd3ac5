"""The records of a soak: its requests, its faults, and every observed message. Pure.

All instants are seconds since the run began. `order` is a record's position among all messages that the watcher
received, so that any two records can be compared. The modules load, wire, faults and collect write the records. The
rules and the report read them.
"""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

from mesh.protocol.messages import Delta, Event, Request, Result, Started, Tier

JobKind = Literal[
    "plain",
    "poison",  # kills every worker that runs it
    "stumble",  # fails once, in the middle
    "wreck",  # kills its engine in the middle, with all jobs on it
    "restart",  # asks for a new start when its worker is lost
    "twice",  # submitted by two clients at once, under one id
    "cancel",
    "deadline",
]
Reading = Literal[
    "live",  # from the first token
    "late",  # by its id, some time later
    "none",  # no reader follows the stream; only the Result is read
]
FaultKind = Literal["kill", "stop", "cut", "reset", "slow", "server"]
Where = Literal["events", "attempts", "results", "dead"]
Verb = Literal["ack", "nak", "term", "remove"]


@dataclass(frozen=True, slots=True)
class Requested:
    """One planned request."""

    job: str
    tenant: str
    tier: Tier
    kind: JobKind
    reading: Reading
    request: Request
    at_s: float


@dataclass(frozen=True, slots=True)
class Submitted:
    """The outcome of one submit, as its client saw it."""

    at_s: float
    job: str
    outcome: Literal["ok", "unknown", "refused"]
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Sent:
    """One message to a store, stored by JetStream or refused."""

    at_s: float
    order: int
    to: Where
    job: str
    what: str  # started, delta, result; returned and other notes; ? for a message that does not decode
    expected: int | None  # its fence; None: it has none
    sender: str  # the prefix of the reply inbox, which identifies the connection; "" without a reply subject
    attempt: int = 0
    index: int = 0
    tokens: int = 0
    worker: str = ""


@dataclass(frozen=True, slots=True)
class Settled:
    """An acknowledgement of a delivery, or a removal from the queue."""

    at_s: float
    order: int
    sequence: int  # of the request in its stream
    verb: Verb
    is_confirmed: bool  # it asks for a confirmation
    sender: str  # as in Sent


@dataclass(frozen=True, slots=True)
class StoredEvent:
    """One stored message of the event stream."""

    sequence: int
    event: Event | None  # None: a note, or a message that no worker writes
    note: str = ""


@dataclass(frozen=True, slots=True)
class Shown:
    """The output that one reader got, in order."""

    job: str
    reading: Reading
    pieces: tuple[Delta, ...]
    restarts: int  # how often the reader was told to discard its output
    result: Result | None  # None: the reader got no Result
    fault: str = ""  # why it got none


@dataclass(frozen=True, slots=True)
class CancelRequested:
    """A client's request to cancel a job."""

    job: str
    asked_s: float
    answered_s: float
    answer: str  # a status; "" if there was no answer
    fault: str = ""  # why there was none


@dataclass(frozen=True, slots=True)
class CancelTold:
    """The message that tells the workers to stop a job."""

    at_s: float
    job: str


@dataclass(frozen=True, slots=True)
class Struck:
    """One injected fault, with its begin and end."""

    at_s: float
    kind: FaultKind
    victim: str  # the name of a worker or a server
    until_s: float


@dataclass(frozen=True, slots=True)
class Died:
    """A worker process ended."""

    at_s: float
    worker: str
    reason: Literal["killed", "poison", "other"]
    code: int


@dataclass(frozen=True, slots=True)
class Missed:
    """A span in which the watcher may have missed messages."""

    from_order: int
    to_order: int
    from_s: float
    to_s: float


@dataclass(frozen=True, slots=True)
class DeadLetterSeen:
    """A dead letter."""

    job: str
    attempts: int
    reason: str


@dataclass(frozen=True, slots=True)
class Rest:
    """The mesh after the run: leftovers that must be 0, and counts of Results."""

    queued: int = 0  # messages in the request stream
    ack_pending: int = 0  # over all consumers
    result_keys: int = 0
    result_writes: int = 0  # all writes that the bucket accepted
    drained_s: float | None = 0.0  # from the last fault's end to an empty queue; None: it never was empty


@dataclass
class RunHistory:
    """All records of one run."""

    asked: dict[str, Requested] = field(default_factory=dict)
    submitted: list[Submitted] = field(default_factory=list)
    sent: list[Sent] = field(default_factory=list)
    settled: list[Settled] = field(default_factory=list)
    sequences: dict[int, str] = field(default_factory=dict)  # stream sequence of a request → its job
    events: dict[str, list[StoredEvent]] = field(default_factory=dict)  # job → its journal
    attempts: dict[str, list[StoredEvent]] = field(default_factory=dict)  # job → its private events, not for readers
    results: dict[str, Result] = field(default_factory=dict)  # the bucket's content after the run
    shown: list[Shown] = field(default_factory=list)
    cancelled: list[CancelRequested] = field(default_factory=list)
    told: list[CancelTold] = field(default_factory=list)
    struck: list[Struck] = field(default_factory=list)
    died: list[Died] = field(default_factory=list)
    missed: list[Missed] = field(default_factory=list)
    letters: list[DeadLetterSeen] = field(default_factory=list)
    rest: Rest = field(default_factory=Rest)
    tracebacks: list[str] = field(default_factory=list)  # the last line of each traceback in the workers' log
    wall_s: float = 0.0


@dataclass
class Case:
    """The records of one job."""

    job: str
    asked: Requested | None = None
    submitted: list[Submitted] = field(default_factory=list)
    sent: list[Sent] = field(default_factory=list)
    settled: list[Settled] = field(default_factory=list)
    events: list[StoredEvent] = field(default_factory=list)
    attempts: list[StoredEvent] = field(default_factory=list)
    result: Result | None = None
    shown: list[Shown] = field(default_factory=list)
    cancelled: list[CancelRequested] = field(default_factory=list)
    told: list[CancelTold] = field(default_factory=list)
    letters: list[DeadLetterSeen] = field(default_factory=list)

    @property
    def is_accepted(self) -> bool:
        """Whether a client got the confirmation that the request is stored."""
        return any(each.outcome == "ok" for each in self.submitted)

    @property
    def streams(self) -> bool:
        return self.asked is None or self.asked.request.stream

    def started(self) -> list[Started]:
        """Return the `started` events, from the journal or from the private events."""
        kept = self.events if self.streams else self.attempts
        return [each.event for each in kept if isinstance(each.event, Started)]


def cases(history: RunHistory) -> dict[str, Case]:
    """Group a history by job: the planned jobs, and any other that was observed."""
    found: dict[str, Case] = _Cases()
    for job, asked in history.asked.items():
        found[job].asked = asked
    for job, result in history.results.items():
        found[job].result = result
    for job, kept in history.events.items():
        found[job].events = kept
    for job, kept in history.attempts.items():
        found[job].attempts = kept
    for settled in history.settled:
        if settled.sequence in history.sequences:
            found[history.sequences[settled.sequence]].settled.append(settled)
    _spread(found, "submitted", history.submitted)
    _spread(found, "sent", history.sent)
    _spread(found, "shown", history.shown)
    _spread(found, "cancelled", history.cancelled)
    _spread(found, "told", history.told)
    _spread(found, "letters", history.letters)
    return found


class _Cases(defaultdict[str, Case]):
    def __missing__(self, job: str) -> Case:
        self[job] = case = Case(job)
        return case


def _spread(
    found: dict[str, Case],
    name: str,
    records: Iterable[Submitted | Sent | Shown | CancelRequested | CancelTold | DeadLetterSeen],
) -> None:
    for record in records:
        getattr(found[record.job], name).append(record)
