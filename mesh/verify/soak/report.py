"""The figures of one soak: as values, as lines of at most 80 columns, and as JSON. Pure."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from mesh.figures import quantile
from mesh.verify.soak import rules_journal, rules_reader
from mesh.verify.soak.costs import Recovery, recoveries, work_of
from mesh.verify.soak.history import Case, RunHistory, cases
from mesh.verify.soak.violation import Violation

LABEL = 30  # columns of the names
TRACES = 5  # traces of offending jobs printed in full; the JSON has all of them


@dataclass(frozen=True, slots=True)
class Percentiles:
    """Percentiles of `count` durations, in seconds."""

    count: int
    p50_s: float
    p99_s: float
    max_s: float


@dataclass(frozen=True, slots=True)
class SoakFigures:
    """The figures of one soak."""

    seed: int
    workers: int
    servers: int
    requests: int
    acknowledged: int
    faults: dict[str, int]  # by kind; poison: workers that it killed
    ended: dict[str, int]  # Results by status
    retried: int  # jobs with more than one attempt
    lost: int  # acknowledged jobs without a Result
    duplicate_results: int  # writes beyond one for each key
    broken_streams: int  # jobs whose journal or reader had a gap or a repeat
    innocents_buried: int
    poison: int
    poison_buried: int
    refused_writes: int  # event publishes that JetStream did not store: from zombies, and repeats after a lost ack
    useful_tokens: int
    wasted_tokens: int
    waste: float  # wasted for each useful token
    recovery: dict[str, Percentiles]  # by kind of fault, and "all"
    drained_s: float | None
    wall_s: float
    violations: int

    @property
    def fault_count(self) -> int:
        return sum(self.faults.values())


def figures_of(
    history: RunHistory, violations: Sequence[Violation], seed: int, workers: int, servers: int
) -> SoakFigures:
    """Compute the figures of a checked run."""
    by_job = cases(history)
    work = work_of(by_job.values())
    of_order = {rules_journal.ONE_HISTORY, rules_journal.NEWEST_WRITES, rules_reader.IN_ORDER}
    poison = {job for job, asked in history.asked.items() if asked.kind == "poison"}
    buried = {letter.job for letter in history.letters}
    return SoakFigures(
        seed=seed,
        workers=workers,
        servers=servers,
        requests=len(history.asked),
        acknowledged=sum(case.is_accepted for case in by_job.values()),
        faults=_faults(history),
        ended=dict(Counter(result.status for result in history.results.values())),
        retried=sum(case.result is not None and case.result.attempts > 1 for case in by_job.values()),
        lost=sum(case.is_accepted and case.result is None for case in by_job.values()),
        duplicate_results=max(0, history.rest.result_writes - history.rest.result_keys),
        broken_streams=len({each.job for each in violations if each.rule in of_order}),
        innocents_buried=len(buried - poison),
        poison=len(poison),
        poison_buried=len(buried & poison),
        refused_writes=_refused(by_job.values()),
        useful_tokens=work.useful,
        wasted_tokens=work.wasted,
        waste=work.share,
        recovery=_spans(recoveries(history, by_job.values())),
        drained_s=history.rest.drained_s,
        wall_s=history.wall_s,
        violations=len(violations),
    )


def lines_of(figures: SoakFigures) -> list[str]:
    """Return a table of two columns."""
    f = figures
    drained = "never" if f.drained_s is None else f"{f.drained_s:.1f} s after the last fault"
    rows = [
        ("requests, acknowledged", f"{f.requests}, {f.acknowledged}"),
        ("ended", _counted(f.ended)),
        ("faults", str(f.fault_count)),
        *((f"  {kind}", _with_recovery(count, f.recovery.get(kind))) for kind, count in f.faults.items()),
        ("recovery, all faults", _span(f.recovery.get("all"))),
        ("jobs with several attempts", str(f.retried)),
        ("writes refused or repeated", str(f.refused_writes)),
        ("wasted tokens", f"{100 * f.waste:.1f} % of {f.useful_tokens}"),
        ("queue empty", drained),
        ("wall time", f"{f.wall_s:.0f} s"),
        ("lost", str(f.lost)),
        ("duplicate Results", str(f.duplicate_results)),
        ("streams with gap or repeat", str(f.broken_streams)),
        ("innocent dead letters", str(f.innocents_buried)),
        ("poison dead letters", f"{f.poison_buried} of {f.poison}"),
        ("violations", str(f.violations)),
    ]
    return [f"{label:<{LABEL}}{value}" for label, value in rows]


def lines_of_violations(violations: Sequence[Violation]) -> list[str]:
    """Return each broken rule with its count, and the traces of the first offending jobs."""
    lines = [f"{count} x {rule}" for rule, count in Counter(each.rule for each in violations).most_common()]
    told: set[str] = set()
    for each in violations:
        if each.job and each.job in told:
            continue
        if len(told) >= TRACES and each.trace:
            continue
        told.add(each.job)
        lines += ["", *each.lines()]
    return lines


def as_json(figures: SoakFigures, violations: Sequence[Violation]) -> dict[str, Any]:
    """Return all figures and violations, for programs."""
    found = [asdict(each) for each in violations]
    return {**asdict(figures), "fault_count": figures.fault_count, "broken": found}


def _faults(history: RunHistory) -> dict[str, int]:
    found = Counter[str](struck.kind for struck in history.struck)
    found["poison"] = sum(died.reason == "poison" for died in history.died)
    found["death"] = sum(died.reason == "other" for died in history.died)
    return {kind: count for kind, count in sorted(found.items()) if count}


def _refused(by_job: Iterable[Case]) -> int:
    found = 0
    for case in by_job:
        tried = sum(sent.to == "events" for sent in case.sent)
        found += max(0, tried - len(case.events))
    return found


def _spans(found: Sequence[Recovery]) -> dict[str, Percentiles]:
    kinds: dict[str, list[float]] = {"all": [each.stall_s for each in found]}
    for each in found:
        kinds.setdefault(each.kind, []).append(each.stall_s)
    return {
        kind: Percentiles(len(values), quantile(values, 0.5), quantile(values, 0.99), max(values))
        for kind, values in kinds.items()
        if values
    }


def _counted(counts: dict[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in sorted(counts.items())) or "none"


def _span(span: Percentiles | None) -> str:
    if span is None:
        return "no fault hit a running job"
    return f"p50 {span.p50_s:.2f} s, p99 {span.p99_s:.2f} s, max {span.max_s:.2f} s"


def _with_recovery(count: int, span: Percentiles | None) -> str:
    return f"{count:<4}" + (f"  {_span(span)}" if span is not None else "")
