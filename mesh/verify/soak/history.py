"""What a soak did and what was seen of it: records, and nothing else. Pure.

All instants are seconds since the run began. `order` is the position on the wire as the watcher heard it: one number
for everything that the watcher hears, so that two records can be compared. Written by load, wire, faults and harvest;
read by the rules and the report.
"""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

from mesh.protocol.messages import Delta, Event, Request, Result, Started, Tier

# plain: nothing special. poison: kills every worker that runs it. stumble: it fails once, in the middle. wreck: in the
# middle its engine dies, with all who run on it. restart: wants to begin anew when its worker is lost. twice:
# submitted under one id by two clients at once.
JobKind = Literal["plain", "poison", "stumble", "wreck", "restart", "twice", "cancel", "deadline"]
# live: from the first token. late: by its id, some time later. none: nobody; the Result is read in the end.
Reading = Literal["live", "late", "none"]
FaultKind = Literal["kill", "stop", "cut", "reset", "slow", "server"]
Where = Literal["events", "attempts", "results", "dead"]
Verb = Literal["ack", "nak", "term", "remove"]


@dataclass(frozen=True, slots=True)
class Requested:
    """One request as it was meant."""

    job: str
    tenant: str
    tier: Tier
    kind: JobKind
    reading: Reading
    request: Request
    at_s: float


@dataclass(frozen=True, slots=True)
class Submitted:
    """How one submit ended for who submitted."""

    at_s: float
    job: str
    outcome: Literal["ok", "unknown", "refused"]
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Sent:
    """One message on its way into a store, whether or not JetStream took it."""

    at_s: float
    order: int
    to: Where
    job: str
    what: str  # started, delta, result; returned and other notes; ? for what does not decode
    expected: int | None  # the fence it carried; None: it carried none
    sender: str  # whose: the head of the inbox to which the answer goes; "" if none was asked for
    attempt: int = 0
    index: int = 0
    tokens: int = 0
    worker: str = ""


@dataclass(frozen=True, slots=True)
class Settled:
    """What somebody said about a delivery, or a removal from the queue."""

    at_s: float
    order: int
    sequence: int  # of the request in its stream
    verb: Verb
    is_confirmed: bool  # it asked for an answer
    sender: str


@dataclass(frozen=True, slots=True)
class StoredEvent:
    """One message as it stands in the events stream."""

    sequence: int
    event: Event | None  # None: a note, or nothing that a worker writes
    note: str = ""


@dataclass(frozen=True, slots=True)
class Shown:
    """What one reader got, in its order."""

    job: str
    reading: Reading
    pieces: tuple[Delta, ...]
    restarts: int  # times it was told to discard what it had
    result: Result | None  # None: it was not told how the job ended
    fault: str = ""  # why not


@dataclass(frozen=True, slots=True)
class CancelRequested:
    """A client asked for a job to stop."""

    job: str
    asked_s: float
    answered_s: float
    answer: str  # a status; "" if there was no answer
    fault: str = ""  # why not


@dataclass(frozen=True, slots=True)
class CancelTold:
    """The workers were told to stop a job: the message among them."""

    at_s: float
    job: str


@dataclass(frozen=True, slots=True)
class Struck:
    """One injected fault, and how long it lasted."""

    at_s: float
    kind: FaultKind
    victim: str  # a worker's name, or a server's
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
    """The watcher may have missed what happened between two records."""

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
    """The mesh after everything: what should be nothing."""

    queued: int = 0  # messages in the request stream
    ack_pending: int = 0  # over all consumers
    result_keys: int = 0
    result_writes: int = 0  # that the bucket ever took
    drained_s: float | None = 0.0  # from the last fault's end to an empty queue; None: it never was


@dataclass
class RunHistory:
    """Everything of one run."""

    asked: dict[str, Requested] = field(default_factory=dict)
    submitted: list[Submitted] = field(default_factory=list)
    sent: list[Sent] = field(default_factory=list)
    settled: list[Settled] = field(default_factory=list)
    sequences: dict[int, str] = field(default_factory=dict)  # in the request stream: whose request that was
    events: dict[str, list[StoredEvent]] = field(default_factory=dict)  # a job's journal
    attempts: dict[str, list[StoredEvent]] = field(default_factory=dict)  # what its readers need not see
    results: dict[str, Result] = field(default_factory=dict)  # as they stand in the bucket in the end
    shown: list[Shown] = field(default_factory=list)
    cancelled: list[CancelRequested] = field(default_factory=list)
    told: list[CancelTold] = field(default_factory=list)
    struck: list[Struck] = field(default_factory=list)
    died: list[Died] = field(default_factory=list)
    missed: list[Missed] = field(default_factory=list)
    letters: list[DeadLetterSeen] = field(default_factory=list)
    rest: Rest = field(default_factory=Rest)
    tracebacks: list[str] = field(default_factory=list)  # in the workers' log: the last line of each
    wall_s: float = 0.0


@dataclass
class Case:
    """One job's part of a history."""

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
        """Whether some client was told that the request is stored."""
        return any(each.outcome == "ok" for each in self.submitted)

    @property
    def streams(self) -> bool:
        return self.asked is None or self.asked.request.stream

    def started(self) -> list[Started]:
        """The attempts, wherever they are counted."""
        kept = self.events if self.streams else self.attempts
        return [each.event for each in kept if isinstance(each.event, Started)]


def cases(history: RunHistory) -> dict[str, Case]:
    """The history by jobs: those that were asked for, and any other that was seen."""
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
