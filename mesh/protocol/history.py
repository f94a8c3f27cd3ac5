"""What a job's events say, taken together. Pure. Used by the worker that takes a job over and by readers.

Events are applied in journal order; the journal is fenced, so they tell one story.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field

from mesh.protocol.messages import Delta, Event, Result, Started, Usage


@dataclass(slots=True)
class History:
    """The state of one job after the events applied so far."""

    attempts: int = 0
    fruitless: int = 0  # attempts in a row, the running one included, that brought the job no further
    best: int = 0  # the most output tokens any attempt reached
    token_ids: list[int] = field(default_factory=list)  # the output that stands
    pieces: list[str] = field(default_factory=list)  # what they show, in order
    finish_reason: str | None = None  # set once the last delta is there
    usage: Usage | None = None
    result: Result | None = None
    worker: str = ""  # of the newest attempt
    request_sequence: int = 0  # the stream sequence of the request that is being served

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
            self.attempts = event.attempt
            self.fruitless += 1
            self.worker = event.worker
            self.request_sequence = self.request_sequence or event.sequence
            self._cut(event.index)
        elif isinstance(event, Delta):
            self._cut(event.index)
            self.grow(event.text, event.token_ids)
            self.finish_reason = event.finish_reason
            self.usage = event.usage
        else:
            self.result = event

    def excuse(self, returned: Collection[int]) -> None:
        """These attempts were given back by workers that stopped; they do not count as fruitless."""
        newest = range(self.attempts - self.fruitless + 1, self.attempts + 1)
        self.fruitless -= sum(1 for attempt in newest if attempt in returned)

    def grow(self, text: str, token_ids: Sequence[int]) -> None:
        """Add new output at the end."""
        self.token_ids.extend(token_ids)
        self.pieces.append(text)
        if self.index > self.best:
            self.best = self.index
            self.fruitless = 0

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
    return history
