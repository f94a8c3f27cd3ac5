"""The last hour of each model in `mesh top`: a sparkline of tokens, and times to first token. Pure."""

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from mesh.figures import quantile
from mesh.protocol.messages import AuditEntry

MINUTES = 60
MINUTE_MS = 60_000
MOST_FIRSTS = 1000  # times to first token that are kept of one model and minute
BARS = "▁▂▃▄▅▆▇█"


@dataclass(frozen=True, slots=True)
class ModelHour:
    """One model's last hour."""

    tokens: tuple[int, ...]  # output tokens of the jobs that ended in each minute, the oldest minute first
    ended: int
    failed: int
    first_p50_ms: int | None  # from the storage of a request to its first token; None: no job told it
    first_p95_ms: int | None


@dataclass(slots=True)
class _Minute:
    number: int  # since the epoch
    tokens: int = 0
    ended: int = 0
    failed: int = 0
    firsts_ms: list[int] = field(default_factory=list)


class Hour:
    """Sums up `ended` entries of the audit. Memory is bounded by models and minutes."""

    def __init__(self) -> None:
        self._minutes: dict[str, deque[_Minute]] = {}

    def add(self, entries: Iterable[AuditEntry]) -> None:
        """Count more jobs, in the order in which they were stored; entries of other events are left out."""
        for entry in entries:
            if entry.event != "ended" or not entry.model:
                continue
            minute = self._minute(entry.model, entry.unix_ms // MINUTE_MS)
            minute.tokens += entry.tokens
            minute.ended += 1
            minute.failed += entry.status == "failed"
            if entry.first_token_ms is not None and len(minute.firsts_ms) < MOST_FIRSTS:
                minute.firsts_ms.append(entry.first_token_ms)

    def of(self, model: str, now_unix_ms: int) -> ModelHour:
        """A model's hour up to now."""
        newest = now_unix_ms // MINUTE_MS
        kept = [each for each in self._minutes.get(model, ()) if newest - MINUTES < each.number <= newest]
        tokens = [0] * MINUTES
        for each in kept:
            tokens[each.number - newest - 1] += each.tokens
        firsts = sorted(first for each in kept for first in each.firsts_ms)
        return ModelHour(
            tokens=tuple(tokens),
            ended=sum(each.ended for each in kept),
            failed=sum(each.failed for each in kept),
            first_p50_ms=round(quantile(firsts, 0.5)) if firsts else None,
            first_p95_ms=round(quantile(firsts, 0.95)) if firsts else None,
        )

    def _minute(self, model: str, number: int) -> _Minute:
        minutes = self._minutes.setdefault(model, deque(maxlen=MINUTES + 1))
        # Clocks of workers differ by seconds: an entry may belong to a minute before the newest.
        found = next((each for each in reversed(minutes) if each.number == number), None)
        if found is None:
            found = _Minute(number)
            minutes.append(found)
        return found


def spark(values: Sequence[int], size: int) -> str:
    """`values` as `size` bars, each for the sum of an equal share of them: a space for nothing, the highest for most.

    Args:
        values: n >= size of them; n is a multiple of `size`.
    """
    share = len(values) // size
    sums = [sum(values[start : start + share]) for start in range(0, share * size, share)]
    most = max(sums, default=0)
    return "".join(BARS[max(0, -(-each * len(BARS) // most) - 1)] if each else " " for each in sums)
