"""The costs of a run: work done twice, and the pauses of jobs after faults. Pure."""

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise

from mesh.verify.soak.history import Case, RunHistory


@dataclass(frozen=True, slots=True)
class WorkCost:
    """Counts of output tokens."""

    useful: int  # tokens in Results
    wasted: int  # published tokens that are in no Result

    @property
    def share(self) -> float:
        """Wasted tokens for each useful one."""
        return self.wasted / self.useful if self.useful else 0.0


@dataclass(frozen=True, slots=True)
class Recovery:
    """One fault, and the longest pause of a job that it hit."""

    kind: str
    at_s: float
    stall_s: float
    jobs: int  # jobs that it hit


def work_of(cases: Iterable[Case]) -> WorkCost:
    """Compare the tokens that any attempt published with the tokens in Results.

    Tokens that a worker made but did not publish before its death are not counted: at most one chunk for each running
    job. For a job that streams nothing, each attempt before the last counts as a whole output.
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
    """Return, for each fault that hit a running job, the time until every such job continued.

    A job continues when its next event is on the wire, from its old worker or from the one that took it over. Poison
    jobs are left out: they are the cause, not the victim.
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
    """The times at which each worker ran each job, from the wire."""

    def __init__(self, cases: Iterable[Case]) -> None:
        self._moves: dict[str, list[float]] = {}  # job → times of its events on the wire
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
        """Return the recovery from a fault of `worker`, or of all workers (None); None: it hit no running job."""
        held = self._all if worker is None else self._held.get(worker, [])
        stalls = []
        for from_s, to_s, job in held:
            if from_s <= at_s < to_s:
                moves = self._moves[job]
                stalls.append(moves[bisect_right(moves, at_s)] - at_s)
        return Recovery(kind, at_s, max(stalls), len(stalls)) if stalls else None
