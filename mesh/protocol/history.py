"""The state of a job, computed from its events. Pure.

Events are applied in journal order. The journal is fenced, so they form one history.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from mesh.protocol.messages import Delta, Event, Note, Result, Started, Usage

LOST = "lost"  # the reason in the note of a worker that lost the job and is alive
Verdict = Literal["returned", "failed", "died"]


def verdict_of(note: Note) -> Verdict:
    """The verdict in a note that is not `probing`.

    An unknown verdict of a later minor counts as `failed`, which keeps attempts bounded.
    """
    match note.verdict:
        case "returned" | "died" as known:
            return known
        case _:
            return "failed"


@dataclass(frozen=True, slots=True)
class Trial:
    """One attempt that ended without progress of its job."""

    attempt: int
    isolated: bool  # nothing else ran in its worker
    verdict: Literal["died", "failed"] = "died"  # died: its worker or engine died, for any reason
    is_noted: bool = False  # its worker noted the verdict; else the worker left no note, and may be alive
    worker: str = ""
    unix_ms: int = 0  # when it began, by its worker's clock


@dataclass(slots=True)
class History:
    """The state of one job after the events applied so far."""

    attempts: int = 0
    # The consecutive attempts without progress of the job, the running one included.
    trials: list[Trial] = field(default_factory=list)
    best: int = 0  # the most output tokens any attempt reached
    token_ids: list[int] = field(default_factory=list)  # the output that stands
    pieces: list[str] = field(default_factory=list)  # the text of those tokens, in order
    finish_reason: str | None = None  # set by the last delta
    usage: Usage | None = None
    result: Result | None = None
    worker: str = ""  # of the newest attempt
    request_sequence: int = 0  # the stream sequence of the request that is being served
    has_lost_head: bool = False  # the first events are kept no longer, so the others do not show the whole output
    verdict: Verdict | None = None  # on the newest attempt; None: its worker left no note, or lost the job
    asked_unix_ms: int | None = None  # when a death check first pinged the worker of the last attempt
    is_ending: bool = False  # a process closed the journal in order to end the job, and has not ended it yet

    @property
    def text(self) -> str:
        """The text of the output tokens."""
        return "".join(self.pieces)

    @property
    def index(self) -> int:
        """The number of output tokens that stand."""
        return len(self.token_ids)

    def apply(self, event: Event) -> None:
        """Apply the next event."""
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
        """Apply the notes on how attempts ended; an attempt that was handed back is no trial."""
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
        """Discard all output."""
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
        """Discard the tokens from `index` on. Unless all are discarded, those had shown no text."""
        if index >= self.index:
            return
        del self.token_ids[index:]
        self.finish_reason = self.usage = None
        if index == 0:
            self.pieces.clear()


def read_history(events: Iterable[Event]) -> History:
    """The state after all these events."""
    history = History()
    for event in events:
        history.apply(event)
    if history.has_lost_head:
        history.forget()
    return history
