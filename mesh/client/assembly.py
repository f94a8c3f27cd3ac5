"""A job's events into what its reader sees: each token once, in order, across attempts. Pure.

Events may arrive twice (live and from the journal) and with gaps (a slow reader, a reconnect). `take` returns what
to show; after a `Gap` the caller reads the journal and gives the events again.
"""

from dataclasses import dataclass

from mesh.protocol.messages import Delta, Event, Result, Started


@dataclass(frozen=True, slots=True)
class Restarted:
    """The output begins anew and differs: discard what was shown. Reads as an empty delta."""

    attempt: int
    index: int = 0
    text: str = ""
    token_ids: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Gap:
    """Output tokens from `index` on are missing."""

    index: int


Shown = Delta | Restarted | Gap | Result


class Assembly:
    """The reader's side of one job's history."""

    def __init__(self) -> None:
        self._attempt = 0
        self._ids: list[int] = []  # output tokens shown
        self._pieces: list[str] = []  # the shown text, in order
        # While an attempt repeats from index 0 what was shown: what it has repeated so far. None: it does not.
        self._again: tuple[list[int], str] | None = None
        self._is_finished = False  # the attempt's last delta was taken
        self._is_over = False  # the Result was

    @property
    def index(self) -> int:
        """The index the next delta should have."""
        return len(self._ids) if self._again is None else len(self._again[0])

    @property
    def text(self) -> str:
        """Everything shown that stands."""
        return "".join(self._pieces)

    def take(self, event: Event) -> list[Shown]:
        """The next event that arrived; what its reader sees of it, possibly nothing."""
        if self._is_over:
            return []
        if isinstance(event, Result):
            self._is_over = True
            return [event]
        if event.attempt < self._attempt:
            return []  # a worker that lost the job
        if isinstance(event, Started):
            return self._begin(event.attempt, event.index)
        shown = self._begin(event.attempt, event.index) if event.attempt > self._attempt else []
        if shown:
            return shown
        return self._extend(event)

    def _begin(self, attempt: int, index: int) -> list[Shown]:
        if attempt == self._attempt:
            return []  # heard before
        if index > self.index or attempt > self._attempt + 1:
            return [Gap(self.index)]  # before the attempt counts: what came before it is still to be read
        self._attempt = attempt
        self._is_finished = False
        if index == 0:
            self._again = ([], "") if self._ids else None
        elif self._again is None:
            del self._ids[index:]  # ids that had shown no text yet
        else:
            del self._again[0][index:]
        return []

    def _extend(self, delta: Delta) -> list[Shown]:
        if delta.index > self.index:
            return [Gap(self.index)]
        if delta.index < self.index or self._is_finished:
            return []  # shown before
        self._is_finished = delta.finish_reason is not None
        if self._again is None:
            self._ids += delta.token_ids
            self._pieces.append(delta.text)
            return [delta]
        return self._repeat(delta)

    def _repeat(self, delta: Delta) -> list[Shown]:
        """An attempt that began again: silent while it says the same, told once it does not."""
        assert self._again is not None
        ids, text, shown = self._again[0] + delta.token_ids, self._again[1] + delta.text, self.text
        common = min(len(ids), len(self._ids))
        is_shorter = len(ids) < len(self._ids) or len(text) < len(shown)
        is_same = ids[:common] == self._ids[:common] and (text.startswith(shown) or shown.startswith(text))
        if not is_same or (is_shorter and self._is_finished):  # it ends before it has said all that was shown
            self._again, self._ids, self._pieces = None, ids, [text]
            whole = Delta(id=delta.id, attempt=delta.attempt, index=0, text=text, token_ids=list(ids))
            return [Restarted(delta.attempt), whole]
        if is_shorter:
            self._again = (ids, text)
            return []
        new_ids, new_text, start = ids[len(self._ids) :], text[len(shown) :], len(self._ids)
        self._again, self._ids, self._pieces = None, ids, [text]
        if not new_ids and not new_text:
            return []
        return [Delta(id=delta.id, attempt=delta.attempt, index=start, text=new_text, token_ids=new_ids)]

    def rest_of(self, result: Result) -> list[Delta | Restarted]:
        """The output of a finished Result that was not shown yet, for when its events can no longer be read."""
        text = self.text
        if result.embeddings is not None or result.text == text:
            return []
        if result.text.startswith(text):
            rest = result.text[len(text) :]
            shown: list[Delta | Restarted] = []
        else:
            rest, shown = result.text, [Restarted(result.attempts)]
            self._ids = []
        self._again, self._pieces = None, [result.text]
        return [
            *shown,
            Delta(id=result.id, attempt=result.attempts, index=len(self._ids), text=rest, token_ids=[]),
        ]
