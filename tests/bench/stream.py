"""What one asking end saw of one job, and what is read from many of them."""

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field


class BenchError(Exception):
    """A stream was not what it should be, or a process of the benchmark broke: the figures mean nothing."""


@dataclass(slots=True)
class Stream:
    """One job at its reader. Times are monotonic seconds, the same clock in every process of a machine."""

    job: str
    asked_s: float
    arrivals_s: list[float] = field(default_factory=list)  # of each event with tokens
    counts: list[int] = field(default_factory=list)  # tokens in each
    token_ids: list[int] = field(default_factory=list)
    text: str = ""
    result_text: str = ""
    done_s: float = 0.0

    def add(self, text: str, token_ids: Sequence[int]) -> None:
        """One event."""
        self.arrivals_s.append(time.monotonic())
        self.counts.append(len(token_ids))
        self.token_ids += token_ids
        self.text += text

    def check(self, text: str, token_ids: list[int]) -> None:
        """Compare with what the engine must have made.

        Raises:
            BenchError: a token, a character or the stored text differs.
        """
        if self.token_ids != token_ids or self.text != text or self.result_text != text:
            raise BenchError(f"job {self.job}: {len(self.token_ids)} of {len(token_ids)} tokens, or other ones")

    def first_token_s(self) -> float:
        """From asking to the first token."""
        return self.arrivals_s[0] - self.asked_s

    def between_tokens_s(self) -> float:
        """Mean time from one token to the next; 0 for an answer that came at once."""
        later = sum(self.counts) - self.counts[0]
        return (self.arrivals_s[-1] - self.arrivals_s[0]) / later if later else 0.0


def latenesses_s(stream: Stream, due_s: float, interval_s: float) -> list[float]:
    """How long after it was due each token arrived. `due_s`: the first one's instant."""
    found: list[float] = []
    for arrived_s, count in zip(stream.arrivals_s, stream.counts, strict=True):
        found += [arrived_s - due_s - (len(found) + each) * interval_s for each in range(count)]
    return found


def percentile(values: Iterable[float], share: float) -> float:
    """The value that `share` of all are at most; nan of none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else float("nan")
