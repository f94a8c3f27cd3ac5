"""What a job's events say, taken together. Pure. Used by the worker that takes a job over and by readers.

Events are applied in journal order; the journal is fenced, so they tell one story.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from mesh.protocol.messages import Delta, Event, Note, Result, Started, Usage

LOST = "lost"  # the reason in the note of a worker that lost the job and lives
Verdict = Literal["returned", "failed", "died"]


def verdict_of(note: Note) -> Verdict:
    """How an attempt ended, by a note that is a verdict.

    A word of a later minor counts as failed: attempts stay bounded, and one that does not count says `returned`.
    """
    match note.verdict:
        case "returned" | "died" as known:
            return known
        case _:
            return "failed"


@dataclass(frozen=True, slots=True)
class Trial:
    """One attempt that brought its job no further."""

    attempt: int
    isolated: bool  # nothing else ran in its worker
    verdict: Literal["died", "failed"] = "died"  # died: with its worker or engine, whoever was at fault
    is_noted: bool = False  # its worker said so; else it left no word, and may live
    worker: str = ""
    unix_ms: int = 0  # when it began, by its worker's clock


@dataclass(slots=True)
class History:
    """The state of one job after the events applied so far."""

    attempts: int = 0
    # The attempts in a row, the running one included, that brought the job no further.
    trials: list[Trial] = field(default_factory=list)
    best: int = 0  # the most output tokens any attempt reached
    token_ids: list[int] = field(default_factory=list)  # the output that stands
    pieces: list[str] = field(default_factory=list)  # what they show, in order
    finish_reason: str | None = None  # set once the last delta is there
    usage: Usage | None = None
    result: Result | None = None
    worker: str = ""  # of the newest attempt
    request_sequence: int = 0  # the stream sequence of the request that is being served
    has_lost_head: bool = False  # the first events are kept no longer: what is left shows no answer
    verdict: Verdict | None = None  # on the newest attempt; None: its worker left no word, or lost the job
    asked_unix_ms: int | None = None  # since when the worker of the last attempt is asked after
    is_ending: bool = False  # somebody closed the journal in order to end the job, and has not done so yet

    @property
    def text(self) -> str:
        """What the output tokens show."""
        return "".join(self.pieces)

    @property
    def index(self) -> int:
        """How many output tokens stand."""
        return len(self.token_ids)

    def apply(self, event: Event) -> None:
        """Take the next event into account."""
        if isinstance(event, Started):
            self.attempts, self.verdict = event.attempt, None
            self.is_ending = event.closing
            if not event.closing:
                self.trials.append(Trial(event.attempt, event.isolated, worker=event.worker, unix_ms=event.unix_ms))
            self.worker = event.worker
            self.request_sequence = self.request_sequence or event.sequence
            self._cut(event.index)
        elif isinstance(event, Delta):
            self.attempts = max(self.attempts, event.attempt)
            self.has_lost_head = self.has_lost_head or event.index > self.index
            self._cut(event.index)
            self.grow(event.text, event.token_ids)
            self.finish_reason = event.finish_reason
            self.usage = event.usage
        else:
            self.result = event

    def judge(self, notes: Sequence[Note]) -> None:
        """Take into account how the attempts ended: one that was handed back is no trial."""
        verdicts = {note.attempt: verdict_of(note) for note in notes if note.verdict != "probing"}
        asked = [note.unix_ms for note in notes if note.verdict == "probing" and note.attempt == self.attempts]
        self.asked_unix_ms = min(asked, default=self.asked_unix_ms)
        for note in notes:
            if note.attempt == self.attempts and note.verdict != "probing" and note.reason != LOST:
                self.verdict = verdict_of(note)
        judged = []
        for trial in self.trials:
            match verdicts.get(trial.attempt):
                case None:
                    judged.append(trial)
                case "failed" | "died" as verdict:
                    judged.append(replace(trial, verdict=verdict, is_noted=True))
                case "returned":
                    pass
        self.trials = judged

    def forget(self) -> None:
        """No output stands."""
        self._cut(0)
        self.token_ids.clear()
        self.pieces.clear()

    def grow(self, text: str, token_ids: Sequence[int]) -> None:
        """Add new output at the end."""
        self.token_ids.extend(token_ids)
        self.pieces.append(text)
        if self.index > self.best:
            self.best = self.index
            self.trials.clear()

    def _cut(self, index: int) -> None:
        """Tokens from `index` on no longer stand. Unless all are gone, those that go had shown no text."""
        if index >= self.index:
            return
        del self.token_ids[index:]
        self.finish_reason = self.usage = None
        if index == 0:
            self.pieces.clear()


def read_history(events: Iterable[Event]) -> History:
    """The state after all of these."""
    history = History()
    for event in events:
        history.apply(event)
    if history.has_lost_head:
        history.forget()
    return history
