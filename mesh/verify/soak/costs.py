"""What a run cost: work done twice, and how long jobs stood still after a fault. Pure."""

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise

from mesh.verify.soak.history import Case, RunHistory


@dataclass(frozen=True, slots=True)
class WorkCost:
    """Output tokens."""

    useful: int  # in the Results
    wasted: int  # made, and not in them

    @property
    def share(self) -> float:
        """Wasted for each useful one."""
        return self.wasted / self.useful if self.useful else 0.0


@dataclass(frozen=True, slots=True)
class Recovery:
    """One fault, and the longest that a job which it hit stood still."""

    kind: str
    at_s: float
    stall_s: float
    jobs: int  # that it hit


def work_of(cases: Iterable[Case]) -> WorkCost:
    """Tokens published by any attempt against tokens that counted.

    Tokens made and never published, because their worker died first, are not seen: at most one chunk for each running
    job. An attempt at a job that streams nothing is taken for a whole output if another followed it.
    """
    useful = wasted = 0
    for case in cases:
        result = case.result
        if result is None:
            continue
        counted = result.usage.completion_tokens
        useful += counted
        if not case.streams:
            wasted += counted * max(0, result.attempts - 1)
            continue
        made = {(s.attempt, s.index + n) for s in case.sent if s.what == "delta" for n in range(s.tokens)}
        wasted += max(0, len(made) - counted)
    return WorkCost(useful, wasted)


def recoveries(history: RunHistory, cases: Iterable[Case]) -> list[Recovery]:
    """For each fault that hit a running job, how long until all that it hit had moved on.

    A job moves on when its next event is on the wire: by whoever took it over, or by its old worker. Poison is left
    out: it is the cause and not the victim.
    """
    runs = _Runs(cases)
    found = [
        runs.stall(struck.kind, struck.at_s, None if struck.kind == "server" else struck.victim)
        for struck in history.struck
    ]
    names = {"poison": "poison", "other": "death"}
    found += [runs.stall(names[died.reason], died.at_s, died.worker) for died in history.died if died.reason in names]
    return [each for each in found if each is not None]


class _Runs:
    """Who ran what when, as the wire tells it."""

    def __init__(self, cases: Iterable[Case]) -> None:
        self._moves: dict[str, list[float]] = {}  # job → when an event of it was on the wire
        self._held: dict[str, list[tuple[float, float, str]]] = defaultdict(list)  # worker → from, to, job
        self._all: list[tuple[float, float, str]] = []
        for case in cases:
            if case.streams and (case.asked is None or case.asked.kind != "poison"):
                self._enter(case)
        self._all.sort()

    def _enter(self, case: Case) -> None:
        events = [sent for sent in case.sent if sent.to == "events"]
        self._moves[case.job] = [sent.at_s for sent in events]
        starts = [sent for sent in events if sent.what in ("started", "result")]
        for start, after in pairwise(starts):
            if start.what == "started":
                held = (start.at_s, after.at_s, case.job)
                self._held[start.worker].append(held)
                self._all.append(held)

    def stall(self, kind: str, at_s: float, worker: str | None) -> Recovery | None:
        """Of a fault that hit `worker`, or everybody; None if it hit no running job."""
        held = self._all if worker is None else self._held.get(worker, [])
        stalls = []
        for from_s, to_s, job in held:
            if from_s <= at_s < to_s:
                moves = self._moves[job]
                stalls.append(moves[bisect_right(moves, at_s)] - at_s)
        return Recovery(kind, at_s, max(stalls), len(stalls)) if stalls else None
